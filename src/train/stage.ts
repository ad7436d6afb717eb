// The loop of one stage. A step is three moves: gradients of the summed losses over the micro-batches, added
// in pairs; reduce, which goes on adding in pairs over the processes of the run; apply, where the sums are
// divided by what the step weighs. What a stage trains is decided once; everything else is a constant and
// gets no gradient.

import { type Constant, type Engine, type State, sizeOf, type Value, type Write } from '../engine/engine.ts';
import { DeviceError } from '../engine/webgpu/failure.ts';
import { UserError } from '../errors.ts';
import { grad } from '../graph/grad.ts';
import { constantsOf, type LossGraph } from '../models/programs.ts';
import { alone, type Communicator, StoppedTogether } from '../mpi/communicator.ts';
import type { MicroBatch } from './batch.ts';
import { addPairs, createStateAdder, gatherSums, levelsOf, type StepSums, sumStates } from './gradient-sums.ts';
import { gatheredMoments, ownersOf, shareValues } from './moment-shards.ts';
import { type AdamWOptions, createAdamW, type Optimizer, type OptimizerReport, type TrainedParameter } from './optimizer.ts';
import { learningRateFactor, type Schedule } from './schedule.ts';

/**
 * A stage's data: a pure function of the step, so that a resumed run sees what an uninterrupted one would
 * have seen.
 */
export interface StageData {
  stepsPerEpoch: number;
  /**
   * The batches whose gradients are summed for optimizer step `step`, from 0: of several processes, the share
   * of this one.
   */
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
  /**
   * Finished steps, and the optimizer's moments after them by name, when resuming. The map is emptied: they
   * would be in memory twice for the whole stage.
   */
  start?: { step: number; moments: Map<string, Value> };
  /** Whether the report of a step, from 1, has `changes`. */
  measures?: (step: number) => boolean;
  /** Batches of a step, over all processes; a multiple of their number. Default: 1 for each. */
  accumulation?: number;
  /** The processes that train together, all with the same options. Default: this one alone. */
  communicator?: Communicator;
  /** Whether each process keeps the moments of its share of the parameters only, and updates these. */
  shardMoments?: boolean;
  onStep?: (report: StepReport) => void | Promise<void>;
  /**
   * The stage ends with this error, and what it trains is as the last finished step left it: the place to
   * save it. The error is thrown afterwards. An error of one process among several ends without it.
   */
  onFailure?: (error: unknown, moments: ReadonlyMap<string, State>, lead: Lead) => Promise<void>;
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
  /** What the optimizer remembers, by its names in checkpoints; of several processes, on the first one. */
  moments: ReadonlyMap<string, State>;
  lead: Lead;
}

/** Has the first process do what may read the moments, while the others wait. */
export type Lead = (work: () => Promise<void>) => Promise<void>;

