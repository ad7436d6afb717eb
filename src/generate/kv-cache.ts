// Keys and values of the tokens that a language model has read. They stay in one piece of memory with room for more: a step hands over a
// view and adds what the new tokens give, so that nothing is copied that was there before.

import { float32, type Value } from '../engine/engine.ts';
import { concat, transpose } from '../graph/primitives.ts';
import { input, type Tensor } from '../graph/tensor.ts';
import type { LayerCache } from '../models/decoder.ts';
import type { LanguageConfig } from '../models/language.ts';

const KINDS = ['key', 'value'] as const;

/** Graph inputs for the past of each layer, positions first: they are handed over as they lie in the cache. */
export function pastInputs({ num_hidden_layers: layers, num_key_value_heads: kvHeads, head_dim: headDim }: LanguageConfig): LayerCache[] {
  // [past, batch, kvHeads, headDim] -> [batch, kvHeads, past, headDim]
  const past = (layer: number, kind: (typeof KINDS)[number]) =>
    transpose(input(`past.${layer}.${kind}`, 'float32', ['past', 'batch', kvHeads, headDim]), [1, 2, 0, 3]);
  return Array.from({ length: layers }, (_, layer) => ({ key: past(layer, 'key'), value: past(layer, 'value') }));
}

/** Graph outputs for what the new tokens add: `new`, one output a layer, keys before values, positions first. */
export function newOutputs(present: readonly LayerCache[]): Record<string, Tensor> {
  const positionsFirst = (x: Tensor) => transpose(x, [2, 0, 1, 3]);
  return Object.fromEntries(
    present.map(({ key, value }, layer) => [`new.${layer}`, concat([positionsFirst(key), positionsFirst(value)], 3)]),
  );
}

export class KvCache {
  /** Positions that are filled. */
  length = 0;
  private readonly batch: number;
  private readonly config: LanguageConfig;
  /** Values of one position of a layer. */
  private readonly stride: number;
  private capacity: number;
  private layers: { key: Float32Array; value: Float32Array }[];

  constructor(config: LanguageConfig, batch: number, capacity: number) {
    this.config = config;
    this.batch = batch;
    this.capacity = capacity;
    this.stride = batch * config.num_key_value_heads * config.head_dim;
    this.layers = Array.from({ length: config.num_hidden_layers }, () => ({
      key: new Float32Array(capacity * this.stride),
      value: new Float32Array(capacity * this.stride),
    }));
  }

  /** Makes room for `capacity` positions in all. */
  reserve(capacity: number): void {
    if (capacity <= this.capacity) return;
    const grown = (values: Float32Array) => {
      const result = new Float32Array(capacity * this.stride);
      result.set(values.subarray(0, this.length * this.stride));
      return result;
    };
    this.layers = this.layers.map(({ key, value }) => ({ key: grown(key), value: grown(value) }));
    this.capacity = capacity;
  }

  /** Values of `pastInputs`. */
  feeds(): Record<string, Value> {
    const dims = [this.length, this.batch, this.config.num_key_value_heads, this.config.head_dim];
    return Object.fromEntries(
      this.layers.flatMap((layer, i) =>
        KINDS.map((kind) => [`past.${i}.${kind}`, float32(layer[kind].subarray(0, this.length * this.stride), dims)]),
      ),
    );
  }

  /** Adds `tokens` positions from the values of `newOutputs`. */
  append(results: Readonly<Record<string, Value>>, tokens: number): void {
    const { head_dim: headDim } = this.config;
    this.reserve(this.length + tokens);
    for (const [i, { key, value }] of this.layers.entries()) {
      // rows of [key, value]
      const added = results[`new.${i}`].data as Float32Array;
      let at = this.length * this.stride;
      for (let from = 0; from < added.length; from += 2 * headDim, at += headDim) {
        key.set(added.subarray(from, from + headDim), at);
        value.set(added.subarray(from + headDim, from + 2 * headDim), at);
      }
    }
    this.length += tokens;
  }
}
