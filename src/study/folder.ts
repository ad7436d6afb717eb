// The folder of a study: settings.json (what is studied, to tell that it is still the same), records/ (what
// became of each run), runs/, pieces/ (stages that several runs begin with), measures/,
// study.json, cost.json and study.html.

import { copyFileSync, existsSync, linkSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { makeFolder, onDisk, writeWhole } from '../disk.ts';
import { UserError } from '../errors.ts';
import { lockPattern } from '../folder-lock.ts';
import { resolvePath } from '../paths.ts';
import { contentOf, isSameContent, modelContent } from '../pretrained/content.ts';
import type { Usage } from '../train/child.ts';
import { modelFolders } from '../train/fingerprints.ts';
import type { LlavaRecipe } from '../train/recipe.ts';
import type { ContentOf, StudyShard } from './pieces.ts';
import type { Study } from './variants.ts';

export const studyFolder = (path: string) => ({
  path,
  settings: join(path, 'settings.json'),
  record: (id: string) => join(path, 'records', `${id}.json`),
  /** What a piece has taken that has no record yet: by sittings. */
  sittings: (id: string) => join(path, 'records', `${id}.sittings`),
  run: (id: string) => join(path, 'runs', id),
  measures: (id: string) => join(path, 'measures', id),
  search: join(path, 'search'),
  results: join(path, 'study.json'),
  cost: join(path, 'cost.json'),
  report: join(path, 'study.html'),
});

/** All that results depend on. */
export interface StudySettings {
  format: 1;
  study: Study['file'];
  /** By the labels of cells. */
  recipes: Record<string, LlavaRecipe>;
  /** What models and data hold, by path. */
  contents: Record<string, string>;
  /** Of each run: a number of threads is part of what decides the last bits. */
  threads: number;
  shard: StudyShard | null;
}

/** What became of a piece: of a run, what was measured is beside it. */
export interface StudyRecord {
  outcome: 'finished' | 'diverged';
  /** Where a run became non-finite: after so many steps of a stage. */
  diverged?: { stage: string; step: number };
  seconds: number;
  cpuSeconds: number;
  peakRssMb: number;
}

export const writeJson = (path: string, value: unknown): void => writeWhole(path, `${JSON.stringify(value, null, 2)}\n`);

/** What `writeJson` has written; undefined where nothing is there. */
export const readJson = <T>(path: string): T | undefined =>
  existsSync(path) ? (JSON.parse(onDisk(path, () => readFileSync(path, 'utf8'))) as T) : undefined;

export const readRecord = (folder: string, id: string) => readJson<StudyRecord>(studyFolder(folder).record(id));

/** What the sittings of a piece took that ended before it did, each as it was last told. */
export const readSittings = (folder: string, id: string) => readJson<Usage[]>(studyFolder(folder).sittings(id)) ?? [];

// === What is studied ===

/** What the models and data of a study hold, read once. UserError for what is not there. */
export async function contentsOf({ variants }: Study): Promise<Record<string, string>> {
  const contents: Record<string, string> = {};
  for (const { recipe } of variants) {
    for (const [field, path] of Object.entries(recipe.model))
      if (typeof path === 'string' && ['llava', 'vision_tower', 'language_model', 'tokenizer'].includes(field))
        contents[path] ??= await modelContent(resolvePath(path, `model.${field}`));
    for (const { data } of recipe.stages)
      if (typeof data !== 'string')
        for (const { data_path } of [data].flat()) contents[data_path] ??= await contentOf(resolvePath(data_path, 'data.data_path'));
  }
  return contents;
}

export const contentReader =
  (contents: Readonly<Record<string, string>>): ContentOf =>
  (path) =>
    contents[path] ?? path;

/** Folders of the models of all variants, each once. */
export const allModelFolders = ({ variants }: Study): string[] => [...new Set(variants.flatMap(({ recipe }) => modelFolders(recipe)))];

export function settingsOf(study: Study, contents: Record<string, string>, threads: number, shard: StudyShard | undefined): StudySettings {
  const recipes = Object.fromEntries(study.variants.map(({ label, recipe }) => [label, recipe]));
  return { format: 1, study: study.file, recipes, contents, threads, shard: shard ?? null };
}

/** The settings of a study's folder. UserError where there are none. */
export function readSettings(path: string): StudySettings {
  const { settings } = studyFolder(path);
  if (!existsSync(settings)) throw new UserError(`${path}: is no folder of a study: it has no settings.json`);
  return JSON.parse(onDisk(settings, () => readFileSync(settings, 'utf8'))) as StudySettings;
}

/** The first thing in which two studies differ, in words. */
export function studyDifference(before: StudySettings, now: StudySettings): string | undefined {
  const differs = (a: unknown, b: unknown) => JSON.stringify(a ?? null) !== JSON.stringify(b ?? null);
  const [was, is] = [before.study, now.study] as Record<string, unknown>[];
  const field = [...new Set([...Object.keys(is), ...Object.keys(was)])].find((name) => differs(was[name], is[name]));
  if (field !== undefined) return `other ${field}`;
  const cell = Object.keys(now.recipes).find((label) => differs(before.recipes[label], now.recipes[label]));
  if (cell !== undefined) return `another recipe of cell ${cell}`;
  const path = Object.keys(now.contents).find((name) => !isSameContent(before.contents[name], now.contents[name]));
  if (path !== undefined) return `another content of ${path}`;
  return undefined;
}

/**
 * Makes the folder of a study, or goes on with it. UserError where it holds something else. A study that goes
 * on keeps its number of threads.
 */
export function openStudyFolder(path: string, settings: StudySettings): StudySettings {
  const folder = studyFolder(path);
  makeFolder(path);
  if (!existsSync(folder.settings)) {
    const other = onDisk(path, () => readdirSync(path)).find((name) => !lockPattern.test(name) && name !== 'settings.json.tmp');
    if (other !== undefined) throw new UserError(`${path}: holds ${other}, which is of no study; give another --out`);
    writeJson(folder.settings, settings);
    return settings;
  }
  const before = readSettings(path);
  const difference = studyDifference(before, settings);
  if (difference !== undefined)
    throw new UserError(`${path}: holds another study (${difference}); give another --out, or remove the folder`);
  const shardText = ({ shard }: StudySettings) => (shard ? `share ${shard.index}/${shard.count}` : 'the whole');
  if (JSON.stringify(before.shard) !== JSON.stringify(settings.shard))
    throw new UserError(`${path}: holds ${shardText(before)} of the study, not ${shardText(settings)}; give another --out`);
  return before;
}

// === Trees ===

/** A copy of a folder that shares its files, which nobody writes into; where links cannot be, real copies. */
export function linkTree(from: string, to: string, isWanted: (path: string) => boolean = () => true): void {
  mkdirSync(to, { recursive: true });
  for (const entry of readdirSync(from, { withFileTypes: true })) {
    const [source, target] = [join(from, entry.name), join(to, entry.name)];
    if (!isWanted(source)) continue;
    if (entry.isDirectory()) linkTree(source, target, isWanted);
    else
      try {
        linkSync(source, target);
      } catch {
        copyFileSync(source, target);
      }
  }
}

/**
 * Makes the run folder `to` as that of a run which was killed when the stages in the folder `from` had ended:
 * whole or not at all.
 */
export function beginWith(from: string, to: string, recipeYaml: string): void {
  const fresh = `${to}.tmp`;
  rmSync(fresh, { recursive: true, force: true });
  onDisk(to, () => {
    linkTree(join(from, 'checkpoints'), join(fresh, 'checkpoints'));
    // it is added to: a copy of its own
    copyFileSync(join(from, 'metrics.jsonl'), join(fresh, 'metrics.jsonl'));
    writeFileSync(join(fresh, 'recipe.yaml'), recipeYaml);
    renameSync(fresh, to);
  });
}
