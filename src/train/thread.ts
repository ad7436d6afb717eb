// Threads of ours: each does one thing after another that it is asked for, and says what went wrong in the
// words that it would have without it.

import { Worker } from 'node:worker_threads';
// sharp must be loaded in the main thread before a thread of ours loads it:
// sharp.pixelplumbing.com/install#worker-threads
import 'sharp';
import { UserError } from '../errors.ts';

export interface Request {
  id: number;
  method: string;
  parameters: unknown[];
}

/** What went wrong, in values that pass between threads. */
export interface Failure {
  message: string;
  stack?: string;
  /** Whether it was a UserError. */
  user: boolean;
}

export type Answer = { id: number; value: unknown } | { id: number; failure: Failure };

/** A file of this folder that a thread runs. Node 20 runs no TypeScript: tests start what was built. */
export function threadFile(name: string): URL {
  return import.meta.url.endsWith('.ts')
    ? new URL(`../../dist/train/${name}.js`, import.meta.url)
    : new URL(`./${name}.js`, import.meta.url);
}

export interface Thread {
  /**
   * What `method` gives for the parameters. Errors are those of the method, UserErrors among them; UserError
   * when the thread dies.
   */
  call(method: string, ...parameters: unknown[]): Promise<unknown>;
  /** Ends the thread, whatever it is doing, and fails calls that are under way. */
  close(): Promise<void>;
}

/** A thread died: nothing of what it was asked for is to blame. */
export class ThreadDied extends UserError {}

interface Waiting {
  resolve(value: unknown): void;
  reject(error: Error): void;
}

function errorOf({ message, stack, user }: Failure): Error {
  const error = user ? new UserError(message) : new Error(message);
  if (!user && stack !== undefined) error.stack = stack;
  return error;
}

/** Starts a thread that runs `file`; errors call it `name`. */
export function startThread(file: URL, name: string): Thread {
  const worker = new Worker(file);
  // it keeps the process from ending only while somebody waits for it
  worker.unref();
  const waiting = new Map<number, Waiting>();
  let ended: Error | undefined;
  let requests = 0;
  const settle = (id: number, how: (who: Waiting) => void) => {
    const who = waiting.get(id);
    waiting.delete(id);
    if (waiting.size === 0) worker.unref();
    if (who) how(who);
  };
  const end = (reason: Error) => {
    ended ??= reason;
    for (const id of [...waiting.keys()]) settle(id, ({ reject }) => reject(ended!));
  };
  worker.on('message', (answer: Answer) =>
    settle(answer.id, ({ resolve, reject }) => ('failure' in answer ? reject(errorOf(answer.failure)) : resolve(answer.value))),
  );
  const died = (how: string, cause?: unknown) => end(new ThreadDied(`${name} ${how}`, { cause }));
  worker.on('error', (error) => died(`failed: ${error.message}`, error));
  worker.on('exit', (code) => died(`ended with code ${code}`));
  return {
    call(method, ...parameters) {
      if (ended) return Promise.reject(ended);
      const id = requests++;
      const answered = new Promise<unknown>((resolve, reject) => waiting.set(id, { resolve, reject }));
      // it may fail long before anybody looks
      answered.catch(() => {});
      worker.ref();
      worker.postMessage({ id, method, parameters } satisfies Request);
      return answered;
    },
    async close() {
      end(new Error(`${name} was closed`));
      // closes the files that the thread opened, too
      await worker.terminate();
    },
  };
}
