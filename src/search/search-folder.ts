// The folder of a search: what is searched (search.yaml, recipe.yaml), for each variant the trials in order
// (trials.jsonl) with a run folder each, the runs with fresh seeds, and what came of it (search.json,
// search.html).

import { appendFileSync, existsSync, readdirSync, readFileSync, truncateSync } from 'node:fs';
import { join } from 'node:path';
import { stringify } from 'yaml';
import { makeFolder, onDisk, writeWhole } from '../disk.ts';
import { UserError } from '../errors.ts';
import type { FinishedTrial } from './search.ts';
import type { SearchFile } from './search-schema.ts';
import type { BaseRecipe } from './trial-recipe.ts';

export interface SearchFolder {
  path: string;
  search: string;
  recipe: string;
  result: string;
  page: string;
  /** Finished trials of a variant, a line each, in order. */
  trials(variant: string): string;
  /** The run of a trial, by its index. */
  trial(variant: string, index: number): string;
  /** The run of the winner, or of the recipe as it was, with another seed. */
  confirmation(variant: string, of: 'winner' | 'base', seed: number): string;
}

/** The paths in the folder of a search, whether or not there is one. */
export const searchFolder = (path: string): SearchFolder => ({
  path,
  search: join(path, 'search.yaml'),
  recipe: join(path, 'recipe.yaml'),
  result: join(path, 'search.json'),
  page: join(path, 'search.html'),
  trials: (variant) => join(path, variant, 'trials.jsonl'),
  trial: (variant, index) => join(path, variant, 'trials', String(index).padStart(4, '0')),
  confirmation: (variant, of, seed) => join(path, variant, of, `seed-${seed}`),
});

/** Makes the folder of a search, or goes on with it. UserError where it holds anything else. */
export function prepareSearchFolder(path: string, search: SearchFile, base: BaseRecipe): SearchFolder {
  const folder = searchFolder(path);
  // how much of it is kept may be thought over
  const { keep: _, ...settings } = search;
  const text = stringify(settings);
  makeFolder(path);
  if (existsSync(folder.search)) {
    const same = (file: string, content: string) => existsSync(file) && onDisk(file, () => readFileSync(file, 'utf8')) === content;
    if (!same(folder.search, text)) throw new UserError(`${path}: it holds a search with other settings (search.yaml); give another --out`);
    if (!same(folder.recipe, base.text))
      throw new UserError(`${path}: ${base.name} was another one when the search was begun (recipe.yaml); give another --out`);
    return folder;
  }
  // recipe.yaml alone is what a search leaves that was killed at its very beginning
  const other = onDisk(path, () => readdirSync(path)).find(
    (name) => !/^(run\.lock\.\d+|recipe\.yaml(\.tmp)?|search\.yaml\.tmp)$/.test(name),
  );
  if (other !== undefined) throw new UserError(`${path}: it holds ${other}, which is not from a search; give another --out`);
  writeWhole(folder.recipe, base.text);
  writeWhole(folder.search, text);
  return folder;
}

/** Trials that were finished in earlier sittings, in order. A line that was cut off is removed. */
export function readTrials(path: string): FinishedTrial[] {
  if (!existsSync(path)) return [];
  const text = onDisk(path, () => readFileSync(path, 'utf8'));
  const whole = text.slice(0, text.lastIndexOf('\n') + 1);
  if (whole.length < text.length) onDisk(path, () => truncateSync(path, Buffer.byteLength(whole)));
  return whole
    .split('\n')
    .slice(0, -1)
    .map((line) => JSON.parse(line) as FinishedTrial);
}

export function appendTrial(path: string, trial: FinishedTrial): void {
  makeFolder(join(path, '..'));
  onDisk(path, () => appendFileSync(path, `${JSON.stringify(trial)}\n`));
}
