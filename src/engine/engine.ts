// What a graph runs on. The graph knows nothing of engines; an engine compiles named output tensors to a program.

import type { DType, Tensor, TypedData } from '../graph/tensor.ts';

/** A concrete tensor: row-major data and its shape. */
export interface Value {
  readonly dtype: DType;
  readonly dims: readonly number[];
  readonly data: TypedData;
}

/** A value that lies in a file, row-major and little-endian. It must stay as it is until the program is disposed of. */
export interface StoredValue {
  readonly dtype: DType;
  readonly dims: readonly number[];
  readonly path: string;
  /** Where its bytes begin. */
  readonly offset: number;
}

export type Constant = Value | StoredValue;

export interface CompileOptions {
  /** Inputs whose values are fixed: the engine may pre-pack them. By input name. What lies in a file need not be read as a whole. */
  constants?: ReadonlyMap<string, Constant>;
}

export interface Program {
  /**
   * Runs once. `inputs` by input name; throws an Error naming the input that is missing or has the wrong shape. Of `outputs`, if given, only
   * those are returned: reading one back costs memory.
   */
  run(inputs: Readonly<Record<string, Value>>, outputs?: readonly string[]): Promise<Record<string, Value>>;
  /** Names of the inputs that `run` needs. */
  readonly inputNames: readonly string[];
  readonly outputNames: readonly string[];
  dispose(): Promise<void>;
}

export interface Engine {
  readonly name: string;
  compile(outputs: Readonly<Record<string, Tensor>>, options?: CompileOptions): Promise<Program>;
}

export function float32(data: Float32Array | readonly number[], dims: readonly number[]): Value {
  return { dtype: 'float32', dims, data: data instanceof Float32Array ? data : Float32Array.from(data) };
}

/** Arrays by the name of a parameter as values of its shape. Throws an Error for a parameter without an array. */
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

export function int32(data: Int32Array | readonly number[], dims: readonly number[]): Value {
  return { dtype: 'int32', dims, data: data instanceof Int32Array ? data : Int32Array.from(data) };
}
