// Keys and values of the tokens that a language model has read, as state of the engine: a step reads what is
// there, and what its tokens give is appended (models/programs.ts `decoderGraph`).

import type { Engine, SequenceState } from '../engine/engine.ts';
import type { LanguageConfig } from '../models/language.ts';
import { cacheName } from '../models/programs.ts';

/** The cache of one batch: a sequence state a layer for its keys, and one for its values. */
export class KvCache {
  /** By the names that the decoder's graph has for them. */
  readonly state: Readonly<Record<string, SequenceState>>;

  constructor(engine: Engine, config: LanguageConfig, batch: number) {
    const { num_hidden_layers: layers, num_key_value_heads: kvHeads, head_dim: headDim } = config;
    const entries = Array.from({ length: layers }, (_, layer) =>
      (['key', 'value'] as const).map(
        (kind) => [cacheName(layer, kind), engine.sequence('float32', [batch, kvHeads, 0, headDim], 2)] as const,
      ),
    );
    this.state = Object.fromEntries(entries.flat());
  }

  /** Positions that are filled. */
  get length(): number {
    return this.state[cacheName(0, 'key')].length;
  }

  /** Makes room for `capacity` positions in all. */
  reserve(capacity: number): void {
    for (const state of Object.values(this.state)) state.reserve(capacity);
  }

  /** Forgets all positions, and gives their memory back where the engine can. */
  clear(): void {
    for (const state of Object.values(this.state)) state.clear();
  }

  /** Forgets the positions from `length` on. */
  truncate(length: number): void {
    for (const state of Object.values(this.state)) state.truncate(length);
  }
}
