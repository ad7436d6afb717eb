// Where files are looked up.

import { existsSync, readlinkSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { systemReason, UserError } from './errors.ts';

/** The model bundled with this package, used where no other is named. */
export const bundledModel = 'assets/models/tiny-llava';

/** The encoder that it was made with, and its text tower. */
export const bundledEncoder = 'assets/models/tiny-clip';

const packageRoot = fileURLToPath(new URL('..', import.meta.url));

/**
 * What else a path that leads nowhere may be: the name of a model on the hub, perhaps one that was
 * downloaded. Names of folders that everybody has are none.
 */
export function hubAdvice(path: string): string {
  if (!/^[\w-][\w.-]*\/[\w-][\w.-]*$/.test(path) || /^(models|runs|data)\/|\.(ya?ml|json)$/.test(path)) return '';
  const pulled = join('models', path);
  return existsSync(pulled)
    ? `; it was pulled to ${pulled}`
    : `; a model of that name on the hub is downloaded by: llava-gemma pull ${path}`;
}

/**
 * Why a path leads to nothing, where there is more to say: a link without its target, a folder that may not
 * be read.
 */
export function whyMissing(path: string): string | undefined {
  try {
    statSync(path);
    return undefined;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') return systemReason(error);
  }
  try {
    return `it is a link to ${readlinkSync(path)}, where nothing is`;
  } catch {
    return undefined;
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
  const reason = whyMissing(path);
  throw new UserError(reason === undefined ? `${field}: there is nothing at ${path}${hubAdvice(path)}` : `${field}: ${path}: ${reason}`);
}
