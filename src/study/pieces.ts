// What is computed for a study, and what waits for what: features of a frozen encoder, stages that several
// runs begin with, and the runs. What is the same is computed once: a key says everything that it depends on.

import { createHash } from 'node:crypto';
import { join } from 'node:path';
import type { LlavaRecipe } from '../train/recipe.ts';
import type { Study, StudyRun } from './variants.ts';

export interface Piece {
  id: string;
  kind: 'features' | 'stages' | 'run';
  recipe: LlavaRecipe;
  /** Where its run folder is; of features there is none. */
  out: string;
  /** Ids of the pieces that it waits for. */
  after: string[];
  /** The piece whose stages it begins with, and how many they are. */
  base?: { out: string; stages: number };
  /** Of a run. */
  run?: StudyRun;
  /** How many pieces and runs wait for it, directly or not. */
  waiting: number;
}

const digest = (value: unknown) => createHash('sha256').update(JSON.stringify(value)).digest('hex').slice(0, 16);

/** Names the scenes that a recipe asks for; undefined where it has files of its own. */
export function scenesKey({ data }: LlavaRecipe): string | undefined {
  if (!data) return undefined;
  const { folder: _, ...rest } = data;
  return digest(rest);
}

/** Where scenes of studies are, each in a folder of its key. */
const SCENES = '.cache/scenes';

/**
 * The recipe with its scenes in a folder that is named by what they are: runs of several settings need
 * several.
 */
export function withScenes(recipe: LlavaRecipe): LlavaRecipe {
  const key = scenesKey(recipe);
  return key === undefined ? recipe : { ...recipe, data: { ...recipe.data!, folder: join(SCENES, key) } };
}

/** Stands for what a path holds. */
export type ContentOf = (path: string) => string;

const modelContents = ({ model }: LlavaRecipe, contentOf: ContentOf) =>
  Object.fromEntries(Object.entries(model).map(([field, value]) => [field, typeof value === 'string' ? contentOf(value) : value]));

const dataContents = (recipe: LlavaRecipe, count: number, contentOf: ContentOf) =>
  recipe.stages
    .slice(0, count)
    .map(({ data }) =>
      typeof data === 'string'
        ? [data, scenesKey(recipe)]
        : [data].flat().map(({ data_path, image_folder, ...rest }) => [contentOf(data_path), image_folder, rest]),
    );

/**
 * Names what the first `count` stages of a recipe train: all that they depend on, but for the number of
 * threads, which is one for a study.
 */
export function stagesKey(recipe: LlavaRecipe, count: number, contentOf: ContentOf): string {
  const stages = recipe.stages.slice(0, count).map(({ data: _, ...stage }) => stage);
  return digest([recipe.seed, modelContents(recipe, contentOf), stages, dataContents(recipe, count, contentOf)]);
}

/** Names the features that a run reads; undefined where it reads none. */
function featuresKey(recipe: LlavaRecipe, contentOf: ContentOf): string | undefined {
  const kept = recipe.stages.filter(
    ({ train, feature_cache }) => !(train as string[]).includes('vision_tower') && feature_cache !== 'none',
  );
  if (kept.length === 0) return undefined;
  const { model } = recipe;
  const encoder =
    'llava' in model
      ? [contentOf(model.llava)]
      : [contentOf(model.vision_tower), model.vision_feature_layer, model.vision_feature_select_strategy];
  // captions and questions are about the same scenes
  const read = new Set(
    dataContents(recipe, recipe.stages.length, contentOf).map((data) =>
      JSON.stringify(typeof data[0] === 'string' && data[1] === scenesKey(recipe) ? data[1] : data),
    ),
  );
  const caches = new Set(recipe.stages.map(({ feature_cache, feature_cache_gb }) => `${feature_cache} ${feature_cache_gb}`));
  return digest([encoder, [...read].sort(), [...caches].sort()]);
}

/** The recipe of the first `count` stages alone. */
function prefixRecipe({ evaluate: _, ...recipe }: LlavaRecipe, count: number): LlavaRecipe {
  return { ...recipe, stages: recipe.stages.slice(0, count) };
}

/**
 * Lengths of the prefixes of each run that another run has too; of those that always occur together, the
 * longest.
 */
