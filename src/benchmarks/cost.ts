// What an evaluation took.

import { existsSync } from 'node:fs';
import { z } from 'zod';
import { readJson } from './files.ts';

const costSchema = z.object({
  /** Under all conditions. */
  answers: z.number(),
  /** Of prompts, pictures included, and of answers; 0 where a server does not say. */
  promptTokens: z.number(),
  tokens: z.number(),
  /** Of answering, a batch's time being shared by its answers. */
  seconds: z.number(),
  /** In MB of 2^20 bytes, the most of all sessions. */
  peakRssMb: z.number(),
});

export type Cost = z.infer<typeof costSchema>;

/** Undefined where there is none yet. */
export const readCost = (path: string): Cost | undefined =>
  existsSync(path) ? readJson(path, costSchema, 'the cost of an evaluation') : undefined;
