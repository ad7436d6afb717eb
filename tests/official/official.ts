// The official outputs and scores that the benchmarks are checked against: data of other projects, which is
// not part of this one. LLAVA_GEMMA_OFFICIAL names the folder; tests that need it are skipped without.

import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe } from 'vitest';
import { root } from '../structure.ts';

export const officialFolder = process.env.LLAVA_GEMMA_OFFICIAL ?? join(root, '..', 'shared', 'official');

/** Path of an official file. */
export const official = (...path: string[]) => join(officialFolder, ...path);

/** The scores that a benchmark's official files must give. */
// biome-ignore lint/suspicious/noExplicitAny: each file has a form of its own
export const expectedOf = (benchmark: string): any => JSON.parse(readFileSync(official(benchmark, 'expected.json'), 'utf8'));

/** Tests that are skipped where the official files are absent. */
export const describeOfficial = describe.skipIf(!existsSync(officialFolder));
