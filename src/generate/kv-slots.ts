// Keys and values of rows that are generated together, each in a slot of its own: rows join and leave between
// tokens, and one row may go on from what another has read.

import type { Engine, SlotState, State, Value } from '../engine/engine.ts';
import { sizeOf } from '../engine/engine.ts';
import type { LanguageConfig } from '../models/language.ts';
import { cacheName } from '../models/programs.ts';

/** Keys and values of a stretch of tokens, by the names of the decoder's graph: one row each. */
export type KvRow = Readonly<Record<string, Value>>;

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

  /** A copy of the first `length` positions of a slot. */
  read(slot: number, length: number): KvRow {
    return Object.fromEntries([...this.states].map(([name, state]) => [name, state.read(slot, length)]));
  }

  /** Begins an empty slot with the first `length` positions of what was read elsewhere. */
  begin(slot: number, row: KvRow, length: number): void {
    for (const [name, state] of this.states) state.append(slot, firstPositions(row[name], length));
  }

  /** The state of a run over slots from `first` on, which keeps so many positions of each row. */
  range(first: number, kept: readonly number[]): Record<string, State> {
    return Object.fromEntries([...this.states].map(([name, state]) => [name, state.range(first, kept)]));
  }
}

/** [1, heads, length, width] of a longer value. */
function firstPositions({ dtype, dims, data }: Value, length: number): Value {
  const [, heads, positions, width] = dims;
  if (length === positions) return { dtype, dims, data };
  const first = new Float32Array(heads * length * width);
  for (let head = 0; head < heads; head++) {
    const start = head * positions * width;
    first.set((data as Float32Array).subarray(start, start + length * width), head * length * width);
  }
  return { dtype, dims: dims.with(2, length), data: first };
}

/** Bytes that keys and values of a row take. */
export const kvRowBytes = (row: KvRow): number => Object.values(row).reduce((sum, { dims }) => sum + 4 * sizeOf(dims), 0);
