// Where an export is put: nothing that is there is replaced.

import { existsSync, lstatSync, readdirSync, realpathSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { onDisk } from '../disk.ts';
import { UserError } from '../errors.ts';

/**
 * The place of the folder `path`, which must be new or empty: where it is a link, what that leads to.
 * UserError where it holds something, or cannot be put in place as a whole when it is complete: the folder
 * that this process runs in, and one where a disk begins.
 */
export function newFolder(path: string): string {
  const found = lstatSync(path, { throwIfNoEntry: false });
  if (!found) return path;
  if (!existsSync(path)) throw new UserError(`${path} is a link to what is not there; give a folder`);
  const place = found.isSymbolicLink() ? realpathSync(path) : path;
  if (!statSync(place).isDirectory()) throw new UserError(`${path} is a file; give a folder`);
  const [first] = onDisk(path, () => readdirSync(place));
  if (first !== undefined) throw new UserError(`${path} holds ${first}; give a folder that is new or empty`);
  const at = realpathSync(place);
  if (at === realpathSync('.')) throw new UserError(`${path} is the folder that this runs in, which cannot be replaced; give one in it`);
  if (statSync(at).dev !== statSync(join(at, '..')).dev)
    throw new UserError(`${path} is where a disk begins, which cannot be replaced; give a folder in it`);
  return place;
}

/** UserError for no types, or one that the software does not have. */
export function checkDtypes(dtypes: readonly string[], known: readonly string[]): void {
  const unknown = dtypes.find((name) => !known.includes(name));
  if (unknown !== undefined) throw new UserError(`dtypes: there is no ${JSON.stringify(unknown)}, but ${known.join(', ')}`);
  if (dtypes.length === 0) throw new UserError(`dtypes: give one or more of ${known.join(', ')}`);
}
