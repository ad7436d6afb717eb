// What a file was when it was read first, for those who read it again by its path: another one may be there.

import type { Stats } from 'node:fs';
import { UserError } from './errors.ts';

export const stampOf = ({ dev, ino, size, mtimeMs }: Pick<Stats, 'dev' | 'ino' | 'size' | 'mtimeMs'>): string =>
  [dev, ino, size, mtimeMs].join(':');

export const changedSince = (path: string) => new UserError(`${path}: has changed since it was read; start again`);

/** UserError where the file at `path` is no longer the one that had this stamp. */
export function checkStamp(path: string, stats: Parameters<typeof stampOf>[0], stamp: string | undefined): void {
  if (stamp !== undefined && stampOf(stats) !== stamp) throw changedSince(path);
}
