// node:fs over the files of files.ts: the calls that reading and writing model folders make. Only files in
// memory can be read at once.

import { fileAt, isFolderAt, makeFolderAt, moveTo, namesIn, putFile } from '../files.ts';
import { bytesSource } from '../sources.ts';

/** The error of Node for a path that leads nowhere. */
export const missing = (path: string): Error => Object.assign(new Error(`ENOENT: no such file or directory: ${path}`), { code: 'ENOENT' });

export const existsSync = (path: string): boolean => fileAt(path) !== undefined || isFolderAt(path);

export interface Stats {
  size: number;
  isFile(): boolean;
  isDirectory(): boolean;
}

export function statsOf(path: string): Stats | undefined {
  const file = fileAt(path);
  if (!file && !isFolderAt(path)) return undefined;
  return { size: file?.size ?? 0, isFile: () => file !== undefined, isDirectory: () => file === undefined };
}

export function statSync(path: string, { throwIfNoEntry = true } = {}): Stats | undefined {
  const stats = statsOf(path);
  if (!stats && throwIfNoEntry) throw missing(path);
  return stats;
}

export function readdirSync(path: string): string[] {
  if (!isFolderAt(path)) throw missing(path);
  return namesIn(path);
}

export function readFileSync(path: string): string {
  const bytes = fileAt(path)?.bytes;
  if (!bytes) throw missing(path);
  return new TextDecoder().decode(bytes);
}

export const mkdirSync = makeFolderAt;
export const renameSync = moveTo;
export const writeFileSync = (path: string, text: string): void => putFile(path, bytesSource(new TextEncoder().encode(text)));
