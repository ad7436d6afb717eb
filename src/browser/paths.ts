// In place of src/paths.ts: a browser has no folders to look things up in.

import { UserError } from '../errors.ts';
import { existsSync } from './node/fs.ts';

export const hubAdvice = (_path: string): string => '';

export const whyMissing = (_path: string): string | undefined => undefined;

/** The path of what is there. UserError, beginning with `field`, where there is nothing. */
export function resolvePath(path: string, field: string): string {
  if (existsSync(path)) return path;
  throw new UserError(`${field}: there is nothing at ${path}`);
}
