// Sequences side by side in host memory, each of a length of its own: the cache of a batch that rows join and
// leave. It is handed over as it lies, padded with zeros, so that nothing is copied from step to step.

import type { DType, TypedData } from '../graph/tensor.ts';
import { elementBytes, type SavedSlot, type SlotState, type State, sizeOf, type Value } from './engine.ts';
import { zeros } from './host-state.ts';
import { checkHeld, SlotRange, Slots } from './slots.ts';

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

/** Slots in one array. */
export class HostSlots extends Slots implements SlotState {
  private data: TypedData = zeros(this.dtype, 0);

  reserve(positions: number): void {
    const room = this.roomFor(positions);
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

  /** What slots hold, not copied. */
  view(first: number, count: number): Value {
    const dims = this.dimsOf(first, count);
    const start = first * this.runs * this.room * this.width;
    return { dtype: this.dtype, dims, data: this.data.subarray(start, start + sizeOf(dims)) };
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
export class HostSlotRange extends SlotRange<HostSlots> {
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
}
