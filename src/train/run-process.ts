// A run in a process of its own.

import type { RunMode, RunSummary } from '../runs/folder.ts';
import { formatProgress } from '../runs/status.ts';
import { errorOf, workInChild } from './child.ts';
import type { Recipe } from './recipe.ts';
import { threadFile } from './thread.ts';

export interface ProcessRun {
  recipe: Recipe;
  title: string;
  out: string;
  mode: RunMode;
  /** Threads that compute; all cores when left out. */
  threads?: number;
  /** Whether generated scenes are there as they should be. */
  scenesAreDrawn?: boolean;
}

export interface ProcessRunOptions {
  /** Aborted: the run saves its step and ends, and its reason is thrown. */
  signal: AbortSignal;
  onProgress?: (line: string) => void;
}

/**
 * Trains in another process. Throws the run's own error: NotFiniteError, UserError, MachineError, or another
 * Error where it is unexpected.
 */
export async function trainInProcess(run: ProcessRun, { signal, onProgress }: ProcessRunOptions): Promise<RunSummary> {
  const end = await workInChild<ProcessRun, RunSummary>(threadFile('run-process-entry'), `the run in ${run.out}`, run, {
    signal,
    onProgress: (progress) => onProgress?.(typeof progress === 'string' ? progress : formatProgress(progress, undefined)),
  });
  if ('error' in end) throw errorOf(end.error);
  return end.result;
}
