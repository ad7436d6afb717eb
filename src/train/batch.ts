// What passes between a stage's data and its trainer.

import type { SampleFault } from '../data/llava-json.ts';
import type { PackedBatch } from '../data/packing.ts';
import type { Value } from '../engine/engine.ts';

/** Inputs of one pass of the loss, and how many tokens (or patches) it processes. */
export interface MicroBatch {
  inputs: Record<string, Value>;
  /** What its summed loss is divided by, together with that of the step's other batches: its labels. */
  weight: number;
  tokens: number;
  /** Tokens that are there only to fill rows. */
  padding?: number;
  /** Samples that were left out of it. */
  skipped?: SampleFault[];
}

/** Pictures whose features are not cached yet. */
export interface PictureBatch {
  /** Content hashes, one a picture. */
  keys: string[];
  /** float32 [pictures, 3, size, size]. */
  pixels: Value;
  /** How much of the data has been gone through with these, 0 to 1. */
  done: number;
}

/** Where the batches of a stage come from: a pure function of what the source was opened with. */
export interface BatchSource {
  /** Batch `index` of the stage, counted over steps and epochs from 0. */
  batch(index: number): Promise<MicroBatch>;
  /**
   * Of a frozen encoder: the next pictures without features, undefined when there are no more. All must
   * have been asked for, and their features given to `keep`, before the first batch.
   */
  pictures(): Promise<PictureBatch | undefined>;
  /** Stores the features of pictures one after the other, [keys * size of one]. */
  keep(keys: readonly string[], features: Float32Array): Promise<void>;
  close(): Promise<void>;
}

/** A source without an encoder's features. */
export function plainSource(batch: BatchSource['batch']): BatchSource {
  return {
    batch,
    pictures: async () => undefined,
    async keep() {
      throw new Error('there are no features to keep');
    },
    async close() {},
  };
}

/** Packed rows as a batch of the trainer, which divides by their labels. */
export function packedBatch({ inputs, tokens, rows, length }: PackedBatch): MicroBatch {
  return { inputs, weight: inputs.labels.data.length, tokens, padding: rows * length - tokens };
}
