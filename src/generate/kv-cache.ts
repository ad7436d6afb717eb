// Keys and values of the tokens that a language model has read. They stay in one piece of memory with room for more: a step is handed what
// is there and adds what the new tokens give. With one row and one head of keys, as in Gemma 2B, nothing is copied that was there before.

import { float32, type Value } from '../engine/engine.ts';
import { concat } from '../graph/primitives.ts';
import { input, type Tensor } from '../graph/tensor.ts';
import type { LayerCache } from '../models/decoder.ts';
import type { LanguageConfig } from '../models/language.ts';

const KINDS = ['key', 'value'] as const;

/** Graph inputs for the past of each layer: [batch, kvHeads, past, headDim]. */
export function pastInputs({ num_hidden_layers: layers, num_key_value_heads: kvHeads, head_dim: headDim }: LanguageConfig): LayerCache[] {
  const past = (layer: number, kind: (typeof KINDS)[number]) =>
    input(`past.${layer}.${kind}`, 'float32', ['batch', kvHeads, 'past', headDim]);
  return Array.from({ length: layers }, (_, layer) => ({ key: past(layer, 'key'), value: past(layer, 'value') }));
}

/** Graph outputs for what the new tokens add: `new.<layer>` [batch, kvHeads, tokens, 2 * headDim], each key beside its value. */
export function newOutputs(present: readonly LayerCache[]): Record<string, Tensor> {
  return Object.fromEntries(present.map(({ key, value }, layer) => [`new.${layer}`, concat([key, value], 3)]));
}

type Layer = Record<(typeof KINDS)[number], Float32Array>;

export class KvCache {
  /** Positions that are filled. */
  length = 0;
  private readonly batch: number;
  private readonly config: LanguageConfig;
  /** Rows of the batch times heads: each has `capacity` positions of its own, one behind the other. */
  private readonly runs: number;
  private capacity: number;
  private layers: Layer[];
  /** Where the runs of a layer are laid together before they are handed over. */
  private joined: Layer[] = [];

  constructor(config: LanguageConfig, batch: number, capacity: number) {
    this.config = config;
    this.batch = batch;
    this.capacity = capacity;
    this.runs = batch * config.num_key_value_heads;
    this.layers = this.allocate();
  }

  private allocate(): Layer[] {
    const size = this.runs * this.capacity * this.config.head_dim;
    return Array.from({ length: this.config.num_hidden_layers }, () => ({ key: new Float32Array(size), value: new Float32Array(size) }));
  }

  /** Makes room for `capacity` positions in all. */
  reserve(capacity: number): void {
    if (capacity <= this.capacity) return;
    const { layers, capacity: before } = this;
    const { head_dim: headDim } = this.config;
    this.capacity = capacity;
    this.layers = this.allocate();
    this.joined = [];
    for (const [i, layer] of layers.entries())
      for (const kind of KINDS)
        for (let run = 0; run < this.runs; run++) {
          const start = run * before * headDim;
          this.layers[i][kind].set(layer[kind].subarray(start, start + this.length * headDim), run * capacity * headDim);
        }
  }

  /** Values of `pastInputs`, to be used before the next call. */
  feeds(): Record<string, Value> {
    const { num_key_value_heads: kvHeads, head_dim: headDim } = this.config;
    const dims = [this.batch, kvHeads, this.length, headDim];
    const size = this.length * headDim;
    if (this.runs > 1 && this.joined.length === 0) this.joined = this.allocate();
    const together = (layer: number, kind: (typeof KINDS)[number]) => {
      const values = this.layers[layer][kind];
      if (this.runs === 1) return values.subarray(0, size);
      const joined = this.joined[layer][kind];
      for (let run = 0; run < this.runs; run++) {
        const start = run * this.capacity * headDim;
        joined.set(values.subarray(start, start + size), run * size);
      }
      return joined.subarray(0, this.runs * size);
    };
    return Object.fromEntries(
      this.layers.flatMap((_, layer) => KINDS.map((kind) => [`past.${layer}.${kind}`, float32(together(layer, kind), dims)])),
    );
  }

  /** Adds `tokens` positions from the values of `newOutputs`. */
  append(results: Readonly<Record<string, Value>>, tokens: number): void {
    const { head_dim: headDim } = this.config;
    this.reserve(this.length + tokens);
    for (const [i, { key, value }] of this.layers.entries()) {
      const added = results[`new.${i}`].data as Float32Array;
      let from = 0;
      for (let run = 0; run < this.runs; run++) {
        let at = (run * this.capacity + this.length) * headDim;
        for (let token = 0; token < tokens; token++, from += 2 * headDim, at += headDim) {
          key.set(added.subarray(from, from + headDim), at);
          value.set(added.subarray(from + headDim, from + 2 * headDim), at);
        }
      }
    }
    this.length += tokens;
  }
}
