// Sequences side by side in host memory, each of a length of its own: the cache of a batch that rows join and
// leave. It is handed over as it lies, padded with zeros, so that nothing is copied from step to step.

import type { DType, TypedData } from '../graph/tensor.ts';
import { elementBytes, type SavedSlot, type SlotState, type State, sizeOf, type Value } from './engine.ts';
import { zeros } from './host-state.ts';

/** A multiple of the positions that are given: appending moves what is there once in so many steps. */
const CHUNK = 64;

/** The room for slots that have `room` and are to hold so many positions (`SlotState.reserve`). */
export function roomFor(positions: readonly number[], room: number): number {
  const needed = Math.ceil(Math.max(...positions) / CHUNK) * CHUNK;
  // short rows should not pay for a long one that has left
  return needed > room || needed * 2 < room ? needed : room;
}

/** Throws an Error for a cut or a copy of more positions than a slot holds. */
export function checkHeld(held: number, length: number): void {
  if (length > held) throw new Error(`a slot of ${held} positions has no ${length}`);
}

/** [runs, length, width] of a slot. */
class HostSavedSlot implements SavedSlot {
  data: TypedData;
  readonly length: number;
  readonly bytes: number;

  constructor(dtype: DType, data: TypedData, length: number) {
    this.data = data;
    this.length = length;
    this.bytes = data.length * elementBytes[dtype];
  }

  dispose(): void {
    this.data = this.data.subarray(0, 0);
  }
}

/** Each slot has runs, as a sequence has, with room for `capacity` positions each. */
export class HostSlots implements SlotState {
  readonly dtype: DType;
  readonly count: number;
  private readonly shape: readonly number[];
  private readonly axis: number;
  /** Runs of one slot, and elements of one position of a run. */
  private readonly runs: number;
  private readonly width: number;
  private readonly filled: number[];
  private room = 0;
  private data: TypedData;

  /** `dims` are those of all slots: the first is their number, and 0 stands at `axis`. */
  constructor(dtype: DType, dims: readonly number[], axis: number) {
    this.dtype = dtype;
    this.shape = dims;
    this.axis = axis;
    this.count = dims[0];
    this.runs = sizeOf(dims.slice(1, axis));
    this.width = sizeOf(dims.slice(axis + 1));
    this.filled = new Array<number>(this.count).fill(0);
    this.data = zeros(dtype, 0);
  }

  get capacity(): number {
    return this.room;
  }

  length(slot: number): number {
    return this.filled[slot];
  }

  reserve(positions: number): void {
    const room = roomFor([positions, ...this.filled], this.room);
    if (room !== this.room) this.layOut(room);
  }

  private layOut(capacity: number): void {
    const { data, room, width, runs } = this;
    this.room = capacity;
    this.data = zeros(this.dtype, this.count * runs * capacity * width);
    this.filled.forEach((length, slot) => {
      for (let run = slot * runs; run < (slot + 1) * runs; run++)
        this.data.set(data.subarray(run * room * width, (run * room + length) * width) as never, run * capacity * width);
    });
  }

  truncate(slot: number, length: number): void {
    const { runs, room, width } = this;
    checkHeld(this.filled[slot], length);
    // what is hidden is still multiplied by 0, which only makes 0 of what is finite
    for (let run = slot * runs; run < (slot + 1) * runs; run++)
      this.data.fill(0 as never, (run * room + length) * width, (run * room + this.filled[slot]) * width);
    this.filled[slot] = length;
  }

  async save(slot: number, length: number): Promise<SavedSlot> {
    const { runs, room, width } = this;
    checkHeld(this.filled[slot], length);
    const data = zeros(this.dtype, runs * length * width);
    for (let run = 0; run < runs; run++) {
      const start = (slot * runs + run) * room * width;
      data.set(this.data.subarray(start, start + length * width) as never, run * length * width);
    }
    return new HostSavedSlot(this.dtype, data, length);
  }

  async begin(slot: number, from: number | SavedSlot, length: number): Promise<void> {
    checkHeld(0, this.filled[slot]);
    const saved = typeof from === 'number' ? await this.save(from, length) : from;
    if (!(saved instanceof HostSavedSlot)) throw new Error('a saved slot belongs to another engine');
    this.append(slot, saved.data, saved.length, length);
  }

  /** Adds to a slot the first `kept` of so many positions, [runs, given, width]. */
  private append(slot: number, data: TypedData, given: number, kept: number): void {
    const { runs, width } = this;
    checkHeld(given, kept);
    this.reserve(this.filled[slot] + kept);
    for (let run = 0; run < runs; run++) {
      const start = run * given * width;
      const to = ((slot * runs + run) * this.room + this.filled[slot]) * width;
      this.data.set(data.subarray(start, start + kept * width) as never, to);
    }
    this.filled[slot] += kept;
  }

  range(first: number, kept: readonly number[]): State {
    return new HostSlotRange(this, first, kept);
  }

  /** What slots hold, not copied: padded to the capacity, or nothing where all of them are empty. */
  view(first: number, count: number): Value {
    const { runs, room, width } = this;
    const isEmpty = this.filled.slice(first, first + count).every((length) => length === 0);
    const start = first * runs * room * width;
    const data = this.data.subarray(start, isEmpty ? start : start + count * runs * room * width);
    return { dtype: this.dtype, dims: this.shape.with(0, count).with(this.axis, isEmpty ? 0 : room), data };
  }

  /** Appends to each slot from `first` on its row of `value`, of which it keeps so many positions. */
  appendRows(first: number, kept: readonly number[], { dims, data }: Value): void {
    this.reserve(Math.max(...kept.map((count, i) => this.filled[first + i] + count)));
    const size = sizeOf(dims.slice(1));
    kept.forEach((count, i) => {
      this.append(first + i, data.subarray(i * size, (i + 1) * size), dims[this.axis], count);
    });
  }
}

/** Neighboring slots for one run of a program. */
export class HostSlotRange implements State {
  private readonly slots: HostSlots;
  private readonly first: number;
  private readonly kept: readonly number[];

  constructor(slots: HostSlots, first: number, kept: readonly number[]) {
    this.slots = slots;
    this.first = first;
    this.kept = kept;
  }

  get dtype(): DType {
    return this.slots.dtype;
  }

  get dims(): readonly number[] {
    return this.value().dims;
  }

  value(): Value {
    return this.slots.view(this.first, this.kept.length);
  }

  append(value: Value): void {
    const { dims } = this;
    if (value.dtype !== this.dtype || value.dims[0] !== this.kept.length || value.dims.length !== dims.length)
      throw new Error(`slots of ${this.dtype} [${dims}] cannot take ${value.dtype} [${value.dims}]`);
    this.slots.appendRows(this.first, this.kept, value);
  }

  async read(): Promise<Value> {
    return this.value();
  }

  async write(value: Value): Promise<void> {
    this.clear();
    this.append(value);
  }

  clear(): void {
    this.kept.forEach((_, i) => {
      this.slots.truncate(this.first + i, 0);
    });
  }
}
