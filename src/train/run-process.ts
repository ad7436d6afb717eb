// A run in a process of its own: its memory is given back when it ends, others may run beside it, and it ends
// with the process that started it.

import { type ChildProcess, fork } from 'node:child_process';
import { UserError } from '../errors.ts';
import type { RunMode, RunSummary } from '../runs/folder.ts';
import { NotFiniteError } from './optimizer.ts';
import type { Recipe } from './recipe.ts';
import { threadFile } from './thread.ts';

export interface ProcessRun {
  recipe: Recipe;
  title: string;
  out: string;
  mode: RunMode;
  /** Threads that compute; all cores when left out. */
  threads?: number;
}

/** What the process is told. */
export type ToRun = { run: ProcessRun } | { stop: true };

/** What it says: how far it is, and how it ended. */
export type FromRun =
  | { progress: string }
  | { summary: RunSummary }
  | { stopped: true }
  | { error: { message: string; kind: 'user' | 'not-finite' | 'machine' | 'other' } };

export interface ProcessRunOptions {
  /** Aborted: the run saves its step and ends, and its reason is thrown. */
  signal: AbortSignal;
  onProgress?: (line: string) => void;
}

/** Characters of stderr that are kept, for a process that ends without a word. */
const KEPT = 2000;

/** The run is as it should be, and the machine is not: a full disk, a folder that another run has. */
export class MachineError extends Error {
  override name = 'MachineError';
}

const errorClasses = { user: UserError, 'not-finite': NotFiniteError, machine: MachineError, other: Error };

/**
 * Trains in another process. Throws the run's own error: NotFiniteError, UserError, MachineError, or another
 * Error where it is unexpected.
 */
export async function trainInProcess(run: ProcessRun, { signal, onProgress }: ProcessRunOptions): Promise<RunSummary> {
  signal.throwIfAborted();
  const child = fork(threadFile('run-process-entry'), { execArgv: [], stdio: ['ignore', 'ignore', 'pipe', 'ipc'] });
  let said = '';
  child.stderr!.setEncoding('utf8').on('data', (text: string) => {
    said = (said + text).slice(-KEPT);
  });
  const tell = (message: ToRun) => child.connected && child.send(message);
  const stop = () => tell({ stop: true });
  signal.addEventListener('abort', stop, { once: true });
  try {
    const ended = endOf(child, onProgress);
    tell({ run });
    const last = await ended;
    if (last === undefined || 'progress' in last) throw new MachineError(`the run in ${run.out} ended without a word${lastLine(said)}`);
    if ('summary' in last) return last.summary;
    if ('stopped' in last) {
      signal.throwIfAborted();
      throw new Error(`the run in ${run.out} was stopped`);
    }
    const { kind, message } = last.error;
    throw new errorClasses[kind](message);
  } finally {
    signal.removeEventListener('abort', stop);
  }
}

/** The last thing that the process said, once it is gone. */
function endOf(child: ChildProcess, onProgress: ProcessRunOptions['onProgress']): Promise<FromRun | undefined> {
  return new Promise((resolve, reject) => {
    let last: FromRun | undefined;
    child.on('message', (message: FromRun) => {
      last = message;
      if ('progress' in message) onProgress?.(message.progress);
    });
    child.on('error', reject);
    child.on('close', () => resolve(last));
  });
}

function lastLine(said: string): string {
  const line = said.trimEnd().split('\n').at(-1);
  return line ? `: ${line}` : '; it was killed, or the machine has run out of memory';
}
