// What a graph runs on. The graph knows nothing of engines; an engine compiles named output tensors to a
// program. A program has constants (fixed when it is compiled), state (memory of the engine that outlives a
// run and is shared by the programs that name it) and inputs (given anew at each run).

import { UserError } from '../errors.ts';
import type { DType, Tensor, TypedData } from '../graph/tensor.ts';

/**
 * A concrete tensor in host memory: row-major data and its shape. float16 and bfloat16 are bit patterns in a
 * Uint16Array.
 */
export interface Value {
  readonly dtype: DType;
  readonly dims: readonly number[];
  readonly data: TypedData;
}

/**
 * A value that lies in a file, row-major and little-endian. It must stay as it is until the program is
 * disposed of.
 */
export interface StoredValue {
  readonly dtype: DType;
  readonly dims: readonly number[];
  readonly path: string;
  /** Where its bytes begin. */
  readonly offset: number;
  /** What the file was when it was looked at (file-stamp.ts): another one in its place is refused. */
  readonly stamp?: string;
}

export type Constant = Value | StoredValue;

// === State ===

/**
 * A tensor in an engine's own memory: a trained parameter, a moment of the optimizer, a sum of gradients. It
 * belongs to the engine that made it, and is handed to the programs of that engine.
 */
export interface State {
  readonly dtype: DType;
  readonly dims: readonly number[];
  /**
   * What it holds. The data may be the engine's own: good until the next run that writes the state, and not
   * to be changed, but by whoever gives them to `write` at once.
   */
  read(): Promise<Value>;
  /** Replaces what it holds. Throws an Error for another dtype or shape. */
  write(value: Value): Promise<void>;
  /** Sets it to zeros, which need no memory until something is added to them. */
  clear(): void;
}

/** A state that grows along one axis, such as the keys of the tokens read so far. It begins empty. */
export interface SequenceState extends State {
  /** Positions along the axis that are filled. */
  readonly length: number;
  /** Makes room for `capacity` positions in all, so that appending up to there moves nothing. */
  reserve(capacity: number): void;
  /** Forgets the positions from `length` on. */
  truncate(length: number): void;
}

/** The first positions of a slot, kept apart from it. It belongs to the engine that made it. */
export interface SavedSlot {
  readonly bytes: number;
  /** Gives the memory back. */
  dispose(): void;
}

/**
 * Sequences side by side, one a slot, each of a length of its own: the rows of a batch that rows join and
 * leave. Slots begin empty.
 */
export interface SlotState {
  /** Slots there are. */
  readonly count: number;
  /** Positions of a slot that a program reads, filled or not; what is not filled is zero. */
  readonly capacity: number;
  /** Positions that are filled in a slot. */
  length(slot: number): number;
  /**
   * Sees to it that `positions` fit, and every slot's own: the capacity grows, or shrinks where it is more
   * than twice what is needed.
   */
  reserve(positions: number): void;
  /** Forgets the positions of a slot from `length` on. */
  truncate(slot: number, length: number): void;
  /** A copy of the first `length` positions of a slot, which the caller disposes of. */
  save(slot: number, length: number): Promise<SavedSlot>;
  /** Fills an empty slot with the first `length` positions of another one, or of what was saved. */
  begin(slot: number, from: number | SavedSlot, length: number): Promise<void>;
  /**
   * Slots from `first` on as the state of one run: a program reads [slots, ..., capacity, ...], without any
   * positions where all of them are empty, and of the row that it appends to each slot the first `kept`
   * positions stay.
   */
  range(first: number, kept: readonly number[]): State;
}

/**
 * What a run does to a state: it becomes the tensor's value, or has it added, or appended along the axis of a
 * sequence.
 */
export interface Write {
  readonly mode: 'replace' | 'add' | 'append';
  readonly tensor: Tensor;
}

// === Programs ===

export interface CompileOptions {
  /**
   * Inputs whose values are fixed: the engine may pre-pack them. By input name. What lies in a file need not
   * be read as a whole.
   */
  constants?: ReadonlyMap<string, Constant>;
  /** What each run writes to the state that it is given under a name. */
  writes?: Readonly<Record<string, Write>>;
  /**
   * How products with packed weights are computed: `float32` as the dequantized matrix would, `int8` with the
   * other operand rounded to 8 bits a block, which is faster and what llama.cpp does. Default: `float32`.
   */
  packedAccuracy?: 'float32' | 'int8';
  /**
   * Memory before speed, for a model that fills the machine: constants are not pre-packed into copies, 16-bit
   * ones are cast anew at each use, and what is cheap is computed again for the backward pass.
   */
  lean?: boolean;
  /**
   * For the writes of a training step, what of `outputs` is computed a second time instead of being held:
   * `cheap` are passes over elements, `all` is all but what is marked (`hold` in graph/primitives.ts), also
   * known as gradient checkpointing. Default: `cheap` where the program is lean, or nothing.
   */
  recompute?: 'cheap' | 'all';
}

