// The folder of a run: recipe.yaml, metrics.jsonl, events.out.tfevents.*, checkpoints/<stage>/,
// samples/<split>.jsonl, summary.json and report.html. It is never overwritten by accident.
import { existsSync, readdirSync, readFileSync, rmSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { makeFolder, onDisk, writeWhole } from '../disk.ts';
import { UserError } from '../errors.ts';
import type { Scores } from '../evaluate/samples.ts';
import { lockPattern } from '../folder-lock.ts';
import { skippedFile } from './skipped.ts';

export interface StageSummary {
  name: string;
  seconds: number;
  steps: number;
  firstLoss: number;
  lastLoss: number;
  /** Samples that were left out, which skipped.jsonl lists; left out where there are none. */
  skipped?: number;
}

/** The results of a whole run: summary.json. */
export interface RunSummary {
  /** Seconds from start to end of the command, summed over all sessions of a resumed run. */
  wallSeconds: number;
  /** Highest resident memory, in MB of 2^20 bytes. */
  peakRssMb: number;
  stages: StageSummary[];
  scores: Scores;
}

export interface RunFolder {
  path: string;
  recipe: string;
  metrics: string;
  summary: string;
  report: string;
  /** Samples that were left out: see skipped.ts. */
  skipped: string;
  /** Where a stage keeps its checkpoint: a Hugging Face folder plus optimizer state. */
  checkpoint(stage: string): string;
  samples(split: string): string;
}

/** The paths in the folder of a run, whether or not there is one. */
export function runFolder(path: string): RunFolder {
  return {
    path,
    recipe: join(path, 'recipe.yaml'),
    metrics: join(path, 'metrics.jsonl'),
    summary: join(path, 'summary.json'),
    report: join(path, 'report.html'),
    skipped: join(path, skippedFile),
    checkpoint: (stage) => join(path, 'checkpoints', stage),
    samples: (split) => join(path, 'samples', `${split}.jsonl`),
  };
}

const runEntries =
  /^(recipe\.yaml|metrics\.jsonl|summary\.json(\.tmp)?|report\.html|skipped\.jsonl|checkpoints|samples|events\.out\.tfevents\..*)$/;

/** What is in a folder, but for the locks of runs. */
const entriesOf = (path: string) => onDisk(path, () => readdirSync(path)).filter((name) => !lockPattern.test(name));

export type RunMode = 'new' | 'overwrite' | 'resume';

/**
 * Throws a UserError if a run may not use the folder: `new` refuses one that holds anything, `overwrite`
 * refuses files that are not from a run, `resume` requires an earlier run.
 */
export function checkRunFolder(path: string, mode: RunMode): void {
  const folder = runFolder(path);
  if (existsSync(path) && !statSync(path).isDirectory()) throw new UserError(`${path} is a file; give a folder for the run with --out`);
  const entries = existsSync(path) ? entriesOf(path) : [];
  if (mode === 'resume') {
    if (!existsSync(folder.recipe))
      throw new UserError(`${path} holds no run to resume (it has no recipe.yaml); leave out --resume to start one`);
    return;
  }
  if (mode === 'new' && entries.length > 0) {
    const advice = existsSync(folder.recipe)
      ? 'give --resume to go on with it, --overwrite to start anew, or another --out'
      : 'give another --out';
    throw new UserError(`${path} is not empty: ${advice}`);
  }
  const foreign = entries.find((name) => !runEntries.test(name));
  if (foreign !== undefined) throw new UserError(`${path} holds ${foreign}, which is not from a run; give another --out`);
}

/**
 * Opens the folder of a run, creating it if absent. `overwrite` removes what an earlier run left there.
 * UserErrors as in `checkRunFolder`.
 */
export function openRunFolder(path: string, mode: RunMode): RunFolder {
  checkRunFolder(path, mode);
  if (mode === 'overwrite' && existsSync(path))
    for (const name of entriesOf(path)) onDisk(join(path, name), () => rmSync(join(path, name), { recursive: true }));
  makeFolder(path);
  return runFolder(path);
}

/** Opens a finished or unfinished run for reading. UserError if `path` is not the folder of a run. */
export function findRunFolder(path: string): RunFolder {
  const folder = runFolder(path);
  if (!existsSync(folder.recipe)) throw new UserError(`${path} is not the folder of a run: it has no recipe.yaml`);
  return folder;
}

/** Writes summary.json atomically. */
export function writeSummary(folder: RunFolder, summary: RunSummary): void {
  writeWhole(folder.summary, `${JSON.stringify(summary, null, 2)}\n`);
}

export function readSummary(folder: RunFolder): RunSummary {
  if (!existsSync(folder.summary)) throw new UserError(`${folder.path} has no summary.json: the run has not ended yet`);
  return JSON.parse(readFileSync(folder.summary, 'utf8')) as RunSummary;
}
