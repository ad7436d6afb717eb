// In place of src/pretrained/scratch.ts: in a browser, all weights are in memory.

import type { Scratch } from '../pretrained/scratch.ts';

export type { Scratch } from '../pretrained/scratch.ts';

export const MEMORY_LIMIT = Number.POSITIVE_INFINITY;

export const ALIGNMENT = 64;

export function createScratch(): Promise<Scratch> {
  throw new Error('a browser has no file to convert weights in');
}
