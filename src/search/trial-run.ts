// A trial as a run of the ordinary trainer, in a folder of its own, and what it is worth.

import { existsSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { UserError } from '../errors.ts';
import { type RunSummary, readSummary, runFolder } from '../runs/folder.ts';
import { readMetrics } from '../runs/metrics.ts';
import { NotFiniteError } from '../train/optimizer.ts';
import type { Recipe } from '../train/recipe.ts';
import { trainInProcess } from '../train/run-process.ts';
import type { Outcome } from './proposals.ts';
import type { Objective } from './search-schema.ts';

export interface TrialRun {
  recipe: Recipe;
  title: string;
  out: string;
  threads?: number;
  scenesAreDrawn?: boolean;
}

export interface TrialRunOptions {
  signal: AbortSignal;
  onProgress: (line: string) => void;
}

/**
 * Runs a trial to its end, or goes on with it, and judges it. Throws what is no trial's fault: a full disk, a
 * process that was killed, the signal's reason.
 */
export async function runTrial({ recipe, ...run }: TrialRun, objective: Objective, options: TrialRunOptions): Promise<Outcome> {
  const folder = runFolder(run.out);
  try {
    if (!existsSync(folder.summary)) await trainInProcess({ ...run, recipe, mode: existsSync(folder.recipe) ? 'resume' : 'new' }, options);
  } catch (error) {
    if (error instanceof NotFiniteError) return { status: 'diverged', reason: error.message };
    if (!(error instanceof UserError)) throw error;
    return { status: 'failed', reason: error.message };
  }
  const value = objectiveOf(run.out, objective);
  return Number.isFinite(value) ? { status: 'finished', value } : { status: 'diverged', reason: `the objective is ${value}` };
}

/** What a finished run is worth: the last held-out loss, in nats a label, or a share of right answers. */
export function objectiveOf(out: string, objective: Objective): number {
  const folder = runFolder(out);
  if ('held_out' in objective) {
    const events = readMetrics(folder.metrics).filter((event) => event.type === 'held-out' && event.stage === objective.held_out);
    const last = events.at(-1);
    return last?.type === 'held-out' ? (last.loss ?? Number.NaN) : Number.NaN;
  }
  return accuracyOf(readSummary(folder), objective);
}

function accuracyOf({ scores }: RunSummary, { accuracy: split, task }: Extract<Objective, { accuracy: string }>): number {
  const tasks = scores[split] ?? {};
  if (task !== undefined && !(task in tasks))
    throw new UserError(`objective.task: ${split} has no task ${task}; it has ${Object.keys(tasks).join(', ')}`);
  const judged = task === undefined ? Object.values(tasks) : [tasks[task]];
  return judged.reduce((sum, { correct }) => sum + correct, 0) / judged.reduce((sum, { n }) => sum + n, 0);
}

/** Removes what a trial was trained to. Its metrics and scores stay. */
export const forgetWeights = (out: string): void => rmSync(join(out, 'checkpoints'), { recursive: true, force: true });