function sharedPrefixes(runs: readonly StudyRun[], contentOf: ContentOf): Map<StudyRun, { key: string; count: number }[]> {
  const keysOf = new Map(runs.map((run) => [run, run.recipe.stages.slice(0, -1).map((_, i) => stagesKey(run.recipe, i + 1, contentOf))]));
  const holders = new Map<string, StudyRun[]>();
  for (const [run, keys] of keysOf) for (const key of keys) holders.set(key, [...(holders.get(key) ?? []), run]);
  const isShared = (key: string, count: number) => {
    const those = holders.get(key)!;
    const next = new Set(those.map((run) => keysOf.get(run)![count]));
    return those.length > 1 && !(next.size === 1 && !next.has(undefined as never));
  };
  return new Map(runs.map((run) => [run, keysOf.get(run)!.flatMap((key, i) => (isShared(key, i + 1) ? [{ key, count: i + 1 }] : []))]));
}

/** All pieces of these runs, those first for which most wait. `folder` is the study's. */
export function piecesOf(runs: readonly StudyRun[], folder: string, contentOf: ContentOf): Piece[] {
  const pieces = new Map<string, Piece>();
  const prefixes = sharedPrefixes(runs, contentOf);
  const features = new Map<string, number>();
  for (const { recipe } of runs) {
    const key = featuresKey(recipe, contentOf);
    if (key !== undefined) features.set(key, (features.get(key) ?? 0) + 1);
  }
  for (const run of runs) {
    const recipe = withScenes(run.recipe);
    const key = featuresKey(run.recipe, contentOf);
    const encoded = key !== undefined && features.get(key)! > 1 ? [`features-${key}`] : [];
    for (const id of encoded)
      if (!pieces.has(id)) pieces.set(id, { id, kind: 'features', recipe, out: join(folder, 'pieces', id), after: [], waiting: 0 });
    let base: Piece['base'];
    let after = encoded;
    for (const { key: own, count } of prefixes.get(run)!) {
      const id = `stages-${own}`;
      const out = join(folder, 'pieces', id);
      if (!pieces.has(id))
        pieces.set(id, { id, kind: 'stages', recipe: prefixRecipe(recipe, count), out, after, ...(base ? { base } : {}), waiting: 0 });
      base = { out, stages: count };
      after = [id];
    }
    pieces.set(run.id, {
      id: run.id,
      kind: 'run',
      recipe,
      out: join(folder, 'runs', run.id),
      after,
      ...(base ? { base } : {}),
      run,
      waiting: 0,
    });
  }
  const list = [...pieces.values()];
  const count = (id: string): void => {
    for (const before of pieces.get(id)!.after) {
      pieces.get(before)!.waiting++;
      count(before);
    }
  };
  for (const { id } of list) count(id);
  return list
    .map((piece, i) => ({ piece, i }))
    .sort((a, b) => b.piece.waiting - a.piece.waiting || a.i - b.i)
    .map(({ piece }) => piece);
}

/** One of `count` shares of a study, from 1. */
export interface StudyShard {
  index: number;
  count: number;
}

/** The runs of a share: those that begin with the same stages stay together. */
export function runsOf({ runs }: Study, shard: StudyShard | undefined, contentOf: ContentOf): StudyRun[] {
  if (shard === undefined) return [...runs];
  const prefixes = sharedPrefixes(runs, contentOf);
  const groups = new Map<string, StudyRun[]>();
  for (const run of runs) {
    const group = prefixes.get(run)![0]?.key ?? run.id;
    groups.set(group, [...(groups.get(group) ?? []), run]);
  }
  // each group goes to the share that has least so far
  const shares = Array.from({ length: shard.count }, (): StudyRun[] => []);
  for (const group of [...groups.values()].sort((a, b) => b.length - a.length))
    shares.reduce((least, share) => (share.length < least.length ? share : least)).push(...group);
  const own = new Set(shares[shard.index - 1]);
  return runs.filter((run) => own.has(run));
}

/** The id of the first stages that a run goes on from, with others; undefined where it begins by itself. */
export function firstPieceOf(run: string, pieces: readonly Piece[]): string | undefined {
  let first: string | undefined;
  for (let piece = pieces.find(({ id }) => id === run); piece?.base; ) {
    const { out } = piece.base;
    piece = pieces.find((other) => other.out === out);
    first = piece?.id;
  }
  return first;
}

/** Ids of all that has to be there before a piece, directly or not. */
export function neededBy(id: string, pieces: readonly Piece[]): Set<string> {
  const needed = new Set(pieces.find((piece) => piece.id === id)?.after);
  for (const each of needed) for (const before of pieces.find((piece) => piece.id === each)?.after ?? []) needed.add(before);
  return needed;
}
