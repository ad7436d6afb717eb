// The recipe of a trial: the base recipe with the trial's values, cut to the stages that the objective
// needs and to the length that the budget allows.

import { readFileSync } from 'node:fs';
import { UserError } from '../errors.ts';
import { resolvePath } from '../paths.ts';
import { type LlavaRecipe, type Recipe, readRecipe, type Stage } from '../train/recipe.ts';
import { scenesIn } from '../train/scenes.ts';
import { decodeUtf8 } from '../utf8.ts';
import type { SearchFile } from './search-schema.ts';
import { extremesOf, overridesOf, type Space, type Values } from './space.ts';

/** The recipe that a search begins from. */
export interface BaseRecipe {
  /** As the search names it. */
  name: string;
  text: string;
}

/** UserError where it is not there. */
export function baseRecipe(path: string): BaseRecipe {
  return { name: path, text: decodeUtf8(readFileSync(resolvePath(path, 'recipe')), path) };
}

export interface TrialSettings {
  /** Changes of the variant. */
  set: readonly string[];
  values: Values;
  /** Share of the whole length. */
  share: number;
  /** The recipe's own when left out. */
  seed?: number;
}

type Search = Pick<SearchFile, 'set' | 'objective' | 'budget' | 'space'>;

/** UserError, as of `readRecipe`, where the values make no valid recipe. */
export function trialRecipe(base: BaseRecipe, search: Search, { set, values, share, seed }: TrialSettings): Recipe {
  const overrides = [...search.set, ...set, ...overridesOf(values)];
  const whole = readRecipe(base.text, base.name, seed === undefined ? overrides : [...overrides, `seed=${seed}`]);
  const last = judgedStage(whole, search, base.name);
  const lengths = whole.stages
    .slice(0, last + 1)
    .flatMap((stage, index) => lengthOf(stage, index, share, index === last ? search.budget : {}));
  const recipe = readRecipe(base.text, base.name, [...overrides, ...lengths, `seed=${whole.seed}`]);
  separateScenes(recipe, base);
  return { ...withoutScoring(recipe, search), stages: recipe.stages.slice(0, last + 1) } as Recipe;
}

/** Scenes other than those of the base recipe get a folder of their own: trials run side by side. */
function separateScenes(recipe: Recipe, base: BaseRecipe): void {
  const scenes = scenesIn(recipe);
  if (!scenes || scenes.digest === scenesIn(readRecipe(base.text, base.name))?.digest) return;
  (recipe as LlavaRecipe).data!.folder += `-${scenes.digest}`;
}

/** What only the last scoring needs is left out where nothing asks for it. */
function withoutScoring(recipe: Recipe, { objective }: Search): Recipe {
  if (recipe.task !== 'llava') return recipe;
  const { evaluate, ...rest } = recipe;
  if ('held_out' in objective || !evaluate) return rest;
  return { ...rest, evaluate: { ...evaluate, splits: [objective.accuracy], every: 0 } };
}

/** Index of the stage whose end is judged. UserError where the recipe cannot be judged so. */
function judgedStage({ stages, ...recipe }: Recipe, { objective }: Search, name: string): number {
  if ('held_out' in objective) {
    const index = stages.findIndex((stage) => stage.name === objective.held_out);
    if (index < 0)
      throw new UserError(
        `objective.held_out: ${name} has no stage ${objective.held_out}; it has ${stages.map((stage) => stage.name).join(', ')}`,
      );
    const stage = stages[index];
    if (!('held_out' in stage) || !stage.held_out)
      throw new UserError(
        `objective.held_out: stage ${stage.name} of ${name} holds no samples out: give it held_out (set: [stages.${index}.held_out={share: 0.1}])`,
      );
    return index;
  }
  if (!('evaluate' in recipe) || !recipe.evaluate)
    throw new UserError(`objective.accuracy: ${name} scores nothing: give it evaluate, or take {held_out: STAGE}`);
  return stages.length - 1;
}

/** The changes that make a stage as long as a share of the budget, or of what it says itself. */
function lengthOf(stage: Stage, index: number, share: number, { steps, samples }: Partial<SearchFile['budget']>): string[] {
  const perStep = stage.batch_size * stage.accumulation;
  const whole = steps ?? (samples === undefined ? stage.steps : samples / perStep);
  if (whole === undefined) return [`stages.${index}.epochs=${(stage.epochs ?? 1) * share}`];
  return [`stages.${index}.epochs=`, `stages.${index}.steps=${Math.max(1, Math.round(whole * share))}`];
}

/**
 * UserError where a value at the end of its range makes no valid recipe, or the budget is searched itself.
 */
export function checkSpace(base: BaseRecipe, search: Search, variants: SearchFile['variants'], space: Space): void {
  const { steps, samples } = search.budget;
  for (const { path } of space) {
    if (path === 'seed') throw new UserError('space: seed is no setting to be chosen: `confirm` tells what it is worth');
    if (/^stages\.\d+\.(steps|epochs)$/.test(path) && (steps ?? samples) !== undefined)
      throw new UserError(`space: ${path}: the budget says how long a trial is; take one of the two out`);
  }
  for (const { set } of variants) for (const values of extremesOf(space)) trialRecipe(base, search, { set, values, share: 1 });
}
