// What a run would take, told before anything is loaded: what is trained, samples, steps, memory by part,
// disk; and what would make it fit. The trainer of each stage is run on an engine that only counts
// (engine/planning.ts), so that a plan knows what the run knows.

import type { FeatureType } from '../data/feature-cache.ts';
import { freeBytes } from '../disk.ts';
import { type Constant, type Engine, elementBytes, sizeOf } from '../engine/engine.ts';
import { createPlanningEngine } from '../engine/planning.ts';
import { topologicalOrder } from '../graph/tensor.ts';
import { memoryBytes } from '../memory.ts';
import { compileGraph, type LossGraph } from '../models/programs.ts';
import { isPacked } from '../nn/parameters.ts';
import type { MicroBatch } from './batch.ts';
import { checkpointBytes, neededBytes, type PlannedStageDisk } from './plan-disk.ts';
import { isTrainedBy } from './rates.ts';
import type { Stage } from './recipe.ts';
import { trainStage } from './stage.ts';
import type { StageOutline, Task } from './task.ts';
import { type StageTiming, timeStage } from './timing.ts';

/** Memory in bytes; all but `mapped` cannot be given back while the stage runs. */
export interface PlannedStageMemory {
  /** Trained values, float32. */
  values: number;
  /** Sums of gradients, moments and whatever else is kept for a trained value. */
  gradientsAndMoments: number;
  /** Frozen weights that are no files. */
  constants: number;
  /** Results of the forward pass that the backward pass needs, and what is computed with, at their most. */
  activations: number;
  /** A batch, the one that is prepared beside it, Node and the runtime. */
  process: number;
  /** What the process takes while the frozen encoder runs, before the first step. */
  encoding: number;
  /** All of the above but encoding, or encoding where that is more. */
  peak: number;
  /** Frozen weights in files: the system reads them into memory that is free. */
  mapped: number;
}

export interface PlannedStage {
  name: string;
  /** Numbers that are trained, by module, and those that are frozen. */
  trained: Record<string, number>;
  frozen: number;
  steps: number;
  epochs: number;
  /** Samples and distinct pictures of one epoch; undefined for data that are made afresh at each step. */
  samples?: number;
  pictures?: number;
  /** Means over some batches of the stage. */
  tokensPerStep: number;
  padding: number;
  memory: PlannedStageMemory;
  /**
   * With gradient_checkpointing the other way round: its peak, and seconds of a step where that was timed.
   */
  otherwise?: { gradientCheckpointing: boolean; peak: number; step?: number };
  /**
   * How features of a frozen encoder are kept; undefined where there are none, or they are computed in each
   * step.
   */
  features?: FeatureType;
  /**
   * Where it was asked for: seconds of a step, of a picture for the frozen encoder, and of the whole stage.
   */
  seconds?: StageTiming & { total: number };
  /** In bytes. */
  disk: PlannedStageDisk;
}

export interface RunPlan {
  stages: PlannedStage[];
  memory: { peak: number; available: number };
  /** In bytes; `free` is infinite where the file system does not tell. */
  disk: { needed: number; free: number };
  fits: boolean;
  /** What does not fit, each a sentence. */
  problems: string[];
  /** Settings with which it would fit, as --set takes them, and the peak with them. */
  remedies: { set: string[]; peak: number }[];
}

/** Node, the runtime, and the thread that prepares data: what a run of a tiny model takes. */
const PROCESS_BYTES = 0.3e9;

/**
 * What the runtime's allocator leaves between pieces, and its kernels take for themselves, beside what is in
 * the pieces; measured on Gemma 2B in bfloat16 and on Gemma 7B in 4 bits (docs/results.md).
 */
const GAPS = { plain: 1.15, packed: 1.5 };

export interface PlanOptions {
  task: Task;
  /** Folder in whose file system the run would be. */
  folder: string;
  /** Bytes of memory; default: all of the machine's. */
  available?: number;
  /** Runs a few steps of each stage that fits, to say how long it would take. */
  timedOn?: Engine;
  /** Also counts, and times, each stage with gradient_checkpointing the other way round. */
  withOtherwise?: boolean;
  /** Looks for settings with which a run that does not fit would. Default: true. */
  withRemedies?: boolean;
}

