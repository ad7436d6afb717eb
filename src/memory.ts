// How much memory there is for this process.

import { totalmem } from 'node:os';

/** Bytes of the machine or, within a container that has less, of that. */
export function memoryBytes(): number {
  // 0, or more than there is, where nothing limits it
  const limit = process.constrainedMemory();
  return limit > 0 ? Math.min(limit, totalmem()) : totalmem();
}
