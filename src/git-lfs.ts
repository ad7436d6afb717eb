// What git leaves in place of a large file where git-lfs is missing or its files were not fetched: a small
// text with the file's digest and size (git-lfs docs/spec.md).

import { UserError } from './errors.ts';

const POINTER = /^version https:\/\/git-lfs\.github\.com\/spec\/v1\n(?:.*\n)*?size (\d+)\n/;

/** Throws a UserError that names the file if `start`, how it begins, is such a pointer. */
export function refusePointer(start: Uint8Array | string, path: string): void {
  const text = typeof start === 'string' ? start.slice(0, 512) : new TextDecoder().decode(start.subarray(0, 512));
  const size = POINTER.exec(text)?.[1];
  if (size !== undefined)
    throw new UserError(
      `${path}: this is only git-lfs's pointer to a file of ${size} bytes: run "git lfs pull" in its folder, or download the file itself`,
    );
}
