// A study as it is run: the recipe of every cell, and the runs, each a cell with a seed.

import { readFileSync } from 'node:fs';
import { parseDocument } from 'yaml';
import { reasonOf, UserError } from '../errors.ts';
import { resolvePath } from '../paths.ts';
import { type LlavaRecipe, parseRecipe, readRecipe, recipeToYaml } from '../train/recipe.ts';
import { applyOverride } from '../train/recipe-overrides.ts';
import { decodeUtf8 } from '../utf8.ts';
import { cellsOf } from './design.ts';
import { factorsOf, type StudyFactor, type StudyFile } from './study-schema.ts';

/** A cell of the design. */
export interface Variant {
  index: number;
  /** Index of the level of each factor. */
  levels: readonly number[];
  /** `no / mlp4x_gelu`. */
  label: string;
  /** Its recipe with the seed of the file. Scenes have a seed of their own: all runs are asked the same. */
  recipe: LlavaRecipe;
  /** In a study with a search: the cell, and whether it has its own best values. */
  searched?: { cell: string; isTuned: boolean };
}

export interface StudyRun {
  /** Names its folder: `03-no-mlp4x-gelu-seed-1`. */
  id: string;
  variant: Variant;
  seed: number;
  recipe: LlavaRecipe;
}

/** The stage that is trained for shares of its steps. */
export interface Convergence {
  stage: string;
  /** Which of the factors. */
  factor: number;
  /** Steps of each of its levels; 0 where the stage is left out. */
  steps: number[];
}

export interface Study {
  /** Name of the file, for messages. */
  path: string;
  file: StudyFile;
  factors: StudyFactor[];
  /** Names of the stages of the recipe, of which cells may leave some out. */
  stageNames: string[];
  variants: Variant[];
  seeds: number[];
  runs: StudyRun[];
  convergence?: Convergence;
}

/** What a search has found for cells, as `--set` takes it, by their labels. */
export type Tuned = ReadonlyMap<string, readonly string[]>;

/** The factor of a study with a search: values of the recipe, or each cell's own. */
const settingsFactor: StudyFactor = {
  name: 'settings',
  field: undefined,
  levels: ['shared', 'tuned'].map((label) => ({ label, value: undefined, set: [], drop: [] })),
};

type Tree = { stages?: { name?: unknown; steps?: unknown; held_out?: unknown }[]; seed?: unknown; evaluate?: object; data?: object };

function readBase({ recipe }: StudyFile, path: string): Tree {
  try {
    const document = parseDocument(decodeUtf8(readFileSync(resolvePath(recipe, `${path}: recipe`)), recipe), { version: '1.2' });
    if (document.errors.length > 0) throw new UserError(`${recipe}: not YAML: ${document.errors[0].message.split('\n')[0]}`);
    const value: unknown = document.toJS();
    if (typeof value !== 'object' || value === null || Array.isArray(value))
      throw new UserError(`${recipe}: a recipe must be a map of fields`);
    return value as Tree;
  } catch (error) {
    if (error instanceof UserError) throw error;
    throw new UserError(`${path}: recipe: cannot read ${recipe}: ${reasonOf(error)}`);
  }
}

/** What a level changes: fields, then stages that are left out. */
interface Changes {
  set: string[];
  drop: readonly string[];
}

const changesOf = ({ field, levels }: StudyFactor, index: number): Changes => {
  const { value, set, drop } = levels[index];
  return { set: [...(field === undefined ? [] : [`${field}=${JSON.stringify(value)}`]), ...set], drop };
};

/** The recipe with changes. All fields are set first: they name stages by their numbers in the file. */
function changedRecipe(base: Tree, changes: readonly Changes[], name: string, file: StudyFile): LlavaRecipe {
  const tree = structuredClone(base);
  for (const { set } of changes) for (const override of set) applyOverride(tree, override);
  const dropped = changes.flatMap(({ drop }) => drop);
  const stages = Array.isArray(tree.stages) ? tree.stages : [];
  const unknown = dropped.find((stage) => !stages.some((each) => each?.name === stage));
  if (unknown !== undefined)
    throw new UserError(`drop: there is no stage ${unknown}; there are ${stages.map((stage) => stage?.name).join(', ')}`);
  if (dropped.length > 0) tree.stages = stages.filter((stage) => !dropped.includes(String(stage?.name)));
  const { splits } = file.score;
  if (splits) tree.evaluate = { ...tree.evaluate, splits };
  const recipe = parseRecipe(tree, name);
  if (recipe.task !== 'llava') throw new UserError(`${name}: a study is of recipes with task: llava, and this one is ${recipe.task}`);
  return withFixedScenes(recipe);
}

/** Runs `work`; what is wrong is said to be of `where`. */
function saying<T>(where: string, work: () => T): T {
  try {
    return work();
  } catch (error) {
    if (error instanceof UserError) throw new UserError(`${where}: ${error.message}`);
    throw error;
  }
}

/** A cell with the values of the recipe, and with its own. */
function sharedAndTuned({ levels, label, recipe }: Omit<Variant, 'index'>, tuned: Tuned): Omit<Variant, 'index'>[] {
  const overrides = tuned.get(label) ?? [];
  const { data, ...rest } = readRecipe(recipeToYaml(recipe), label, overrides) as LlavaRecipe;
  // fields in the same order: they name the scenes
  const own: LlavaRecipe = data ? { ...rest, data: { ...recipe.data!, ...data } } : rest;
  return [recipe, own].map((each, level) => ({
    levels: [...levels, level],
    label: [label, settingsFactor.levels[level].label].filter((part) => part !== '').join(' / '),
    recipe: each,
    searched: { cell: label, isTuned: level === 1 },
  }));
}

