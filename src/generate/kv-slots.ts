// Keys and values of rows that are generated together, each in a slot of its own: rows join and leave between
// tokens, and one row may go on from what another has read.

import type { Engine, SavedSlot, SlotState, State } from '../engine/engine.ts';
import type { LanguageConfig } from '../models/language.ts';
import { cacheName } from '../models/programs.ts';

/** Keys and values of the first tokens of a row, in memory of the engine. */
export class KvRow implements SavedSlot {
  /** By the names of the decoder's graph. */
  readonly parts: ReadonlyMap<string, SavedSlot>;

  constructor(parts: ReadonlyMap<string, SavedSlot>) {
    this.parts = parts;
  }

  get bytes(): number {
    return [...this.parts.values()].reduce((sum, { bytes }) => sum + bytes, 0);
  }

  dispose(): void {
    for (const part of this.parts.values()) part.dispose();
  }
}

/** Bytes that the keys and values of one token take. */
export function kvBytesPerToken({ num_hidden_layers, num_key_value_heads, head_dim }: LanguageConfig): number {
  return num_hidden_layers * num_key_value_heads * head_dim * 2 * Float32Array.BYTES_PER_ELEMENT;
}

export class KvSlots {
  private readonly states: ReadonlyMap<string, SlotState>;
  private readonly some: SlotState;

  constructor(engine: Engine, config: LanguageConfig, slots: number) {
    const { num_hidden_layers: layers, num_key_value_heads: kvHeads, head_dim: headDim } = config;
    const names = Array.from({ length: layers }, (_, layer) => [cacheName(layer, 'key'), cacheName(layer, 'value')]).flat();
    this.states = new Map(names.map((name) => [name, engine.slots('float32', [slots, kvHeads, 0, headDim], 2)]));
    this.some = this.states.get(names[0])!;
  }

  /** Positions that programs read of a slot, filled or not. */
  get capacity(): number {
    return this.some.capacity;
  }

  /** Positions that are filled in a slot. */
  length(slot: number): number {
    return this.some.length(slot);
  }

  /** Makes room for so many positions of each slot, or gives room back (engine.ts `SlotState`). */
  reserve(positions: number): void {
    for (const state of this.states.values()) state.reserve(positions);
  }

  truncate(slot: number, length: number): void {
    for (const state of this.states.values()) state.truncate(slot, length);
  }

  /** A copy of the first `length` positions of a slot, which the caller disposes of. */
  async save(slot: number, length: number): Promise<KvRow> {
    const parts = new Map<string, SavedSlot>();
    try {
      for (const [name, state] of this.states) parts.set(name, await state.save(slot, length));
    } catch (error) {
      new KvRow(parts).dispose();
      throw error;
    }
    return new KvRow(parts);
  }

  /** Fills an empty slot with the first `length` positions of another or of a saved row, or not at all. */
  async begin(slot: number, from: number | KvRow, length: number): Promise<void> {
    // all have the same room, whichever fails
    this.reserve(length);
    try {
      for (const [name, state] of this.states) await state.begin(slot, typeof from === 'number' ? from : from.parts.get(name)!, length);
    } catch (error) {
      this.truncate(slot, 0);
      throw error;
    }
  }

  /** The state of a run over slots from `first` on, which keeps so many positions of each row. */
  range(first: number, kept: readonly number[]): Record<string, State> {
    return Object.fromEntries([...this.states].map(([name, state]) => [name, state.range(first, kept)]));
  }
}
