// skipped.jsonl: the samples that a run has left out, one a line and each once, however often a run that is
// resumed meets it.

import { appendFileSync, existsSync, readFileSync, truncateSync } from 'node:fs';
import { onDisk } from '../disk.ts';

export const skippedFile = 'skipped.jsonl';

/** A line of the file. */
export interface SkippedSample {
  stage: string;
  file: string;
  /** Its id, and its place in the file, from 0. */
  sample: string;
  position: number;
  image?: string;
  reason: string;
}

export interface SkippedLog {
  /** Adds samples that are not there yet. UserError where the disk is full or the file cannot be written. */
  add(samples: readonly SkippedSample[]): void;
  /** How many samples of a stage are there. */
  count(stage: string): number;
}

/** Samples are told apart by stage and place, since ids may be the same. */
const keyOf = ({ stage, file, position }: SkippedSample) => JSON.stringify([stage, file, position]);

/** Opens the list at `path`, which need not be there yet. */
export function openSkipped(path: string): SkippedLog {
  const counts = new Map<string, number>();
  const known = new Set<string>();
  const isNew = (sample: SkippedSample) => {
    if (known.has(keyOf(sample))) return false;
    known.add(keyOf(sample));
    counts.set(sample.stage, (counts.get(sample.stage) ?? 0) + 1);
    return true;
  };
  const written = existsSync(path) ? onDisk(path, () => readFileSync(path, 'utf8')) : '';
  // a run that was killed may have left half a line
  const whole = written.slice(0, written.lastIndexOf('\n') + 1);
  for (const line of whole.split('\n')) if (line !== '') isNew(JSON.parse(line) as SkippedSample);
  if (whole.length < written.length) onDisk(path, () => truncateSync(path, Buffer.byteLength(whole)));
  return {
    add(samples) {
      const lines = samples.filter(isNew).map((sample) => `${JSON.stringify(sample)}\n`);
      if (lines.length === 0) return;
      onDisk(path, () => appendFileSync(path, lines.join('')));
    },
    count: (stage) => counts.get(stage) ?? 0,
  };
}