const shareText = (share: number) =>
  share === 0 || share === 1 ? String(share) : Number.isInteger(1 / share) ? `1/${1 / share}` : String(share);

/** The factor that a convergence study varies: steps of one stage. */
function convergenceOf(base: Tree, file: StudyFile, path: string): { factor: StudyFactor; steps: number[]; stage: string } | undefined {
  if (!file.convergence) return undefined;
  const { stage, shares } = file.convergence;
  const index = (base.stages ?? []).findIndex(({ name }) => name === stage);
  if (index < 0) throw new UserError(`${path}: convergence: there is no stage ${stage} in ${file.recipe}`);
  const { steps: whole, held_out } = base.stages![index];
  if (typeof whole !== 'number') throw new UserError(`${path}: convergence: stage ${stage} must give steps, so that its shares are known`);
  if (held_out === undefined) throw new UserError(`${path}: convergence: stage ${stage} must give held_out, for the loss that is fitted`);
  const sorted = [...shares].sort((a, b) => a - b);
  const steps = sorted.map((share) => Math.round(share * whole));
  if (new Set(steps).size !== steps.length)
    throw new UserError(`${path}: convergence: of ${whole} steps, two of the shares are the same number: take fewer shares or more steps`);
  const levels = sorted.map((share, i) => ({
    label: shareText(share),
    value: undefined,
    set: steps[i] > 0 ? [`stages.${index}.steps=${steps[i]}`] : [],
    drop: steps[i] > 0 ? [] : [stage],
  }));
  return { factor: { name: `share of ${stage}`, field: undefined, levels }, steps, stage };
}

const slug = (text: string) =>
  text
    .toLowerCase()
    .replace(/[^a-z0-9]+/g, '-')
    .replace(/^-+|-+$/g, '')
    .slice(0, 48)
    .replace(/-+$/, '');

const withFixedScenes = (recipe: LlavaRecipe): LlavaRecipe =>
  recipe.data ? { ...recipe, data: { ...recipe.data, seed: recipe.data.seed ?? recipe.seed } } : recipe;

/**
 * UserError for levels that make no valid recipe, each by itself first, so that the right one is named.
 * Before a search has ended, tuned cells have the values of the recipe.
 */
export function buildStudy(file: StudyFile, path: string, tuned: Tuned = new Map()): Study {
  const base = readBase(file, path);
  const common: Changes = { set: file.set, drop: [] };
  const prepared = structuredClone(base);
  saying(path, () => {
    for (const override of file.set) applyOverride(prepared, override);
  });
  const plain = saying(path, () => changedRecipe(base, [common], file.recipe, file));
  const converging = convergenceOf(prepared, file, path);
  const named = factorsOf(file, path);
  if (file.search && named.some(({ name }) => name === settingsFactor.name))
    throw new UserError(`${path}: with a search, ${settingsFactor.name} is the name of the factor that says whose values a cell has`);
  const varied = [...named, ...(converging ? [converging.factor] : [])];
  const factors = [...varied, ...(file.search ? [settingsFactor] : [])];
  for (const factor of varied)
    for (const [index, { label }] of factor.levels.entries())
      saying(`${path}: factor ${factor.name}, level ${label}`, () =>
        changedRecipe(base, [common, changesOf(factor, index)], 'the recipe', file),
      );
  const cells = cellsOf(varied, file.design, path).map((levels): Omit<Variant, 'index'> => {
    const label = levels.map((level, i) => varied[i].levels[level].label).join(' / ');
    const changes = [common, ...levels.map((level, i) => changesOf(varied[i], level))];
    return { levels, label, recipe: saying(`${path}: cell ${label}`, () => changedRecipe(base, changes, 'the recipe', file)) };
  });
  const variants = cells
    .flatMap((cell) => (file.search ? sharedAndTuned(cell, tuned) : [cell]))
    .map((cell, index): Variant => ({ index, ...cell }));
  if (variants.length < 2) throw new UserError(`${path}: the design has ${variants.length} cell, and nothing to compare it with`);
  const seeds = typeof file.seeds === 'number' ? Array.from({ length: file.seeds }, (_, i) => plain.seed + i) : file.seeds;
  const scored = variants.find(({ recipe }) => recipe.evaluate) ?? file.score.benchmarks.length > 0;
  if (!scored) throw new UserError(`${path}: nothing is scored: give score.splits or score.benchmarks, or evaluate in ${file.recipe}`);
  const digits = String(variants.length - 1).length;
  const runs = variants.flatMap((variant) =>
    seeds.map((seed) => ({
      id: `${String(variant.index).padStart(digits, '0')}-${slug(variant.label)}-seed-${seed}`,
      variant,
      seed,
      recipe: { ...variant.recipe, seed },
    })),
  );
  const convergence = converging && { stage: converging.stage, factor: varied.length - 1, steps: converging.steps };
  const stageNames = (prepared.stages ?? []).map(({ name }) => String(name));
  return { path, file, factors, stageNames, variants, seeds, runs, ...(convergence ? { convergence } : {}) };
}
