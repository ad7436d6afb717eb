// The next batch is prepared while the present one computes. `run` of ONNX Runtime blocks the thread that
// calls it, so the data of a stage come from a thread of their own. What they are is decided by the source's
// description alone: the thread changes when a batch is made, never what is in it.

import { Worker } from 'node:worker_threads';
// sharp must be loaded in the main thread before a thread of ours loads it:
// sharp.pixelplumbing.com/install#worker-threads
import 'sharp';
import { UserError } from '../errors.ts';
import type { BatchSource, MicroBatch } from './batch.ts';
import type { BatchShare } from './processes.ts';
import type { SourceDescription } from './source.ts';
import type { Answer, Failure, Request } from './source-thread.ts';

/** Node 20 runs no TypeScript: tests, which run the sources, start the thread that was built from them. */
const threadFile = import.meta.url.endsWith('.ts')
  ? new URL('../../dist/train/source-thread.js', import.meta.url)
  : new URL('./source-thread.js', import.meta.url);

/** The thread of a run, which has one source open at a time. */
export interface SourceThread {
  /**
   * Opens the source of a stage. Errors are those of the source, UserErrors among them, thrown by the call
   * that they belong to; a source that cannot be opened fails the first call. UserError when the thread dies.
   * `close` never fails.
   */
  open(description: SourceDescription): BatchSource;
  /** Ends the thread, whatever it is doing, and fails calls that are under way. */
  close(): Promise<void>;
}

interface Waiting {
  resolve(value: unknown): void;
  reject(error: Error): void;
}

function errorOf({ message, stack, user }: Failure): Error {
  const error = user ? new UserError(message) : new Error(message);
  if (!user && stack !== undefined) error.stack = stack;
  return error;
}

/** Starts the thread; `file` is what it runs. */
export function startSourceThread(file = threadFile): SourceThread {
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
  const died = (how: string, cause?: unknown) => end(new UserError(`the thread that prepares the data ${how}`, { cause }));
  worker.on('error', (error) => died(`failed: ${error.message}`, error));
  worker.on('exit', (code) => died(`ended with code ${code}`));
  const call = (method: Request['method'], ...parameters: unknown[]): Promise<unknown> => {
    if (ended) return Promise.reject(ended);
    const id = requests++;
    const answered = new Promise<unknown>((resolve, reject) => waiting.set(id, { resolve, reject }));
    // it may fail long before anybody looks
    answered.catch(() => {});
    worker.ref();
    worker.postMessage({ id, method, parameters } satisfies Request);
    return answered;
  };
  return {
    open(description) {
      call('open', description);
      return {
        batch: (index) => call('batch', index) as ReturnType<BatchSource['batch']>,
        pictures: () => call('pictures') as ReturnType<BatchSource['pictures']>,
        keep: (keys, features) => call('keep', keys, features) as ReturnType<BatchSource['keep']>,
        // what went wrong was said by the call that failed
        close: () =>
          call('close').then(
            () => {},
            () => {},
          ),
      };
    },
    async close() {
      end(new Error('the thread that prepares the data was closed'));
      // closes the files that the thread opened, too
      await worker.terminate();
    },
  };
}

/**
 * The batches of step after step, each step `accumulation` of them or this process's share, until
 * `totalSteps`. One batch more than the one that is taken is always asked for, across steps too: no more than
 * these two are in memory.
 */
export function prefetchedBatches(
  source: Pick<BatchSource, 'batch'>,
  { accumulation, totalSteps, share }: { accumulation: number; totalSteps: number; share?: BatchShare },
): (step: number) => AsyncGenerator<MicroBatch> {
  const { first, count } = share ?? { first: 0, count: accumulation };
  let next: { index: number; batch: Promise<MicroBatch> } | undefined;
  const ask = (index: number) => {
    const batch = source.batch(index);
    batch.catch(() => {});
    return { index, batch };
  };
  return async function* batches(step) {
    const start = step * accumulation + first;
    for (let index = start; index < start + count; index++) {
      const { batch } = next?.index === index ? next : ask(index);
      const following = index + 1 < start + count ? index + 1 : start + accumulation;
      next = following < totalSteps * accumulation ? ask(following) : undefined;
      yield await batch;
    }
  };
}
