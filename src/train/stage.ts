// The loop of one stage. A step is three moves: gradients of the summed losses over the micro-batches;
// reduce, the seam for several processes; apply, where the sums are divided by what the step weighs. What a
// stage trains is decided once; everything else is a constant and gets no gradient.

import { type Constant, type Engine, type State, sizeOf, type Value, type Write } from '../engine/engine.ts';
import { UserError } from '../errors.ts';
import { grad } from '../graph/grad.ts';
import { constantsOf, type LossGraph } from '../models/programs.ts';
import type { MicroBatch } from './batch.ts';
import { type AdamWOptions, createAdamW, type Optimizer, type OptimizerReport, type TrainedParameter } from './optimizer.ts';
import { learningRateFactor, type Schedule } from './schedule.ts';

/**
 * A stage's data: a pure function of the step, so that a resumed run sees what an uninterrupted one would
 * have seen.
 */
export interface StageData {
  stepsPerEpoch: number;
  /** The batches whose gradients are summed for optimizer step `step`, from 0. */
  batches(step: number): Iterable<MicroBatch> | AsyncIterable<MicroBatch>;
}

export interface StageOptions {
  engine: Engine;
  /** `loss`, summed over what a batch weighs, and further sums that are logged the same way. */
  loss: LossGraph;
  /** The parameters that are trained, changed in place: float32 state by name. */
  trained: ReadonlyMap<string, State>;
  /** The others, by the names of the inputs that hold them. */
  constants: ReadonlyMap<string, Constant>;
  /** Peak learning rate of a parameter. */
  learningRate: (name: string) => number;
  schedule: Schedule;
  optimizer: AdamWOptions;
  data: StageData;
  /** Whether layers are computed again for the backward pass, which takes less memory and more time. */
  gradientCheckpointing?: boolean;
  /** Finished steps, and the optimizer's moments after them by name, when resuming. */
  start?: { step: number; moments: ReadonlyMap<string, Value> };
  /**
   * Adds up, over the processes of a run, gradients in place and the sums that come with them. One process
   * has nothing to add.
   */
  reduce?: (gradients: readonly State[], sums: StepSums) => Promise<StepSums>;
  /** Whether the report of a step, from 1, has `changes`. */
  measures?: (step: number) => boolean;
  onStep?: (report: StepReport) => void | Promise<void>;
  /**
   * The stage ends with this error, and what it trains is as the last finished step left it: the place to
   * save it. The error is thrown afterwards.
   */
  onFailure?: (error: unknown, moments: ReadonlyMap<string, State>) => Promise<void>;
}

/** What a step adds up over its micro-batches. */
export interface StepSums {
  /** `loss`, and what else the graph gives. */
  outputs: Record<string, number>;
  weight: number;
  tokens: number;
  padding: number;
}

export interface StepReport extends OptimizerReport {
  /** Finished steps, from 1. */
  step: number;
  /** Per unit of weight: nats per label. */
  loss: number;
  /** What else the graph gives, per unit of weight. */
  metrics: Record<string, number>;
  /** Factor of the schedule at this step. */
  learningRateFactor: number;
  /** What the gradients were divided by: labels. */
  weight: number;
  tokens: number;
  padding: number;
  /** What the optimizer remembers, by its names in checkpoints. */
  moments: ReadonlyMap<string, State>;
}

