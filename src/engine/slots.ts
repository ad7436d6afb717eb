// What slots of every engine have in common: how they are laid out, how long each is, and what a run is given
// of them.

import type { DType } from '../graph/tensor.ts';
import { type State, sizeOf, type Value } from './engine.ts';

/** A multiple of the positions that are given: appending moves what is there once in so many steps. */
const CHUNK = 64;

/** Throws an Error for a cut or a copy of more positions than a slot holds. */
export function checkHeld(held: number, length: number): void {
  if (length > held) throw new Error(`a slot of ${held} positions has no ${length}`);
}

/** Slots of [runs, positions, width] each, with room for `capacity` positions. */
export abstract class Slots {
  readonly dtype: DType;
  readonly count: number;
  readonly axis: number;
  /** Runs of one slot, and elements of one position of a run. */
  protected readonly runs: number;
  protected readonly width: number;
  /** Positions that each slot holds. */
  protected readonly filled: number[];
  protected room = 0;
  private readonly shape: readonly number[];

  /** `dims` are those of all slots: the first is their number, and 0 stands at `axis`. */
  constructor(dtype: DType, dims: readonly number[], axis: number) {
    this.dtype = dtype;
    this.shape = dims;
    this.axis = axis;
    this.count = dims[0];
    this.runs = sizeOf(dims.slice(1, axis));
    this.width = sizeOf(dims.slice(axis + 1));
    this.filled = new Array<number>(this.count).fill(0);
  }

  get capacity(): number {
    return this.room;
  }

  length(slot: number): number {
    return this.filled[slot];
  }

  abstract truncate(slot: number, length: number): void;

  /** Of some slots, as a run reads them: padded to the capacity, or nothing where all of them are empty. */
  dimsOf(first: number, count: number): readonly number[] {
    const isEmpty = this.filled.slice(first, first + count).every((length) => length === 0);
    return this.shape.with(0, count).with(this.axis, isEmpty ? 0 : this.room);
  }

  /** The room for what slots hold, and for so many positions of one (`SlotState.reserve`). */
  protected roomFor(positions: number): number {
    const needed = Math.ceil(Math.max(positions, ...this.filled) / CHUNK) * CHUNK;
    // short rows should not pay for a long one that has left
    return needed > this.room || needed * 2 < this.room ? needed : this.room;
  }
}

/** Neighboring slots for one run of a program, which keeps `kept` positions of what it adds to each. */
export abstract class SlotRange<S extends Slots> implements State {
  readonly slots: S;
  readonly first: number;
  readonly kept: readonly number[];

  constructor(slots: S, first: number, kept: readonly number[]) {
    this.slots = slots;
    this.first = first;
    this.kept = kept;
  }

  get dtype(): DType {
    return this.slots.dtype;
  }

  get dims(): readonly number[] {
    return this.slots.dimsOf(this.first, this.kept.length);
  }

  abstract read(): Promise<Value>;
  abstract write(value: Value): Promise<void>;

  clear(): void {
    this.kept.forEach((_, i) => {
      this.slots.truncate(this.first + i, 0);
    });
  }
}
