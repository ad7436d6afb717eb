// The learning rate and the weight decay of every parameter that a stage trains, as its recipe gives them for
// the stage, for modules and for patterns.

import { downName, isOfAdapter, upName } from '../nn/lora.ts';
import { byPattern, type Chosen, checkPatterns, pathOf } from './patterns.ts';
import type { Stage } from './recipe.ts';
import type { Task } from './task.ts';

export interface Rates {
  /** Peak learning rate of a parameter. */
  learningRate(parameter: string): Chosen;
  /** Its weight decay, if it is a matrix: others have none. */
  weightDecay(parameter: string): Chosen;
}

const FIELDS = ['lr_by_module', 'weight_decay_by_module'] as const;

const where = ({ name }: Stage, field: string) => `stage ${name}: ${field}`;

/**
 * What holds in a stage. UserError, from its functions, where two patterns name a parameter and neither says
 * more of it.
 */
export function ratesOf(stage: Stage, moduleOf: Task['moduleOf']): Rates {
  const [rate, decay] = FIELDS.map((field) =>
    byPattern(stage[field], field === 'lr_by_module' ? stage.lr : stage.weight_decay, where(stage, field)),
  );
  const path = (parameter: string) => pathOf(moduleOf(parameter), parameter);
  return { learningRate: (parameter) => rate(path(parameter)), weightDecay: (parameter) => decay(path(parameter)) };
}

/** Whether a stage that trains `modules` trains a parameter of the model as it is in that stage. */
export const isTrainedBy =
  (modules: readonly string[], moduleOf: Task['moduleOf']) =>
  (parameter: string): boolean =>
    isOfAdapter(parameter) || modules.includes(moduleOf(parameter));

/** UserError for a pattern, of any stage, that names nothing the stage trains: before the first begins. */
export function checkRates(task: Pick<Task, 'stages' | 'weights' | 'moduleOf' | 'adapters'>): void {
  const { moduleOf } = task;
  for (const [index, stage] of task.stages.entries()) {
    const layers = [...(task.adapters?.(index)?.layers.keys() ?? [])];
    const names = [...task.weights.parameters.map(({ name }) => name), ...layers.flatMap((layer) => [downName(layer), upName(layer)])];
    checkStageRates(stage, names, moduleOf);
  }
}

/** UserError for a pattern of a stage that names none of the parameters that it trains. */
export function checkStageRates(stage: Stage, parameters: readonly string[], moduleOf: Task['moduleOf']): void {
  const paths = parameters.filter(isTrainedBy(stage.train, moduleOf)).map((name) => pathOf(moduleOf(name), name));
  for (const field of FIELDS) checkPatterns(stage[field], paths, where(stage, field));
}
