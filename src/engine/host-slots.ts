// Sequences side by side in host memory, each of a length of its own: the cache of a batch that rows join and
// leave. It is handed over as it lies, padded with zeros, so that nothing is copied from step to step.

import type { DType, TypedData } from '../graph/tensor.ts';
import { type SlotState, type State, sizeOf, type Value } from './engine.ts';
import { zeros } from './host-state.ts';

/** A multiple of the positions that are given: appending moves what is there once in so many steps. */
const CHUNK = 64;

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
    const needed = Math.ceil(Math.max(positions, ...this.filled) / CHUNK) * CHUNK;
    // short rows should not pay for a long one that has left
    if (needed > this.room || needed * 2 < this.room) this.layOut(needed);
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
    if (length > this.filled[slot]) throw new Error(`a slot of ${this.filled[slot]} positions cannot be cut to ${length}`);
    // what is hidden is still multiplied by 0, which only makes 0 of what is finite
    for (let run = slot * runs; run < (slot + 1) * runs; run++)
      this.data.fill(0 as never, (run * room + length) * width, (run * room + this.filled[slot]) * width);
    this.filled[slot] = length;
  }

  read(slot: number, length: number): Value {
    const { runs, room, width } = this;
    if (length > this.filled[slot]) throw new Error(`a slot of ${this.filled[slot]} positions has no ${length}`);
    const data = zeros(this.dtype, runs * length * width);
    for (let run = 0; run < runs; run++) {
      const start = (slot * runs + run) * room * width;
      data.set(this.data.subarray(start, start + length * width) as never, run * length * width);
    }
    return { dtype: this.dtype, dims: this.shape.with(0, 1).with(this.axis, length), data };
  }

  append(slot: number, value: Value, kept = value.dims[this.axis]): void {
    const { runs, width } = this;
    const given = value.dims[this.axis];
    this.reserve(this.filled[slot] + kept);
    for (let run = 0; run < runs; run++) {
      const start = run * given * width;
      const to = ((slot * runs + run) * this.room + this.filled[slot]) * width;
      this.data.set(value.data.subarray(start, start + kept * width) as never, to);
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
  appendRows(first: number, kept: readonly number[], { dtype, dims, data }: Value): void {
    this.reserve(Math.max(...kept.map((count, i) => this.filled[first + i] + count)));
    const size = sizeOf(dims.slice(1));
    kept.forEach((count, i) => {
      this.append(first + i, { dtype, dims: dims.with(0, 1), data: data.subarray(i * size, (i + 1) * size) }, count);
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
