// What goes wrong with disks, and free space on them.
import { existsSync, mkdirSync, renameSync, statSync, writeFileSync } from 'node:fs';
import { statfs } from 'node:fs/promises';
import { dirname, resolve } from 'node:path';
import { systemReason, UserError } from './errors.ts';

/**
 * Bytes free for this user on the disk of `folder`, which must exist; Infinity if the file system does not
 * report it, as with some network file systems.
 */
export async function freeBytes(folder: string): Promise<number> {
  const { bavail, bsize, blocks } = await statfs(folder);
  return blocks > 0 ? bavail * bsize : Number.POSITIVE_INFINITY;
}

/** The folder as an absolute path, or the one above it that is there. */
export function existingFolder(folder: string): string {
  const path = resolve(folder);
  return existsSync(path) ? path : existingFolder(dirname(path));
}

/**
 * Runs `work`, which reads or writes the file or folder at `path`. What the operating system refuses becomes
 * a UserError with the path and the reason in words.
 */
export function onDisk<T>(path: string, work: () => T): T {
  try {
    return work();
  } catch (error) {
    const reason = systemReason(error);
    throw reason === undefined ? error : new UserError(`${path}: ${reason}`, { cause: error });
  }
}

/**
 * Makes a folder, and those above it, where they are missing. UserError, naming the one that cannot be made.
 * Node's own `recursive` never ends where the system refuses a new folder as if its parent were missing, as
 * /proc does.
 */
export function makeFolder(path: string): void {
  if (isFolder(path)) return;
  makeFolderOf(path);
  onDisk(path, () => {
    try {
      mkdirSync(path);
    } catch (error) {
      // another process may have made it meanwhile
      if (!isFolder(path)) throw error;
    }
  });
}

/** Whether there is a folder at `path`, or a link to one. */
export const isFolder = (path: string): boolean => existsSync(path) && statSync(path).isDirectory();

/** Makes the folder that `path` lies in, where it is missing. UserError as of `makeFolder`. */
export function makeFolderOf(path: string): void {
  const folder = dirname(path);
  if (folder !== path && !existsSync(folder)) makeFolder(folder);
}

/** Writes a file whole or not at all; the folders above it are made. UserError as of `onDisk`. */
export function writeWhole(path: string, text: string): void {
  makeFolderOf(path);
  onDisk(path, () => {
    writeFileSync(`${path}.tmp`, text);
    renameSync(`${path}.tmp`, path);
  });
}
