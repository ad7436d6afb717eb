// The drawn scenes of a recipe. Their folder is drawn again in its place where it holds others, so runs that
// need other scenes may not have it at the same time; those that need the same may.

import { randomUUID } from 'node:crypto';
import { existsSync, readdirSync, rmdirSync } from 'node:fs';
import { join } from 'node:path';
import { type EmojiDatasetOptions, scenesDigest } from '../data/emoji/build.ts';
import { makeFolder, onDisk } from '../disk.ts';
import { FolderTakenError, type LockOptions, lockFolder, noLock } from '../folder-lock.ts';
import { augmentationOf, type LlavaRecipe, type Recipe } from './recipe.ts';

/** The scenes that a recipe of this seed asks for. */
export function scenesOf(data: NonNullable<LlavaRecipe['data']>, seed: number): EmojiDatasetOptions {
  const { folder, train_scenes, evaluation_scenes, scene_size, held_out_artist, augmentation } = data;
  return {
    seed: data.seed ?? seed,
    out: folder,
    trainScenes: train_scenes,
    evaluationScenes: evaluation_scenes,
    size: scene_size,
    heldOutArtist: held_out_artist,
    ...(augmentation ? { augmentation: augmentationOf(augmentation) } : {}),
  };
}

/** Where a recipe's scenes are, and a name of what they show; undefined where it has none on disk. */
export function scenesIn(recipe: Recipe): { folder: string; digest: string } | undefined {
  if (recipe.task !== 'llava' || !recipe.data) return undefined;
  const scenes = scenesOf(recipe.data, recipe.seed);
  return { folder: scenes.out, digest: scenesDigest(scenes) };
}

/** A folder with the lock of a run, beside the scenes that it reads. */
const holdName = /^\.read-([0-9a-f]{16})-/;

/**
 * Does `work`, during which no other run draws other scenes into the folder of the recipe's. UserError where
 * one is at work there with other scenes.
 */
export async function holdingScenes<T>(recipe: Recipe, options: LockOptions, work: () => Promise<T>): Promise<T> {
  const scenes = scenesIn(recipe);
  if (!scenes) return work();
  const { folder, digest } = scenes;
  const isNew = !existsSync(folder);
  makeFolder(folder);
  // each says first what it reads, then looks for others: of two that begin at once, one at least is refused
  const own = await lockFolder(join(folder, `.read-${digest}-${randomUUID()}`), options).catch((error: unknown) => {
    // nobody draws other scenes into it, and these may be there already
    if (isNotWritable(error)) return noLock;
    throw error;
  });
  try {
    const others = onDisk(folder, () => readdirSync(folder)).filter((name) => (holdName.exec(name)?.[1] ?? digest) !== digest);
    for (const name of others) await requireLeft(folder, name, options);
    return await work();
  } finally {
    await own.release();
    if (isNew) removeEmpty(folder);
  }
}

/** Removes what a run that was killed has left in `folder`. UserError where the run goes on. */
async function requireLeft(folder: string, name: string, options: LockOptions): Promise<void> {
  const path = join(folder, name);
  try {
    await (await lockFolder(path, options)).release();
  } catch (error) {
    if (!(error instanceof FolderTakenError)) throw error;
    throw new FolderTakenError(
      `${folder}: a run is going on with other scenes there, and drawing these would change what it reads: give another folder (--set data.folder=...), or wait for that run`,
      { cause: error },
    );
  }
  removeEmpty(path);
}

const isNotWritable = (error: unknown): boolean =>
  ['EACCES', 'EPERM', 'EROFS'].includes(((error as Error).cause as NodeJS.ErrnoException | undefined)?.code ?? '');

function removeEmpty(folder: string): void {
  try {
    rmdirSync(folder);
  } catch {
    // something is in it, or another run has removed it
  }
}
