// What a recipe's task must provide: the stages, each ready for the trainer, and what a checkpoint of it
// holds.

import type { FeatureType } from '../data/feature-cache.ts';
import type { Engine } from '../engine/engine.ts';
import { UserError } from '../errors.ts';
import type { Scores } from '../evaluate/samples.ts';
import type { Graph, LossGraph } from '../models/programs.ts';
import type { Communicator } from '../mpi/communicator.ts';
import type { StorageOf } from '../nn/parameters.ts';
import type { GallerySample } from '../runs/report.ts';
import type { Status } from '../runs/status.ts';
import type { StageAdapters } from './adapters.ts';
import type { MicroBatch } from './batch.ts';
import type { HeldOutData } from './held-out.ts';
import type { SourceThread } from './prefetch.ts';
import type { Stage } from './recipe.ts';
import type { StageData } from './stage.ts';
import type { ModelWeights } from './weights.ts';

export interface TaskContext {
  engine: Engine;
  status: Status;
  /** Prepares the data of the stages. */
  thread: SourceThread;
  /** The run folder's path, for caches and samples. */
  out: string;
  signal: AbortSignal;
  /** The task is planned, not trained: values of stored weights are neither read nor checked. */
  isPlan?: boolean;
  /** Generated data are in their folder as the recipe asks for them. */
  scenesAreDrawn?: boolean;
  /** The processes of the run. */
  communicator: Communicator;
}

export interface PreparedStage {
  settings: Stage;
  /** The loss of the stage, its parameters stored as `storage` says, with its adapters. */
  loss: (storage: StorageOf) => LossGraph;
  data: StageData;
  totalSteps: number;
  /** What is not trained on, where the recipe asks for it, and how many steps lie between measurements. */
  heldOut?: HeldOutData & { every: number };
  /** Scores of the model as it is, where the recipe asks for them, and how many steps lie between. */
  evaluation?: { every: number; scores(): Promise<Scores> };
  /** Samples that were left out so far, in all processes; on the first, which lists them. */
  skipped?(): Promise<number>;
  /** Lets go of what was opened for the stage. */
  dispose(): Promise<void>;
}

/** Features on disk. */
export interface PlannedFeatures {
  bytes: number;
  kept: FeatureType;
  /** Tells encoders and types apart: features of the same picture are the same with the same. */
  encoder: string;
  /** Where the pictures come from: stages with the same sources show the same pictures. */
  sources: readonly string[];
}

/** What a stage would do, of which nothing is done. */
export interface StageOutline extends Pick<PreparedStage, 'settings' | 'loss' | 'totalSteps'> {
  stepsPerEpoch: number;
  /** Samples of an epoch, and distinct pictures, at most; not of data that are made afresh at each step. */
  samples?: number;
  pictures?: number;
  /** Some of the stage's batches; of pictures only the shapes are true. */
  batches: MicroBatch[];
  /** Features of the frozen encoder that are kept on disk. */
  features?: PlannedFeatures;
  /** The frozen encoder, if it runs before the first step, and how many pictures it takes at a time. */
  encoder?: { graph: (storage: StorageOf) => Graph<'pixel_values', 'features'>; pictures: number };
}

export interface SavedModel {
  config: unknown;
  /** Further files of the folder: tokenizer, image processor. */
  files: Record<string, string | Uint8Array>;
  /** Whether a parameter is no part of the model: training alone needs it, and keeps it apart. */
  isApart?: (name: string) => boolean;
}

export interface Task {
  /** Every parameter of a checkpoint, with its current value. */
  weights: ModelWeights;
  saved: SavedModel;
  /** The same as a stage leaves it, where stages look at pictures in different ways. */
  savedIn?(index: number): SavedModel;
  stages: readonly Stage[];
  /** The module, as recipes name it, that a parameter belongs to. */
  moduleOf(parameter: string): string;
  /** The adapters of a stage that trains some. */
  adapters?(index: number): StageAdapters | undefined;
  /** The files that a stage's samples come from. */
  dataFiles?(index: number): string[];
  /** Gets ready what a stage needs, such as the features of a frozen encoder. */
  prepareStage(index: number): Promise<PreparedStage>;
  /** What a stage would do with these settings, for a plan. */
  outline?(index: number, settings: Stage): Promise<StageOutline>;
  /** Scores of the finished model; undefined where the recipe asks for none. */
  evaluate?(): Promise<Scores>;
  /** Pictures with questions and answers for the report, once evaluated. */
  gallery?(): Promise<GallerySample[]>;
}

/** Steps of a stage whose data has no end; such a stage must say them. */
export function stepsOf({ name, steps }: Stage): number {
  if (steps === undefined) throw new UserError(`stage ${name}: its data is made afresh at each step and has no epochs; give steps`);
  return steps;
}
