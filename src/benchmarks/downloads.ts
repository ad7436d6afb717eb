// What of a benchmark's downloads is there.

import { readdirSync, statSync } from 'node:fs';
import { onDisk } from '../disk.ts';
import type { Benchmark, BenchmarkFile } from './benchmark.ts';
import { firstOf } from './files.ts';
import { folderOf } from './score.ts';

export interface Download extends BenchmarkFile {
  /** Where it was found; undefined where it is missing, or where nothing was looked for. */
  found?: string;
  /** Files in a folder that has fewer than it should have. */
  only?: number;
}

/** The downloads of a benchmark; with `data`, each with what of it is there. */
export function downloadsOf(benchmark: Benchmark, data?: string): Download[] {
  if (data === undefined) return [...benchmark.files];
  const folder = folderOf(benchmark, data);
  return benchmark.files.map((file) => {
    const found = firstOf(folder, file.places);
    if (found === undefined || file.count === undefined) return { ...file, found };
    // a single file that holds them all is whole or cannot be read
    const count = onDisk(found, () => (statSync(found).isDirectory() ? readdirSync(found).length : file.count!));
    return { ...file, found, only: count < file.count ? count : undefined };
  });
}

/** Whether all that scoring, or asking, needs is there. */
export const isReady = (downloads: readonly Download[], need: BenchmarkFile['needed']): boolean =>
  downloads.every(({ needed, found, only }) => (needed !== 'score' && needed !== need) || (found !== undefined && only === undefined));