/** UserError as of the task's outlines. */
export async function planRun(options: PlanOptions): Promise<RunPlan> {
  const { task, folder, available = memoryBytes(), timedOn, withOtherwise = false, withRemedies = true } = options;
  const stages: PlannedStage[] = [];
  const outlines: StageOutline[] = [];
  for (const [index, settings] of task.stages.entries()) {
    outlines.push(await outlineOf(task, index, settings));
    stages.push(await planStage(task, index, outlines[index], withOtherwise));
  }
  const free = await freeBytes(folder);
  const needed = neededBytes(
    stages.map(({ disk }) => disk),
    outlines.map(({ features }) => features),
  );
  const peak = Math.max(...stages.map(({ memory }) => memory.peak));
  const tooLarge = stages.filter(({ memory }) => memory.peak > available);
  if (timedOn && tooLarge.length === 0)
    for (const [index, stage] of stages.entries()) {
      stage.seconds = await secondsOf(task, outlines[index], stage, timedOn);
      const other = otherwise(outlines[index]);
      if (stage.otherwise && stage.otherwise.peak <= available)
        stage.otherwise.step = (await timeStage(task, { ...other, encoder: undefined }, trainedIn(task, other.settings), timedOn)).step;
    }
  const problems = tooLarge.map(
    ({ name, memory }) =>
      `stage ${name} needs ${gigabytes(memory.peak)} of memory and the machine has ${gigabytes(available)}: ${gigabytes(memory.peak - available)} too little`,
  );
  if (needed > free) problems.push(`the run needs ${gigabytes(needed)} on disk and ${gigabytes(free)} are free`);
  const remedies = tooLarge.length > 0 && withRemedies ? await remediesFor(task, stages, available) : [];
  return { stages, memory: { peak, available }, disk: { needed, free }, fits: problems.length === 0, problems, remedies };
}

export const gigabytes = (bytes: number) => `${(bytes / 1e9).toFixed(1)} GB`;

// === A stage ===

/** Data that are made afresh at each step cost nothing to begin with: the first batch stands for all. */
async function outlineOf(task: Task, index: number, settings: Stage): Promise<StageOutline> {
  if (task.outline) return task.outline(index, settings);
  const { data, totalSteps, loss, dispose } = await task.prepareStage(index);
  try {
    for await (const batch of data.batches(0)) return { settings, loss, totalSteps, stepsPerEpoch: data.stepsPerEpoch, batches: [batch] };
    throw new Error('the data gave no batch');
  } finally {
    await dispose();
  }
}

async function planStage(task: Task, index: number, outline: StageOutline, withOtherwise: boolean): Promise<PlannedStage> {
  const { settings } = outline;
  const isTrained = trainedIn(task, settings);
  const loss = outline.loss(task.weights.storageOf(isTrained));
  const trained: Record<string, number> = {};
  let frozen = 0;
  for (const { name, dims } of loss.parameters) {
    const module = isTrained(name) ? task.moduleOf(name) : undefined;
    if (module === undefined) frozen += sizeOf(dims);
    else trained[module] = (trained[module] ?? 0) + sizeOf(dims);
  }
  const memory = await memoryOf(task, index, outline, loss);
  const { totalSteps, stepsPerEpoch, batches } = outline;
  const mean = (of: (batch: MicroBatch) => number) => batches.reduce((sum, batch) => sum + of(batch), 0) / batches.length;
  const [tokens, padding] = [mean((batch) => batch.tokens), mean((batch) => batch.padding ?? 0)];
  return {
    name: settings.name,
    trained,
    frozen,
    steps: totalSteps,
    epochs: totalSteps / stepsPerEpoch,
    samples: outline.samples,
    pictures: outline.pictures,
    tokensPerStep: tokens * settings.accumulation,
    padding: padding / (tokens + padding),
    memory,
    ...(withOtherwise
      ? {
          otherwise: {
            gradientCheckpointing: !settings.gradient_checkpointing,
            peak: (await memoryOf(task, index, otherwise(outline), loss)).peak,
          },
        }
      : {}),
    features: outline.features?.kept,
    disk: { features: outline.features?.bytes ?? 0, ...checkpointBytes(task, loss, settings, isTrained, totalSteps) },
  };
}

