// The next batches are prepared while the present one computes. `run` of ONNX Runtime blocks the thread that
// calls it, so the data of a stage come from a thread of their own. What they are is decided by the source's
// description alone: the thread changes when a batch is made, never what is in it.

import type { Communicator } from '../mpi/communicator.ts';
import type { BatchSource, MicroBatch } from './batch.ts';
import { type BatchShare, batchShare } from './processes.ts';
import type { SourceDescription } from './source.ts';
import type { StageData } from './stage.ts';
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
 * The batches of step after step, each step `accumulation` of them or this process's share, until
 * `totalSteps`. `ahead` batches behind the one that is taken are always asked for, across steps too: no more
 * are in memory.
 */
export function prefetchedBatches(
  source: Pick<BatchSource, 'batch'>,
  { accumulation, totalSteps, share, ahead = 1 }: { accumulation: number; totalSteps: number; share?: BatchShare; ahead?: number },
): (step: number) => AsyncGenerator<MicroBatch> {
  const { first, count } = share ?? { first: 0, count: accumulation };
  const asked = new Map<number, Promise<MicroBatch>>();
  /** The next batch of this process: of this step, or the first of its share in the next. */
  const following = (index: number) => (index % accumulation < first + count - 1 ? index + 1 : index + 1 + accumulation - count);
  const ask = (index: number) => {
    if (asked.has(index)) return;
    const batch = source.batch(index);
    batch.catch(() => {});
    asked.set(index, batch);
  };
  return async function* batches(step) {
    const start = step * accumulation + first;
    for (let index = start; index < start + count; index++) {
      ask(index);
      const batch = asked.get(index)!;
      asked.delete(index);
      for (let next = following(index), i = 0; i < ahead && next < totalSteps * accumulation; next = following(next), i++) ask(next);
      yield await batch;
    }
  };
}

/** The data of a stage whose scenes or texts are made afresh at each step: the whole stage is one pass. */
export function freshData(
  source: Pick<BatchSource, 'batch'>,
  { accumulation, totalSteps, communicator }: { accumulation: number; totalSteps: number; communicator: Communicator },
): StageData {
  const share = batchShare(communicator, accumulation);
  return { stepsPerEpoch: totalSteps, batches: prefetchedBatches(source, { accumulation, totalSteps, share }) };
}
