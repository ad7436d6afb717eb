// Room on the disk, asked for before minutes of work end in a full one.
import { existsSync } from 'node:fs';
import { dirname, resolve } from 'node:path';
import { freeBytes } from '../disk.ts';
import { UserError } from '../errors.ts';
import { formatBytes } from './format.ts';

/**
 * Throws UserError where the disk of `folder`, which need not be there yet, has no room for `bytes`; `what`
 * begins the sentence.
 */
export async function checkRoom(folder: string, bytes: number, what: string): Promise<void> {
  let existing = resolve(folder);
  while (!existsSync(existing)) existing = dirname(existing);
  const free = await freeBytes(existing);
  if (free < bytes) throw new UserError(`${folder}: ${what} ${formatBytes(bytes)}, but the disk has ${formatBytes(free)} free`);
}
