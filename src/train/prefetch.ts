// The next batches are prepared while the present one computes. `run` of ONNX Runtime blocks the thread that
// calls it, so the data of a stage come from a thread of their own. What they are is decided by the source's
// description alone: the thread changes when a batch is made, never what is in it.

import type { BatchSource, MicroBatch } from './batch.ts';
import type { SourceDescription } from './source.ts';
import { startThread, threadFile } from './thread.ts';

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

/** Starts the thread; `file` is what it runs. */
export function startSourceThread(file = threadFile('source-thread')): SourceThread {
  const { call, close } = startThread(file, 'the thread that prepares the data');
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
    close,
  };
}

/**
 * The batches of step after step, each step `accumulation` of them, until `totalSteps`. `ahead` batches
 * behind the one that is taken are always asked for, across steps too: no more are in memory.
 */
export function prefetchedBatches(
  source: Pick<BatchSource, 'batch'>,
  { accumulation, totalSteps, ahead = 1 }: { accumulation: number; totalSteps: number; ahead?: number },
): (step: number) => AsyncGenerator<MicroBatch> {
  const asked = new Map<number, Promise<MicroBatch>>();
  const following = (index: number) => index + 1;
  const ask = (index: number) => {
    if (asked.has(index)) return;
    const batch = source.batch(index);
    batch.catch(() => {});
    asked.set(index, batch);
  };
  return async function* batches(step) {
    for (let index = step * accumulation; index < (step + 1) * accumulation; index++) {
      ask(index);
      const batch = asked.get(index)!;
      asked.delete(index);
      for (let next = following(index), i = 0; i < ahead && next < totalSteps * accumulation; next = following(next), i++) ask(next);
      yield await batch;
    }
  };
}
