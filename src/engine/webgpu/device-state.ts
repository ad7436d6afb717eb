// State in buffers of the device. What replaces it is another buffer, and the one before is given back; host
// memory is touched only where a value is read or written as such.

import type { DType } from '../../graph/tensor.ts';
import { type SequenceState, type State, sizeOf, type Value } from '../engine.ts';
import { zeros } from '../host-state.ts';
import type { Device } from './device.ts';
import type { RuntimeTensor } from './runtime.ts';

const sameShape = (a: readonly number[], b: readonly number[]) => a.length === b.length && a.every((size, i) => size === b[i]);

/** A state whose shape is fixed. */
export class DeviceState implements State {
  readonly dtype: DType;
  readonly dims: readonly number[];
  private readonly device: Device;
  /** In a buffer, or not there yet; nothing stands for zeros. */
  private held: { tensor: RuntimeTensor } | { value: Value } | undefined;

  /** Takes `initial` over. */
  constructor(device: Device, dtype: DType, dims: readonly number[], initial?: Value) {
    this.device = device;
    this.dtype = dtype;
    this.dims = dims;
    this.held = initial && { value: initial };
  }

  get isCleared(): boolean {
    return this.held === undefined;
  }

  /** Its buffer, for a run to read. */
  async tensor(): Promise<RuntimeTensor> {
    const { held } = this;
    if (held && 'tensor' in held) return this.device.view(held.tensor, this.dims);
    const tensor = held ? await this.device.upload(held.value) : await this.device.zeros(this.dtype, this.dims);
    this.held = { tensor };
    return this.device.view(tensor, this.dims);
  }

  async read(): Promise<Value> {
    const { held, dtype, dims } = this;
    if (!held) return { dtype, dims, data: zeros(dtype, sizeOf(dims)) };
    return 'value' in held ? held.value : { dtype, dims, data: await this.device.download(held.tensor) };
  }

  async write(value: Value): Promise<void> {
    this.check(value.dtype, value.dims);
    // the data stay the caller's, who may change them
    this.replace(await this.device.upload(value));
  }

  clear(): void {
    if (this.held && 'tensor' in this.held) this.held.tensor.dispose();
    this.held = undefined;
  }

  /** Replaces what it holds by a buffer that nobody else keeps. */
  adopt(tensor: RuntimeTensor): void {
    this.check(tensor.type, tensor.dims);
    this.replace(tensor);
  }

  /** Adds a buffer that nobody else keeps. */
  async add(term: RuntimeTensor): Promise<void> {
    if (this.isCleared) return this.adopt(term);
    this.check(term.type, term.dims);
    const sum = await this.device.sum(await this.tensor(), term);
    term.dispose();
    this.replace(sum);
  }

  private replace(tensor: RuntimeTensor): void {
    this.clear();
    this.held = { tensor };
  }

  private check(dtype: string, dims: readonly number[]): void {
    if (dtype !== this.dtype || !sameShape(dims, this.dims))
      throw new Error(`a state of ${this.dtype} [${this.dims}] cannot take ${dtype} [${dims}]`);
  }
}

/** A state that grows along one axis: what is appended makes a new buffer. */
export class DeviceSequence implements SequenceState {
  readonly dtype: DType;
  readonly axis: number;
  private readonly device: Device;
  private readonly shape: readonly number[];
  private filled = 0;
  /** Its buffer has `filled` positions, or more where it was cut. */
  private held: { tensor: RuntimeTensor; positions: number } | undefined;

  constructor(device: Device, dtype: DType, dims: readonly number[], axis: number) {
    this.device = device;
    this.dtype = dtype;
    this.shape = dims;
    this.axis = axis;
  }

  get length(): number {
    return this.filled;
  }

  get dims(): readonly number[] {
    return this.shape.with(this.axis, this.filled);
  }

  // a buffer of exactly what is there is made with each run
  reserve(): void {}

  truncate(length: number): void {
    if (length > this.filled) throw new Error(`a sequence of ${this.filled} positions cannot be cut to ${length}`);
    this.filled = length;
  }

  clear(): void {
    this.held?.tensor.dispose();
    this.held = undefined;
    this.filled = 0;
  }

  /** Its buffer, for a run to read. */
  async tensor(): Promise<RuntimeTensor> {
    const { device, dtype, dims, axis, held, filled } = this;
    if (!held || sizeOf(dims) === 0) return device.fromHost({ dtype, dims, data: zeros(dtype, 0) });
    const { tensor, positions } = held;
    if (positions !== filled) {
      const [before, width] = [sizeOf(dims.slice(0, axis)), sizeOf(dims.slice(axis + 1))];
      const rows = Int32Array.from({ length: before * filled }, (_, i) => Math.floor(i / filled) * positions + (i % filled));
      const [first] = await device.select([{ dtype, width, sources: [device.view(tensor, dims.with(axis, positions))], rows }]);
      this.replace(first, filled);
    }
    return device.view(this.held!.tensor, dims);
  }

  async read(): Promise<Value> {
    const { dtype, dims } = this;
    return { dtype, dims, data: await this.device.download(await this.tensor()) };
  }

  async write(value: Value): Promise<void> {
    this.check(value.dtype, value.dims);
    this.adopt(await this.device.upload(value), value.dims);
  }

  /** Replaces what it holds by the buffer of a value of `dims` that nobody else keeps. */
  adopt(tensor: RuntimeTensor, dims: readonly number[]): void {
    this.check(tensor.type, dims);
    this.replace(tensor, dims[this.axis]);
  }

  private replace(tensor: RuntimeTensor, positions: number): void {
    this.held?.tensor.dispose();
    this.held = { tensor, positions };
    this.filled = positions;
  }

  private check(dtype: string, dims: readonly number[]): void {
    if (dtype !== this.dtype || !sameShape(dims.with(this.axis, 0), this.shape.with(this.axis, 0)))
      throw new Error(`a sequence of ${this.dtype} [${this.dims}] cannot take ${dtype} [${dims}]`);
  }
}
