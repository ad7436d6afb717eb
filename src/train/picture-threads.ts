// Decoding and resizing pictures in several threads. What a picture becomes depends on its file alone, so
// that the number of threads changes no bit.

import type { ImageProcessorConfig } from '../images/processor.ts';
import { pixelValuesOf } from '../pretrained/processor.ts';
import { startThread, type Thread, threadFile } from './thread.ts';

export interface PictureReader {
  /**
   * Pixel values of a picture, float32 [3 * height * width]; `bytes` are those of its file, if it was read.
   * UserError where it is missing, no picture or damaged; ThreadDied where a thread died.
   */
  read(path: string, bytes?: Uint8Array): Promise<Float32Array>;
  close(): Promise<void>;
}

/**
 * Reads pictures as `processor` says, in `threads` threads that run `file`; a single one is the thread that
 * asks.
 */
export function openPictureReader(processor: ImageProcessorConfig, threads: number, file = threadFile('picture-thread')): PictureReader {
  if (threads === 1) return { read: (path, bytes) => pixelValuesOf([path], processor, bytes && [bytes]), close: async () => {} };
  const started: Thread[] = [];
  const idle: Thread[] = [];
  const queue: ((thread: Thread) => void)[] = [];
  /** A thread that has nothing to do; they are started as they are needed. */
  const take = (): Promise<Thread> | Thread => {
    if (idle.length === 0 && started.length < threads) {
      const thread = startThread(file, 'a thread that decodes pictures');
      started.push(thread);
      return thread;
    }
    return idle.pop() ?? new Promise((resolve) => queue.push(resolve));
  };
  const giveBack = (thread: Thread) => {
    const next = queue.shift();
    if (next) next(thread);
    else idle.push(thread);
  };
  return {
    async read(path, bytes) {
      const thread = await take();
      try {
        return (await thread.call('read', path, processor, bytes)) as Float32Array;
      } finally {
        giveBack(thread);
      }
    },
    async close() {
      await Promise.all(started.map((thread) => thread.close()));
    },
  };
}