/** Trains to the end of the schedule; the state in `trained` is the result. */
export async function trainStage(options: StageOptions): Promise<void> {
  const { engine, data, schedule, reduce = async (_, sums) => sums } = options;
  const parameters = trainedParameters(options);
  const backward = await compileBackward(options, parameters);
  const optimizer = await createAdamW(engine, parameters, options.optimizer);
  let isUpdating = false;
  try {
    await restoreMoments(optimizer, options.start?.moments);
    for (let step = options.start?.step ?? 0; step < schedule.totalSteps; step++) {
      const own = await backward.run(data.batches(step));
      if (own.tokens === 0) throw new Error(`the data gave no batch for step ${step}`);
      const sums = await reduce(
        parameters.map(({ gradient }) => gradient),
        own,
      );
      if (sums.weight === 0) throw new UserError(`step ${step + 1} has no label to learn from: every token of its samples is masked`);
      const factor = learningRateFactor(schedule, step);
      isUpdating = true;
      const update = await optimizer.step({
        step: step + 1,
        scale: 1 / sums.weight,
        learningRate: (name) => options.learningRate(name) * factor,
        measures: options.measures?.(step + 1),
      });
      isUpdating = false;
      const { loss, ...metrics } = Object.fromEntries(Object.entries(sums.outputs).map(([name, sum]) => [name, sum / sums.weight]));
      const { tokens, padding, weight } = sums;
      const { moments } = optimizer;
      await options.onStep?.({ step: step + 1, loss, metrics, learningRateFactor: factor, ...update, weight, tokens, padding, moments });
    }
  } catch (error) {
    // the optimizer's UserErrors come before it changes anything
    if (!isUpdating || error instanceof UserError) await options.onFailure?.(error, optimizer.moments);
    throw error;
  } finally {
    await backward.dispose();
    await optimizer.dispose();
  }
}

function trainedParameters({ engine, loss, trained }: StageOptions): TrainedParameter[] {
  const parameters = loss.parameters.flatMap(({ name, dims }) => {
    const values = trained.get(name);
    return values ? [{ name, dims, values, gradient: engine.zeros('float32', dims) }] : [];
  });
  if (parameters.length === 0) throw new Error('the stage trains nothing');
  return parameters;
}

async function restoreMoments({ moments }: Optimizer, saved: ReadonlyMap<string, Value> | undefined): Promise<void> {
  if (!saved) return;
  for (const [name, state] of moments) {
    const value = saved.get(name);
    if (!value) throw new UserError(`the checkpoint has no ${name} of the optimizer: another version wrote it; start the run anew`);
    await state.write(value);
  }
}

/** A model of more bytes than this, in float32, is trained with memory before speed. */
const LEAN_BYTES = 2 ** 29;

/** Whether a graph is of such a model. */
export const isLean = ({ parameters }: LossGraph): boolean => parameters.reduce((sum, { dims }) => sum + 4 * sizeOf(dims), 0) > LEAN_BYTES;

const gradientName = (parameter: string) => `gradient.${parameter}`;

/** The first move: losses and gradients of micro-batches, the gradients added up in state. */
async function compileBackward(
  { engine, loss: graph, constants, gradientCheckpointing }: StageOptions,
  parameters: readonly TrainedParameter[],
) {
  const tensors = new Map(graph.parameters.map(({ name, tensor }) => [name, tensor]));
  const gradients = grad(
    graph.outputs.loss,
    parameters.map(({ name }) => tensors.get(name)!),
  );
  const writes: Record<string, Write> = {};
  const state: Record<string, State> = {};
  parameters.forEach(({ name, values, gradient }, i) => {
    writes[gradientName(name)] = { mode: 'add', tensor: gradients[i] };
    Object.assign(state, { [name]: values, [gradientName(name)]: gradient });
  });
  const frozen = graph.parameters.filter(({ name }) => !state[name]);
  const recompute = gradientCheckpointing ? ('all' as const) : undefined;
  const options = { constants: constantsOf(frozen, constants), writes, lean: isLean(graph), recompute };
  const program = await engine.compile(graph.outputs, options);
  return {
    async run(batches: Iterable<MicroBatch> | AsyncIterable<MicroBatch>): Promise<StepSums> {
      for (const { gradient } of parameters) gradient.clear();
      const sums: StepSums = { outputs: {}, weight: 0, tokens: 0, padding: 0 };
      for await (const { inputs, weight, tokens, padding = 0 } of batches) {
        const results = await program.run(inputs, { state });
        for (const [name, { data }] of Object.entries(results)) sums.outputs[name] = (sums.outputs[name] ?? 0) + (data[0] as number);
        sums.weight += weight;
        sums.tokens += tokens;
        sums.padding += padding;
      }
      return sums;
    },
    dispose: () => program.dispose(),
  };
}
