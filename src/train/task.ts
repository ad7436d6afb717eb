// What a recipe's task must provide: the stages, each ready for the trainer, and what a checkpoint of it holds.

import type { Engine } from '../engine/engine.ts';
import { UserError } from '../errors.ts';
import type { Scores } from '../evaluate/samples.ts';
import type { Objective } from '../models/objectives.ts';
import type { Parameter } from '../nn/parameters.ts';
import type { GallerySample } from '../runs/report.ts';
import type { Status } from '../runs/status.ts';
import type { Stage } from './recipe.ts';
import type { StageData } from './stage.ts';

export interface TaskContext {
  engine: Engine;
  status: Status;
  /** The run folder's path, for caches and samples. */
  out: string;
  signal: AbortSignal;
}

export interface PreparedStage {
  settings: Stage;
  objective: Objective;
  data: StageData;
  totalSteps: number;
}

export interface SavedModel {
  config: unknown;
  /** Further files of the folder: tokenizer, image processor. */
  files: Record<string, string | Uint8Array>;
}

export interface Task {
  engine: Engine;
  /** Every parameter of a checkpoint, with its current value; trained in place. */
  parameters: readonly Parameter[];
  values: ReadonlyMap<string, Float32Array>;
  saved: SavedModel;
  stageNames: readonly string[];
  /** The module, as recipes name it, that a parameter belongs to. */
  moduleOf(parameter: string): string;
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