export interface RunOptions {
  /** By name: what the program reads as an input of that name, and what it writes. */
  state?: Readonly<Record<string, State>>;
  /** The outputs that are returned; all when left out. Reading one back costs memory. */
  outputs?: readonly string[];
}

export interface Program {
  /**
   * Runs once. Each input is given by name in `inputs`, or in `options.state`. Throws an Error that names the
   * input or the state that is missing or has the wrong shape.
   */
  run(inputs: Readonly<Record<string, Value>>, options?: RunOptions): Promise<Record<string, Value>>;
  /** Names of the inputs that `run` needs, be it as values or as state. */
  readonly inputNames: readonly string[];
  readonly outputNames: readonly string[];
  dispose(): Promise<void>;
}

/** What a model runs on: `auto` is webgpu where there is the adapter of a GPU, else cpu. */
export const DEVICES = ['cpu', 'webgpu', 'auto'] as const;
export type DeviceName = (typeof DEVICES)[number];

/** UserError for a device that there is not, of whoever has no types. */
export function checkDevice(device: DeviceName): void {
  if (!DEVICES.includes(device)) throw new UserError(`device ${device}: there are ${DEVICES.join(', ')}`);
}

export interface Engine {
  readonly name: string;
  /**
   * A program that computes `outputs`, by name. Throws an Error for a constant that is missing, misshapen or
   * of another dtype, and for an op or dtype that this engine cannot run, by its name.
   */
  compile(outputs: Readonly<Record<string, Tensor>>, options?: CompileOptions): Promise<Program>;
  /** State that begins as `initial`, whose data the engine takes over: the caller lets go of it. */
  state(initial: Value): State;
  /** State of zeros. */
  zeros(dtype: DType, dims: readonly number[]): State;
  /** An empty state that grows along `axis`; `dims` there is 0. */
  sequence(dtype: DType, dims: readonly number[], axis: number): SequenceState;
  /** As many empty slots as `dims` says first, which grow along `axis`; `dims` there is 0. */
  slots(dtype: DType, dims: readonly number[], axis: number): SlotState;
}

// === Values ===

/** Bytes of one element. */
export const elementBytes: Readonly<Record<DType, number>> = {
  float32: 4,
  float16: 2,
  bfloat16: 2,
  int64: 8,
  int32: 4,
  bool: 1,
  int8: 1,
  uint8: 1,
};

/** Number of elements of a shape. */
export function sizeOf(dims: readonly number[]): number {
  return dims.reduce((product, size) => product * size, 1);
}

/** A float32 value; `data` holds as many numbers as `dims` say. */
export function float32(data: Float32Array | readonly number[], dims: readonly number[]): Value {
  return { dtype: 'float32', dims, data: data instanceof Float32Array ? data : Float32Array.from(data) };
}

/** An int32 value; `data` holds as many numbers as `dims` say. */
export function int32(data: Int32Array | readonly number[], dims: readonly number[]): Value {
  return { dtype: 'int32', dims, data: data instanceof Int32Array ? data : Int32Array.from(data) };
}

/**
 * Checks names, dtypes and shapes of values against the inputs of a graph, named dims bound on first sight.
 * Throws an Error of one line that names the input.
 */
export function checkInputs(
  inputs: ReadonlyMap<string, Pick<Tensor, 'dtype' | 'dims'>>,
  given: (name: string) => Pick<Constant, 'dtype' | 'dims'> | undefined,
): void {
  const bound = new Map<string, { size: number; by: string }>();
  for (const [name, tensor] of inputs) {
    const value = given(name);
    if (!value) throw new Error(`input ${name} is missing`);
    const described = `input ${name} is ${value.dtype} [${value.dims}], expected ${tensor.dtype} [${tensor.dims.join(', ')}]`;
    if (value.dtype !== tensor.dtype || value.dims.length !== tensor.dims.length) throw new Error(described);
    const data = 'data' in value ? (value.data as TypedData) : undefined;
    if (data && sizeOf(value.dims) !== data.length) throw new Error(`input ${name}: ${data.length} elements do not fill [${value.dims}]`);
    tensor.dims.forEach((dim, i) => {
      const size = value.dims[i];
      if (typeof dim === 'number') {
        if (dim !== size) throw new Error(described);
        return;
      }
      const known = bound.get(dim);
      if (known && known.size !== size) throw new Error(`${described}, and ${dim} is ${known.size} in ${known.by}`);
      bound.set(dim, { size, by: name });
    });
  }
}

/**
 * Arrays by the name of a parameter as values of its shape. Throws an Error for a parameter without an array.
 */
export function float32Values(
  parameters: Iterable<{ name: string; dims: readonly number[] }>,
  arrays: ReadonlyMap<string, Float32Array>,
): Map<string, Value> {
  return new Map(
    Array.from(parameters, ({ name, dims }) => {
      const data = arrays.get(name);
      if (!data) throw new Error(`no value for parameter ${name}`);
      return [name, float32(data, dims)];
    }),
  );
}
