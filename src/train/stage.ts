// The loop of one stage: forward and backward as one program, AdamW on the host, schedule, accumulation, logging, checkpoints. What a
// stage trains is decided once, by `trainable`; everything else is a constant of the program and gets no gradient.

import { type Engine, float32, type Value } from '../engine/engine.ts';
import { grad } from '../graph/grad.ts';
import type { Objective } from '../models/objectives.ts';
import { type AdamWOptions, adamWStep, createSlot, type OptimizerSlot } from './optimizer.ts';
import { learningRateFactor, type Schedule } from './schedule.ts';

/** Inputs of one pass of the objective, and how many tokens (or patches) it processes. */
export interface MicroBatch {
  inputs: Record<string, Value>;
  tokens: number;
  /** Tokens that are there only to fill rows. */
  padding?: number;
}

/** A stage's data: a pure function of the step, so that a resumed run sees what an uninterrupted one would have seen. */
export interface StageData {
  stepsPerEpoch: number;
  /** The batches whose gradients are summed for optimiser step `step` (from 0). Losses must already be scaled to the whole step. */
  batches(step: number): readonly MicroBatch[] | Promise<readonly MicroBatch[]>;
}

export interface StageOptions {
  engine: Engine;
  objective: Objective;
  /** Values of every parameter of the objective, by name; those that are trained are changed in place. */
  values: ReadonlyMap<string, Float32Array>;
  trainable: (name: string) => boolean;
  /** Peak learning rate of a parameter. */
  learningRate: (name: string) => number;
  schedule: Schedule;
  optimizer: AdamWOptions;
  data: StageData;
  /** Finished steps, and the optimiser's state after them, when resuming. */
  start?: { step: number; slots: readonly OptimizerSlot[] };
  onStep?: (report: StepReport) => void | Promise<void>;
}

export interface StepReport {
  /** Finished steps, from 1. */
  step: number;
  loss: number;
  metrics: Record<string, number>;
  /** Factor of the schedule at this step. */
  learningRateFactor: number;
  gradNorm: number;
  tokens: number;
  padding: number;
  slots: readonly OptimizerSlot[];
}

const GRADIENT_PREFIX = 'gradient.';

/** Trains to the end of the schedule. The values in `options.values` are the result. */
export async function trainStage(options: StageOptions): Promise<void> {
  const { engine, objective, values, data, schedule } = options;
  const parameters = objective.parameters.list();
  const trained = parameters.filter(({ name }) => options.trainable(name));
  if (trained.length === 0) throw new Error('the stage trains nothing');
  const arrayOf = (name: string) => {
    const array = values.get(name);
    if (!array) throw new Error(`no value for parameter ${name}`);
    return array;
  };
  const frozen = new Map<string, Value>();
  const feeds: Record<string, Value> = {};
  for (const parameter of parameters) {
    const value = float32(arrayOf(parameter.name), parameter.dims);
    if (trained.includes(parameter)) feeds[parameter.name] = value;
    else frozen.set(parameter.name, value);
  }
  const restored = new Map(options.start?.slots.map((slot) => [slot.name, slot]));
  const slots = trained.map(({ name, dims }) => {
    const slot = createSlot(name, dims, arrayOf(name));
    const saved = restored.get(name);
    if (saved) {
      slot.mean.set(saved.mean);
      slot.square.set(saved.square);
    }
    return slot;
  });

  const gradients = grad(
    objective.loss,
    trained.map(({ tensor }) => tensor),
  );
  const outputs = {
    loss: objective.loss,
    ...objective.metrics,
    ...Object.fromEntries(trained.map(({ name }, i) => [GRADIENT_PREFIX + name, gradients[i]])),
  };
  const program = await engine.compile(outputs, { constants: frozen });
  try {
    for (let step = options.start?.step ?? 0; step < schedule.totalSteps; step++) {
      let loss = 0;
      let tokens = 0;
      let padding = 0;
      const metrics: Record<string, number> = {};
      let sums: Float32Array[] | undefined;
      for (const batch of await data.batches(step)) {
        const results = await program.run({ ...feeds, ...batch.inputs });
        loss += results.loss.data[0] as number;
        tokens += batch.tokens;
        padding += batch.padding ?? 0;
        for (const name of Object.keys(objective.metrics)) metrics[name] = (metrics[name] ?? 0) + (results[name].data[0] as number);
        const batchGradients = trained.map(({ name }) => results[GRADIENT_PREFIX + name].data as Float32Array);
        if (sums) addInto(sums, batchGradients);
        else sums = batchGradients;
      }
      if (!sums) throw new Error(`the data gave no batch for step ${step}`);
      const factor = learningRateFactor(schedule, step);
      const gradNorm = adamWStep(slots, sums, step + 1, (name) => options.learningRate(name) * factor, options.optimizer);
      await options.onStep?.({ step: step + 1, loss, metrics, learningRateFactor: factor, gradNorm, tokens, padding, slots });
    }
  } finally {
    await program.dispose();
  }
}

function addInto(sums: readonly Float32Array[], terms: readonly Float32Array[]): void {
  sums.forEach((sum, i) => {
    const term = terms[i];
    for (let j = 0; j < sum.length; j++) sum[j] += term[j];
  });
}
