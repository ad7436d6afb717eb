// Recipes: a run as a YAML file, checked before anything starts.

import { readFileSync } from 'node:fs';
import { parseDocument, stringify } from 'yaml';
import type { z } from 'zod';
import type { Augmentation as SceneAugmentation } from '../data/emoji/scene.ts';
import { reasonOf, UserError } from '../errors.ts';
import { resolvePath } from '../paths.ts';
import { decodeUtf8 } from '../utf8.ts';
import type { augmentationSchema } from './recipe-data.ts';
import { applyOverride } from './recipe-overrides.ts';
import { describeProblem } from './recipe-problems.ts';
import { recipeSchema } from './recipe-schema.ts';

export type Recipe = z.output<typeof recipeSchema>;
export type ContrastiveRecipe = Extract<Recipe, { task: 'contrastive' }>;
export type LanguageModelRecipe = Extract<Recipe, { task: 'language-model' }>;
export type InstanceDiscriminationRecipe = Extract<Recipe, { task: 'instance-discrimination' }>;
export type LlavaRecipe = Extract<Recipe, { task: 'llava' }>;
export type Stage = Recipe['stages'][number];
export type LlavaStage = LlavaRecipe['stages'][number];
export type Augmentation = z.output<typeof augmentationSchema>;

/** A recipe's augmentation as the scenes' module takes it. */
export function augmentationOf({ flip_chance, grey_chance, erase_chance, ...rest }: Augmentation): SceneAugmentation {
  return { ...rest, flipChance: flip_chance, greyChance: grey_chance, eraseChance: erase_chance };
}

// ---- Reading ----

/**
 * The defaults of LLaVA's pretrain.sh for stages that train the connector alone, and of finetune_lora.sh for
 * those with adapters; the schema's own are those of finetune.sh.
 */
const connectorDefaults = { lr: 1e-3, batch_size: 256, template: 'plain' };
const loraDefaults = { lr: 2e-4 };
const connectorBesideLora = { lr_by_module: { multi_modal_projector: 2e-5 } };

function withScriptDefaults(value: unknown): unknown {
  const { task, stages } = (value ?? {}) as { task?: unknown; stages?: unknown };
  if (task !== 'llava' || !Array.isArray(stages)) return value;
  const defaultsOf = (stage: { train?: unknown; lora?: unknown } | null) => {
    const modules: unknown[] = Array.isArray(stage?.train) ? stage.train : [];
    if (stage?.lora) return { ...loraDefaults, ...(modules.includes('multi_modal_projector') ? connectorBesideLora : {}) };
    return modules.length === 1 && modules[0] === 'multi_modal_projector' ? connectorDefaults : {};
  };
  return { ...(value as object), stages: stages.map((stage) => (typeof stage === 'object' ? { ...defaultsOf(stage), ...stage } : stage)) };
}

/**
 * Runs that were begun when recipes still said `precision: float32`, the only one there was, can be resumed.
 */
function withoutPrecision(value: unknown): unknown {
  const { precision, ...rest } = (value ?? {}) as { precision?: unknown };
  return precision === 'float32' ? rest : value;
}

/**
 * Checks a recipe and fills in its defaults. UserError with the first problem in one sentence, which begins
 * with `name`.
 */
export function parseRecipe(value: unknown, name: string): Recipe {
  const parsed = recipeSchema.safeParse(withScriptDefaults(withoutPrecision(value)));
  if (!parsed.success) throw new UserError(`${name}: ${describeProblem(recipeSchema, parsed.error, value)}`);
  return parsed.data;
}

/**
 * Reads a recipe from YAML text and applies `--set` overrides to it. All problems are UserErrors that name
 * `name` and the field.
 */
export function readRecipe(text: string, name: string, overrides: readonly string[] = []): Recipe {
  const document = parseDocument(text, { version: '1.2' });
  if (document.errors.length > 0) throw new UserError(`${name}: not YAML: ${document.errors[0].message.split('\n')[0].replace(/:$/, '')}`);
  const value: unknown = document.toJS();
  if (typeof value !== 'object' || value === null || Array.isArray(value)) throw new UserError(`${name}: a recipe must be a map of fields`);
  for (const override of overrides) applyOverride(value, override);
  return parseRecipe(value, name);
}

/**
 * Reads a recipe file, found as `resolvePath` does, and applies `--set` overrides. UserError as of
 * `readRecipe`.
 */
export function loadRecipe(path: string, overrides: readonly string[] = []): Recipe {
  const file = resolvePath(path, 'recipe');
  let text: string;
  try {
    text = decodeUtf8(readFileSync(file), path);
  } catch (error) {
    if (error instanceof UserError) throw error;
    throw new UserError(`recipe: cannot read ${path}: ${reasonOf(error)}`);
  }
  return readRecipe(text, path, overrides);
}

/** The resolved recipe as YAML: every field, defaults included. Reading it back gives the same recipe. */
export function recipeToYaml(recipe: Recipe): string {
  return stringify(recipe);
}