/** The stage with gradient checkpointing the other way round. */
const otherwise = (outline: StageOutline): StageOutline => ({
  ...outline,
  settings: { ...outline.settings, gradient_checkpointing: !outline.settings.gradient_checkpointing },
});

async function secondsOf(task: Task, outline: StageOutline, { steps, pictures = 0 }: PlannedStage, engine: Engine) {
  const timing = await timeStage(task, outline, trainedIn(task, outline.settings), engine);
  return { ...timing, total: steps * timing.step + pictures * timing.picture };
}

const trainedIn = ({ moduleOf }: Task, { train }: Stage) => isTrainedBy(train, moduleOf);

/** Counts what the stage's trainer makes, and what the largest of its batches needs. */
async function memoryOf(task: Task, index: number, outline: StageOutline, loss: LossGraph): Promise<PlannedStageMemory> {
  const { settings, batches } = outline;
  const isTrained = trainedIn(task, settings);
  const engine = createPlanningEngine();
  const trained = new Map(
    loss.parameters.filter(({ name }) => isTrained(name)).map(({ name, dims }) => [name, engine.zeros('float32', dims)]),
  );
  const values = engine.memory.stateBytes;
  // averages of the weights, which are counted with the moments
  if (settings.ema_decay) for (const { dims } of trained.values()) engine.zeros('float32', dims);
  await trainStage({
    engine,
    loss,
    trained,
    constants: constantsAt(task, index, await task.weights.constants(loss, isTrained)),
    learningRate: () => settings.lr,
    schedule: { kind: 'constant', totalSteps: 0, warmupSteps: 0, floor: 0 },
    optimizer: { optim: settings.optim, betas: settings.betas, eps: settings.eps, weightDecay: 0, maxGradNorm: settings.max_grad_norm },
    gradientCheckpointing: settings.gradient_checkpointing,
    accumulation: settings.accumulation,
    data: { stepsPerEpoch: 1, batches: () => [] },
  });
  const { stateBytes, constantBytes, mappedBytes } = engine.memory;
  const activations = gapsOf(task) * Math.max(...batches.map((batch) => engine.memory.activationBytes(dimSizes(loss, batch))));
  const batchBytes = Math.max(
    ...batches.map(({ inputs }) => Object.values(inputs).reduce((sum, { dtype, dims }) => sum + elementBytes[dtype] * sizeOf(dims), 0)),
  );
  const process = PROCESS_BYTES + 2 * batchBytes;
  const gradientsAndMoments = stateBytes - values;
  const peak = values + gradientsAndMoments + constantBytes + activations + process;
  const encoding = await encodingBytes(task, index, outline);
  return {
    values,
    gradientsAndMoments,
    constants: constantBytes,
    activations,
    process,
    encoding,
    peak: Math.max(peak, encoding),
    mapped: mappedBytes,
  };
}

/** What the process takes while the frozen encoder runs, before there is anything of the trainer. */
async function encodingBytes(task: Task, index: number, { encoder }: StageOutline): Promise<number> {
  if (!encoder) return 0;
  const engine = createPlanningEngine();
  const graph = encoder.graph(task.weights.storageOf());
  await compileGraph(engine, graph, constantsAt(task, index, await task.weights.constants(graph)));
  const { constantBytes, activationBytes } = engine.memory;
  const [, ...pixels] = graph.inputs.pixel_values.dims as number[];
  const pictureBytes = 2 * encoder.pictures * elementBytes.float32 * sizeOf(pixels);
  return PROCESS_BYTES + constantBytes + pictureBytes + gapsOf(task) * activationBytes({ images: encoder.pictures });
}

/** The factor for a model's frozen weights. */
const gapsOf = ({ weights }: Task) =>
  weights.parameters.some(({ name, dims }) => isPacked(weights.storageOf()(name, dims))) ? GAPS.packed : GAPS.plain;

/** Constants of a stage: what an earlier one has trained whole is in memory, in float32. */
function constantsAt(task: Task, index: number, constants: Map<string, Constant>): Map<string, Constant> {
  const earlier = new Set<string>(task.stages.slice(0, index).flatMap(({ train }) => train as string[]));
  for (const [name, { dims }] of constants)
    if (earlier.has(task.moduleOf(name))) constants.set(name, { dtype: 'float32', dims, data: new Float32Array(0) });
  return constants;
}