/** Trains to the end of the schedule; the state in `trained` is the result. */
export async function trainStage(options: StageOptions): Promise<void> {
  const { engine, data, schedule, communicator = alone, accumulation = communicator.size } = options;
  const { optim } = options.optimizer;
  const parameters = trainedParameters(options);
  if (accumulation % communicator.size !== 0)
    throw new Error(`${communicator.size} processes cannot share ${accumulation} batches of a step`);
  const backward = await compileBackward(options, parameters, accumulation / communicator.size);
  const owners = options.shardMoments ? ownersOf(parameters, communicator.size, optim) : undefined;
  const isOwn = (name: string) => !owners || owners.get(name) === communicator.rank;
  const optimizer = await createAdamW(engine, parameters, options.optimizer, isOwn);
  const { moments, answer } = owners
    ? gatheredMoments(communicator, parameters, owners, optimizer.moments, optim)
    : { moments: optimizer.moments, answer: undefined };
  const lead: Lead = (work) => communicator.lead(work, answer);
  let isUpdating = false;
  /** Whether what fails now fails alike in all processes. */
  let isShared = false;
  try {
    await restoreMoments(optimizer, options.start?.moments);
    for (let step = options.start?.step ?? 0; step < schedule.totalSteps; step++) {
      const own = await backward.run(data.batches(step), step);
      const sums = await gatherSums(communicator, own);
      await sumStates(
        communicator,
        parameters.map(({ gradient }) => gradient),
      );
      const factor = learningRateFactor(schedule, step);
      isUpdating = true;
      isShared = true;
      if (sums.weight === 0) throw new UserError(`step ${step + 1} has no label to learn from: every token of its samples is masked`);
      const update = await optimizer.step({
        step: step + 1,
        scale: 1 / sums.weight,
        learningRate: (name) => options.learningRate(name) * factor,
        measures: options.measures?.(step + 1),
      });
      isShared = false;
      if (owners) await shareValues(communicator, parameters, owners);
      isUpdating = false;
      const { loss, ...metrics } = Object.fromEntries(Object.entries(sums.outputs).map(([name, sum]) => [name, sum / sums.weight]));
      const { tokens, padding, weight } = sums;
      const done = { step: step + 1, loss, metrics, learningRateFactor: factor, ...update, weight, tokens, padding };
      await options.onStep?.({ ...done, moments, lead });
    }
  } catch (error) {
    const ofAll = communicator.size === 1 || isShared || error instanceof StoppedTogether;
    // the optimizer's own UserErrors come before it changes anything
    const isWhole = !isUpdating || (error instanceof UserError && !(error instanceof DeviceError));
    if (ofAll && isWhole) await options.onFailure?.(error, moments, lead);
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

async function restoreMoments({ moments }: Optimizer, saved: Map<string, Value> | undefined): Promise<void> {
  if (!saved) return;
  for (const [name, state] of moments) {
    const value = saved.get(name);
    if (value?.dtype !== state.dtype)
      throw new UserError(
        `the checkpoint has no ${name} of the optimizer in ${state.dtype}: another version or another optim wrote it; start the run anew`,
      );
    await state.write(value);
    saved.delete(name);
  }
  // those of other processes
  saved.clear();
}

/** A model of more bytes than this, in float32, is trained with memory before speed. */
const LEAN_BYTES = 2 ** 29;

/** Whether a graph is of such a model. */
export const isLean = ({ parameters }: LossGraph): boolean => parameters.reduce((sum, { dims }) => sum + 4 * sizeOf(dims), 0) > LEAN_BYTES;

const gradientName = (parameter: string) => `gradient.${parameter}`;

/**
 * The first move: losses and gradients of `count` micro-batches, the gradients added up in state. Each level
 * of the pairs has gradients of its own, the first those of `parameters`.
 */
async function compileBackward(
  { engine, loss: graph, constants, gradientCheckpointing }: StageOptions,
  parameters: readonly TrainedParameter[],
  count: number,
) {
  const tensors = new Map(graph.parameters.map(({ name, tensor }) => [name, tensor]));
  const gradients = grad(
    graph.outputs.loss,
    parameters.map(({ name }) => tensors.get(name)!),
  );
  const writes: Record<string, Write> = {};
  for (const [i, { name }] of parameters.entries()) writes[gradientName(name)] = { mode: 'add', tensor: gradients[i] };
  const levels = Array.from({ length: levelsOf(count) }, (_, level) =>
    parameters.map(({ dims, gradient }) => (level === 0 ? gradient : engine.zeros('float32', dims))),
  );
  const values = Object.fromEntries(parameters.map((parameter) => [parameter.name, parameter.values]));
  const stateOf = (level: number): Record<string, State> => ({
    ...values,
    ...Object.fromEntries(parameters.map(({ name }, i) => [gradientName(name), levels[level][i]])),
  });
  const frozen = graph.parameters.filter(({ name }) => !values[name]);
  const recompute = gradientCheckpointing ? ('all' as const) : undefined;
  const options = { constants: constantsOf(frozen, constants), writes, lean: isLean(graph), recompute };
  const program = await engine.compile(graph.outputs, options);
  const adder = await createStateAdder(
    engine,
    parameters.map(({ dims }) => dims),
  );
  const runBatch = async ({ inputs, weight, tokens, padding = 0 }: MicroBatch, level: number): Promise<StepSums> => {
    for (const gradient of levels[level]) gradient.clear();
    const results = await program.run(inputs, { state: stateOf(level) });
    const outputs = Object.fromEntries(Object.entries(results).map(([name, { data }]) => [name, data[0] as number]));
    return { outputs, weight, tokens, padding };
  };
  return {
    async run(batches: Iterable<MicroBatch> | AsyncIterable<MicroBatch>, step: number): Promise<StepSums> {
      const given = batchesOf(batches);
      try {
        const sums = await addPairs(
          count,
          async (level) => {
            const { value, done } = await given.next();
            if (done) throw new Error(`the data gave no batch for step ${step}`);
            return runBatch(value, level);
          },
          (into, from) => adder.add(levels[into], levels[from]),
        );
        if (!(await given.next()).done) throw new Error(`the data gave more than ${count} batches for step ${step}`);
        return sums;
      } finally {
        await given.return(undefined);
      }
    },
    async dispose() {
      for (const state of levels.flat()) state.clear();
      await program.dispose();
      await adder.dispose();
    },
  };
}

async function* batchesOf(batches: Iterable<MicroBatch> | AsyncIterable<MicroBatch>): AsyncGenerator<MicroBatch, undefined, undefined> {
  yield* batches;
}
