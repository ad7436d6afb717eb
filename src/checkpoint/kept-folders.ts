// Checkpoints that stay beside the newest. They share its files, which nobody ever changes in place, so
// keeping one costs no disk until the newest is replaced.

import { existsSync } from 'node:fs';
import { copyFile, link, readdir, rename, rm } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { makeFolder } from '../disk.ts';
import { recoverCheckpoint, replaceFolder, syncFolder } from './checkpoint.ts';

/** Some file systems have no hard links. */
const linkOrCopy = (from: string, to: string) => link(from, to).catch(() => copyFile(from, to));

async function linkFiles(from: string, to: string): Promise<void> {
  for (const entry of await readdir(from, { withFileTypes: true })) {
    const [source, target] = [join(from, entry.name), join(to, entry.name)];
    if (entry.isDirectory()) {
      makeFolder(target);
      await linkFiles(source, target);
      await syncFolder(target);
    } else await linkOrCopy(source, target);
  }
}

/** Of a stage's checkpoint at `dir`: where the one after `step` steps is kept, and the best one. */
export const keptFolder = (dir: string, step: number): string => `${dir}-step-${String(step).padStart(6, '0')}`;
export const bestFolder = (dir: string): string => `${dir}-best`;

/** What stands behind the name of the stage in the name of a folder that is kept. */
const keptName = /^-(best|step-(\d+))(\.incomplete|\.replaced)?$/;

async function keptBeside(dir: string): Promise<{ path: string; step: number; isLeftover: boolean }[]> {
  const stage = basename(dir);
  const folder = dirname(dir);
  if (!existsSync(folder)) return [];
  return (await readdir(folder)).flatMap((name) => {
    const match = name.startsWith(stage) ? keptName.exec(name.slice(stage.length)) : null;
    if (!match) return [];
    const leftover = match[3] ?? '';
    return [
      { path: join(folder, name.slice(0, name.length - leftover.length)), step: Number(match[2] ?? -1), isLeftover: leftover !== '' },
    ];
  });
}

/** Repairs what a run that was killed left of the folders that are kept beside `dir`. */
export async function recoverKept(dir: string): Promise<void> {
  for (const { path, isLeftover } of await keptBeside(dir)) if (isLeftover) await recoverCheckpoint(path);
}

/**
 * Keeps the checkpoint at `dir`, which is of `step`, and removes older ones beyond the newest `count`. Those
 * of later steps are of a run that was taken back, and stay until it comes to them again. With `isSaved`, for
 * a checkpoint that may have been kept before, one that is kept of this step stays as it is. UserError if the
 * disk is full or not writable.
 */
export async function keepCheckpoint(dir: string, step: number, count: number, { isSaved = false } = {}): Promise<void> {
  if (count === 0) return;
  const kept = keptFolder(dir, step);
  if (!isSaved || !existsSync(kept)) await replaceFolder(kept, (folder) => linkFiles(dir, folder));
  const older = (await keptBeside(dir)).filter(({ step: of, isLeftover }) => of >= 0 && of <= step && !isLeftover);
  for (const { path } of older.toSorted((a, b) => b.step - a.step).slice(count)) {
    // by a name that says that it is none: a kill may come while it is removed
    await rename(path, `${path}.incomplete`);
    await rm(`${path}.incomplete`, { recursive: true });
  }
}