/** The named dims of a graph in a batch. */
function dimSizes({ outputs }: LossGraph, { inputs }: MicroBatch): Record<string, number> {
  const sizes: Record<string, number> = {};
  for (const tensor of topologicalOrder(Object.values(outputs))) {
    const value = tensor.op === 'input' ? inputs[tensor.attributes.name] : undefined;
    if (!value) continue;
    for (const [axis, dim] of tensor.dims.entries()) if (typeof dim === 'string') sizes[dim] = value.dims[axis];
  }
  return sizes;
}

// === Remedies ===

/** Recipes that differ in a few settings and fit, those that change least first. */
async function remediesFor(task: Task, stages: readonly PlannedStage[], available: number): Promise<RunPlan['remedies']> {
  const remedies: RunPlan['remedies'] = [];
  for (const change of REMEDIES) {
    const set: string[] = [];
    let peak = 0;
    for (const [index, { memory }] of stages.entries()) {
      const tried = await firstThatFits(task, index, memory.peak, change, available);
      peak = Math.max(peak, tried?.peak ?? Number.POSITIVE_INFINITY);
      if (tried) set.push(...tried.set.map((field) => `stages.${index}.${field}`));
    }
    const isNew = remedies.every((other) => other.set.join() !== set.join());
    if (peak <= available && isNew) remedies.push({ set, peak });
  }
  return remedies;
}

/** A stage with a field changed, and how --set says that; undefined where there is nothing to change. */
type Change = (settings: Stage) => { settings: Stage; set: string } | undefined;

const checkpointing: Change = (settings) =>
  settings.gradient_checkpointing
    ? undefined
    : { settings: { ...settings, gradient_checkpointing: true }, set: 'gradient_checkpointing=true' };

const smallerBatches: Change = (settings) => {
  const { batch_size: size, accumulation } = settings;
  if (size % 2 !== 0) return undefined;
  const [half, twice] = [size / 2, accumulation * 2];
  return { settings: { ...settings, batch_size: half, accumulation: twice }, set: `batch_size=${half} accumulation=${twice}` };
};

const codedMoments: Change = (settings) =>
  settings.optim === 'adamw_8bit' ? undefined : { settings: { ...settings, optim: 'adamw_8bit' }, set: 'optim=adamw_8bit' };

const adapters: Change = (settings) => {
  if (!('lora' in settings) && !('template' in settings)) return undefined;
  const train = settings.train.filter((module) => module !== 'language_model');
  if (train.length === settings.train.length) return undefined;
  const lora = { rank: 128, alpha: 256, dropout: 0.05, targets: ['language_model.*'], rslora: false };
  const changed = { ...settings, train, lora } as Stage;
  return { settings: changed, set: `train=[${train}] lora={rank: 128, alpha: 256}` };
};

/** In turn: what changes no result, what rounds moments, what trains adapters instead of the weights. */
const REMEDIES: readonly (readonly Change[])[] = [
  [checkpointing],
  [smallerBatches],
  [checkpointing, smallerBatches],
  [codedMoments],
  [codedMoments, checkpointing, smallerBatches],
  [adapters, checkpointing, smallerBatches, codedMoments],
];

/**
 * Applies changes to a stage that takes `asItIs` one after the other, the last one again and again, until it
 * fits.
 */
async function firstThatFits(task: Task, index: number, asItIs: number, changes: readonly Change[], available: number) {
  const peakOf = async (tried: Stage) => {
    const outline = await outlineOf(task, index, tried);
    return (await memoryOf(task, index, outline, outline.loss(task.weights.storageOf(trainedIn(task, tried))))).peak;
  };
  let tried: Stage = task.stages[index];
  let peak = asItIs;
  const set = new Map<Change, string>();
  for (const change of changes) {
    for (let changed = peak > available ? change(tried) : undefined; changed; changed = peak > available ? change(tried) : undefined) {
      tried = changed.settings;
      set.set(change, changed.set);
      peak = await peakOf(tried);
    }
  }
  return peak <= available ? { peak, set: [...set.values()].flatMap((fields) => splitFields(fields)) } : undefined;
}

const splitFields = (fields: string) => fields.split(/ (?=[a-z_]+=)/);
