// Where files are looked for.

import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { UserError } from './errors.ts';

/** The model that is in this package, and is used where no other is named. */
export const bundledModel = 'assets/models/tiny-llava';

const packageRoot = fileURLToPath(new URL('..', import.meta.url));

/**
 * A path that a recipe or an option names: from the working directory, or else from this package, so that
 * `assets/...` and `recipes/...` are found wherever a command is run. UserError where there is nothing; it
 * begins with `field`, which named the path.
 */
export function resolvePath(path: string, field: string): string {
  if (existsSync(path)) return path;
  const packaged = join(packageRoot, path);
  if (existsSync(packaged)) return packaged;
  throw new UserError(`${field}: there is nothing at ${path}`);
}
