// What a recipe's task must provide: the stages, each ready for the trainer, and what a checkpoint of it
// holds.

import type { Engine } from '../engine/engine.ts';
import { UserError } from '../errors.ts';
import type { Scores } from '../evaluate/samples.ts';
import type { LossGraph } from '../models/programs.ts';
import type { StorageOf } from '../nn/parameters.ts';
import type { GallerySample } from '../runs/report.ts';
import type { Status } from '../runs/status.ts';
import type { StageAdapters } from './adapters.ts';
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
}

export interface PreparedStage {
  settings: Stage;
  /** The loss of the stage, its parameters stored as `storage` says, with its adapters. */
  loss: (storage: StorageOf) => LossGraph;
  data: StageData;
  totalSteps: number;
  /** Samples that were left out so far. */
  skipped?(): number;
  /** Lets go of what was opened for the stage. */
  dispose(): Promise<void>;
}

export interface SavedModel {
  config: unknown;
  /** Further files of the folder: tokenizer, image processor. */
  files: Record<string, string | Uint8Array>;
}

export interface Task {
  /** Every parameter of a checkpoint, with its current value. */
  weights: ModelWeights;
  saved: SavedModel;
  stages: readonly Stage[];
  /** The module, as recipes name it, that a parameter belongs to. */
  moduleOf(parameter: string): string;
  /** The adapters of a stage that trains some. */
  adapters?(index: number): StageAdapters | undefined;
  /** The files that a stage's samples come from. */
  dataFiles?(index: number): string[];
  /** Gets ready what a stage needs, such as the features of a frozen encoder. */
  prepareStage(index: number): Promise<PreparedStage>;
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
