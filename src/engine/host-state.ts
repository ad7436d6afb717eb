// State in host memory, for engines that compute from there: ONNX Runtime on the CPU, and the reference. It
// is updated in place.

import { type DType, type TypedData, typedData } from '../graph/tensor.ts';
import { type SequenceState, type State, sizeOf, type Value } from './engine.ts';

const sameShape = (a: readonly number[], b: readonly number[]) => a.length === b.length && a.every((size, i) => size === b[i]);

/** `count` zeros of a dtype. */
export function zeros(dtype: DType, count: number): TypedData {
  const kind = typedData([], dtype).constructor as new (count: number) => TypedData;
  return new kind(count);
}

/** A state whose shape is fixed. */
export class HostState implements State {
  readonly dtype: DType;
  readonly dims: readonly number[];
  /** Absent while it is all zeros. */
  private data: TypedData | undefined;
  /** Whether `data` holds what was written, not leftovers of before it was cleared. */
  private isSet: boolean;

  constructor(dtype: DType, dims: readonly number[], data?: TypedData) {
    this.dtype = dtype;
    this.dims = dims;
    this.data = data;
    this.isSet = data !== undefined;
  }

  /** Its memory, whose contents mean nothing while it is cleared. */
  memory(): TypedData {
    this.data ??= zeros(this.dtype, sizeOf(this.dims));
    return this.data;
  }

  get isCleared(): boolean {
    return !this.isSet;
  }

  /** Says that its memory was filled by somebody else. */
  markSet(): void {
    this.isSet = true;
  }

  /** What it holds, not copied. */
  value(): Value {
    const data = this.memory();
    if (!this.isSet) data.fill(0 as never);
    this.isSet = true;
    return { dtype: this.dtype, dims: this.dims, data };
  }

  async read(): Promise<Value> {
    return this.value();
  }

  async write(value: Value): Promise<void> {
    this.check(value);
    // what was read and changed is there already
    if (value.data !== this.data) this.memory().set(value.data as never);
    this.isSet = true;
  }

  clear(): void {
    this.isSet = false;
  }

  /** Replaces what it holds by a value whose data nobody else keeps. */
  adopt(value: Value): void {
    this.check(value);
    this.data = value.data;
    this.isSet = true;
  }

  /** Adds element by element, rounding each sum to float32. */
  add(value: Value): void {
    if (!this.isSet) {
      this.adopt(value);
      return;
    }
    this.check(value);
    const sum = this.memory() as Float32Array;
    const term = value.data as Float32Array;
    for (let i = 0; i < sum.length; i++) sum[i] += term[i];
  }

  /**
   * The same for a part of it, from element `start` on. With `isFirst` the part replaces what is there:
   * parts that fill a cleared state one after the other.
   */
  addPart(start: number, part: Float32Array, isFirst: boolean): void {
    const sum = this.memory() as Float32Array;
    this.isSet = true;
    if (isFirst) sum.set(part, start);
    else for (let i = 0; i < part.length; i++) sum[start + i] += part[i];
  }

  private check({ dtype, dims }: Value): void {
    if (dtype !== this.dtype || !sameShape(dims, this.dims))
      throw new Error(`a state of ${this.dtype} [${this.dims}] cannot take ${dtype} [${dims}]`);
  }
}

/**
 * A state that grows along one axis. What lies before the axis are runs: each has room of its own for
 * `capacity` positions, one run behind the other. With a single run, as with one row and one head of keys, a
 * program is handed a view of what is there and nothing is copied.
 */
export class HostSequence implements SequenceState {
  readonly dtype: DType;
  private readonly shape: readonly number[];
  private readonly axis: number;
  private readonly runs: number;
  /** Elements of one position of a run. */
  private readonly width: number;
  private capacity = 0;
  private filled = 0;
  private data: TypedData;
  /** Where the runs are laid together before they are handed over. */
  private joined: TypedData | undefined;

  constructor(dtype: DType, dims: readonly number[], axis: number) {
    this.dtype = dtype;
    this.shape = dims;
    this.axis = axis;
    this.runs = sizeOf(dims.slice(0, axis));
    this.width = sizeOf(dims.slice(axis + 1));
    this.data = zeros(dtype, 0);
  }

  get length(): number {
    return this.filled;
  }

  get dims(): readonly number[] {
    return this.shape.with(this.axis, this.filled);
  }

  reserve(capacity: number): void {
    if (capacity <= this.capacity) return;
    const { data, capacity: before, width } = this;
    this.capacity = capacity;
    this.joined = undefined;
    this.data = zeros(this.dtype, this.runs * capacity * width);
    for (let run = 0; run < this.runs; run++) {
      const start = run * before * width;
      this.data.set(data.subarray(start, start + this.filled * width) as never, run * capacity * width);
    }
  }

  truncate(length: number): void {
    if (length > this.filled) throw new Error(`a sequence of ${this.filled} positions cannot be cut to ${length}`);
    this.filled = length;
  }

  clear(): void {
    this.filled = 0;
  }

  /** What it holds; with several runs, in memory that the next call uses again. */
  value(): Value {
    const { runs, capacity, width, filled, data } = this;
    const { dims } = this;
    if (runs === 1) return { dtype: this.dtype, dims, data: data.subarray(0, filled * width) };
    this.joined ??= zeros(this.dtype, data.length);
    for (let run = 0; run < runs; run++) {
      const start = run * capacity * width;
      this.joined.set(data.subarray(start, start + filled * width) as never, run * filled * width);
    }
    return { dtype: this.dtype, dims, data: this.joined.subarray(0, runs * filled * width) };
  }

  async read(): Promise<Value> {
    return this.value();
  }

  async write(value: Value): Promise<void> {
    this.clear();
    this.append(value);
  }

  /** Adds the positions of `value` behind those that are there. */
  append({ dtype, dims, data }: Value): void {
    const count = dims[this.axis];
    if (dtype !== this.dtype || !sameShape(dims.with(this.axis, 0), this.shape.with(this.axis, 0)))
      throw new Error(`a sequence of ${this.dtype} [${this.dims}] cannot take ${dtype} [${dims}]`);
    this.reserve(this.filled + count);
    const { width, capacity, filled } = this;
    for (let run = 0; run < this.runs; run++)
      this.data.set(data.subarray(run * count * width, (run + 1) * count * width) as never, (run * capacity + filled) * width);
    this.filled += count;
  }
}
