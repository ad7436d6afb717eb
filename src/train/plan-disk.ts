// What a run takes on disk at its most: features of frozen encoders, checkpoints, and those that are kept.

import { elementBytes, sizeOf } from '../engine/engine.ts';
import type { LossGraph } from '../models/programs.ts';
import { momentBytes } from './optimizer.ts';
import type { Stage } from './recipe.ts';
import type { PlannedFeatures, Task } from './task.ts';

export interface PlannedStageDisk {
  /** Features of the frozen encoder. */
  features: number;
  /** The stage's checkpoint, at its most. */
  checkpoint: number;
  /** Earlier checkpoints and the best model, where they are kept beside it. */
  kept: number;
}

/** What the checkpoints of a stage take. */
export function checkpointBytes(
  task: Task,
  { parameters }: LossGraph,
  settings: Stage,
  isTrained: (name: string) => boolean,
  totalSteps: number,
): Pick<PlannedStageDisk, 'checkpoint' | 'kept'> {
  const trained = parameters.filter(({ name }) => isTrained(name));
  const values = trained.reduce((sum, { dims }) => sum + 4 * sizeOf(dims), 0);
  const model = task.weights.parameters.reduce((sum, { name, dims }) => {
    const storage = task.weights.storageOf(isTrained)(name, dims);
    return sum + sizeOf(dims) * (typeof storage === 'string' ? elementBytes[storage] : elementBytes.bfloat16);
  }, 0);
  const hasAdapters = 'lora' in settings && !!settings.lora;
  // adapters are merged into the model at the end, and kept beside it
  const finished = model + (hasAdapters ? values : 0);
  const moments = trained.reduce((sum, parameter) => sum + momentBytes(parameter, settings.optim), 0);
  const unfinished = (hasAdapters ? values : model) + moments + (settings.ema_decay ? values : 0);
  // the newest of those that are kept shares the files of the checkpoint until the stage ends
  const older = Math.min(settings.keep_checkpoints, totalSteps - 1) * unfinished;
  const best = 'keep_best' in settings && settings.keep_best ? finished : 0;
  return { checkpoint: Math.max(finished, unfinished), kept: older + best };
}

/**
 * Features of all stages. Those of the same encoder and the same data are there once, the larger ones where
 * one stage holds samples out; those that earlier runs
 * have left in the cache are counted too, as they would have to be made were they deleted.
 */
export function featureBytesOf(features: readonly (PlannedFeatures | undefined)[]): number {
  const given = features.filter((each) => each !== undefined);
  const isIn = (one: PlannedFeatures, other: PlannedFeatures) =>
    one.encoder === other.encoder && one.sources.every((source) => other.sources.includes(source));
  const isBehind = (one: PlannedFeatures, i: number, other: PlannedFeatures, j: number) =>
    isIn(one, other) && (!isIn(other, one) || other.bytes > one.bytes || (other.bytes === one.bytes && j < i));
  const counted = given.filter((one, i) => !given.some((other, j) => j !== i && isBehind(one, i, other, j)));
  return counted.reduce((sum, { bytes }) => sum + bytes, 0);
}

/** What the run needs at its most: a checkpoint is written before the one that it replaces is removed. */
export function neededBytes(disks: readonly PlannedStageDisk[], features: readonly (PlannedFeatures | undefined)[]): number {
  const checkpoints = disks.reduce((sum, { checkpoint, kept }) => sum + checkpoint + kept, 0);
  return featureBytesOf(features) + checkpoints + Math.max(...disks.map(({ checkpoint }) => checkpoint));
}
