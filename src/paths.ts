// Where files are looked up.

import { existsSync, readlinkSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { systemReason, UserError } from './errors.ts';

/** The model bundled with this package, used where no other is named. */
export const bundledModel = 'assets/models/tiny-llava';

const packageRoot = fileURLToPath(new URL('..', import.meta.url));

/**
 * What else a path that leads nowhere may be: the name of a model on the hub, perhaps one that was
 * downloaded.
 */
export function hubAdvice(path: string): string {
  if (!/^[\w-][\w.-]*\/[\w-][\w.-]*$/.test(path) || /\.(ya?ml|json)$/.test(path)) return '';
  const pulled = join('models', path);
  return existsSync(pulled)
    ? `; it was pulled to ${pulled}`
    : `; a model of that name on the hub is downloaded by: llava-gemma pull ${path}`;
}

/** Where a link leads that leads to nothing; undefined for what is no link. */
export function deadLink(path: string): string | undefined {
  try {
    const target = readlinkSync(path);
    if (statSync(path, { throwIfNoEntry: false })) return undefined;
    return `it is a link to ${target}, where nothing is`;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'ELOOP' ? systemReason(error) : undefined;
  }
}

/**
 * Resolves a path that a recipe or an option names: first from the working directory, then from this package,
 * so that `assets/...` and `recipes/...` are found wherever a command is run. Throws a UserError that begins
 * with `field`, which named the path, if nothing is there.
 */
export function resolvePath(path: string, field: string): string {
  if (existsSync(path)) return path;
  const packaged = join(packageRoot, path);
  if (existsSync(packaged)) return packaged;
  const dead = deadLink(path);
  throw new UserError(dead === undefined ? `${field}: there is nothing at ${path}${hubAdvice(path)}` : `${field}: ${path}: ${dead}`);
}
