// What the processes of a run say to each other: sums of gradients, and little else. One process has nobody
// to speak to.

export interface Communicator {
  /** This process, from 0. */
  readonly rank: number;
  /** Number of processes. */
  readonly size: number;
  /** How many of them run on this one's host, itself included. */
  readonly localSize: number;
  /**
   * Adds up arrays over the processes, in place. Each sum is the same bits everywhere, and with a power of
   * two processes that of a balanced tree over the ranks: (0 + 1) + (2 + 3).
   */
  sum(arrays: readonly Float32Array[]): Promise<void>;
  /** Gives all the array of process `from`, in place. */
  broadcast(array: Float32Array, from: number): Promise<void>;
  /** A few numbers of each process, by rank. */
  share(numbers: readonly number[]): Promise<number[][]>;
  /** What each process gives, by rank, on process 0; nothing elsewhere. */
  gather(bytes: Uint8Array): Promise<Uint8Array[]>;
  barrier(): Promise<void>;
  /**
   * Process 0 does `work` while the others wait, which may take as long as it gives signs of life. What it
   * asks them meanwhile, `answer` answers.
   */
  lead(work: () => Promise<void>, answer?: (question: number) => Promise<Float32Array>): Promise<void>;
  /** On process 0, within `lead`: fills `into` with the answer of process `from`. */
  ask(from: number, question: number, into: Float32Array): Promise<void>;
  /** Ends all processes of the run at once, this one with `code`. */
  abort(code: number): void;
  /** Takes leave. All processes must. */
  close(): Promise<void>;
}

/** A process by itself. */
export const alone: Communicator = {
  rank: 0,
  size: 1,
  localSize: 1,
  async sum() {},
  async broadcast() {},
  share: async (numbers) => [[...numbers]],
  gather: async (bytes) => [bytes],
  async barrier() {},
  lead: (work) => work(),
  async ask() {
    throw new Error('there is nobody to ask');
  },
  abort() {},
  async close() {},
};

/**
 * Thrown by all processes after the same step, because one of them was told to stop; `cause` is why, where it
 * was this one.
 */
export class StoppedTogether extends Error {
  override name = 'StoppedTogether';

  constructor(cause?: unknown) {
    super('another process of the run was told to stop', { cause });
  }
}
