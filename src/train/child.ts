// Work in a process of its own: its memory is given back when it ends, others may run beside it, and it ends
// with the process that started it, however that ends. The other side is child-side.ts.

import { type ChildProcess, fork } from 'node:child_process';
import { UserError } from '../errors.ts';
import type { Progress } from '../runs/status.ts';
import { NotFiniteError } from './optimizer.ts';

/** What work took, from the start of its process to its end. */
export interface Usage {
  seconds: number;
  cpuSeconds: number;
  peakRssMb: number;
}

/** What the process is told. */
export type ToChild<Work> = { work: Work } | { stop: true };

/** How far it is: a step of a stage, or what is being done. */
export type ChildProgress = Progress | string;

/** How work ends that was not stopped. */
export type ChildEnd<Result> = ({ result: Result } | { error: ErrorMessage }) & { usage: Usage };

/** What it says. */
export type FromChild<Result> = { progress: ChildProgress } | { soFar: Usage } | { stopped: true } | ChildEnd<Result>;

/** An error in values that pass between processes. */
export interface ErrorMessage {
  message: string;
  stack?: string;
  kind: keyof typeof errorClasses;
}

export interface ChildOptions {
  /** Aborted: the work saves what it has and ends, and the reason is thrown. */
  signal: AbortSignal;
  onProgress?: (progress: ChildProgress) => void;
  /** Told every few seconds, and at the end, what the work has taken so far. */
  onUsage?: (usage: Usage) => void;
}

/** The work is as it should be, and the machine is not: a full disk, a folder that another run has. */
export class MachineError extends Error {
  override name = 'MachineError';
}

const errorClasses = { user: UserError, 'not-finite': NotFiniteError, machine: MachineError, other: Error };

/** An error of the work, in this process. */
export function errorOf({ kind, message, stack }: ErrorMessage): Error {
  const error = new errorClasses[kind](message);
  // of what nobody foresaw, where it was
  if (kind === 'other' && stack !== undefined) error.stack = stack;
  return error;
}

/** Characters of stderr that are kept, for a process that ends without a word. */
const KEPT = 4000;

/**
 * Has the process in `file` do `work`. `name` is what messages call it. Throws the signal's reason, and
 * MachineError where the process ends without a word; what goes wrong in the work is in what is returned.
 */
export async function workInChild<Work, Result>(
  file: URL,
  name: string,
  work: Work,
  { signal, onProgress, onUsage }: ChildOptions,
): Promise<ChildEnd<Result>> {
  signal.throwIfAborted();
  // a Ctrl-C reaches all processes of a terminal: this one passes it on, and the child heeds only that
  const child = fork(file, { execArgv: [], stdio: ['ignore', 'ignore', 'pipe', 'ipc'] });
  let said = '';
  child.stderr!.setEncoding('utf8').on('data', (text: string) => {
    said = (said + text).slice(-KEPT);
  });
  const tell = (message: ToChild<Work>) => child.connected && child.send(message, () => {});
  const stop = () => tell({ stop: true });
  signal.addEventListener('abort', stop, { once: true });
  try {
    const ended = endOf<Result>(child, { onProgress, onUsage });
    tell({ work });
    const { last, how } = await ended;
    if (last === undefined) throw new MachineError(`${name} ended without a word: ${lastLine(said) ?? how}`);
    if (!('stopped' in last)) return last;
    signal.throwIfAborted();
    throw new Error(`${name} was stopped`);
  } finally {
    signal.removeEventListener('abort', stop);
  }
}

/** The last thing that the process said, once it is gone, and how it went. */
function endOf<Result>(child: ChildProcess, { onProgress, onUsage }: Pick<ChildOptions, 'onProgress' | 'onUsage'>) {
  type Last = Exclude<FromChild<Result>, { progress: unknown } | { soFar: unknown }>;
  return new Promise<{ last: Last | undefined; how: string }>((resolve, reject) => {
    let last: Last | undefined;
    child.on('message', (message: FromChild<Result>) => {
      if ('progress' in message) onProgress?.(message.progress);
      else if ('soFar' in message) onUsage?.(message.soFar);
      else last = message;
    });
    child.on('error', reject);
    child.on('close', (code, signal) => resolve({ last, how: signal ? killedBy(signal) : `its code was ${code}` }));
  });
}

const killedBy = (signal: string) => `it was ended by ${signal}${signal === 'SIGKILL' ? ', or the machine has run out of memory' : ''}`;

/** The last line that says what was wrong: Node ends with where it was, and with its version. */
const lastLine = (said: string): string | undefined => said.split('\n').findLast((line) => /^(?!Node\.js v)\S/.test(line));
