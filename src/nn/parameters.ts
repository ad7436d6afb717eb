// Parameters of a model: asked for by name and shape while the model function runs, which makes the list of what must be loaded,
// trained or frozen. Names are those of Hugging Face checkpoints; layouts are PyTorch's ([out, in] for a linear layer).

import { formatDims, withPath } from '../graph/dims.ts';
import { dequantize } from '../graph/primitives.ts';
import { type BlockFormat, input, type Tensor } from '../graph/tensor.ts';
import type { Random } from '../random.ts';

/** How a fresh parameter begins. */
export type Initialiser = { kind: 'normal'; std: number } | { kind: 'zeros' } | { kind: 'ones' } | { kind: 'constant'; value: number };

export const normal = (std = 0.02): Initialiser => ({ kind: 'normal', std });
export const zeros: Initialiser = { kind: 'zeros' };
export const ones: Initialiser = { kind: 'ones' };

export interface Parameter {
  name: string;
  dims: readonly number[];
  tensor: Tensor;
  initialiser: Initialiser;
  /** Nothing that is computed needs it: a checkpoint may lack it. */
  optional?: boolean;
  /** Its values come as two inputs, `packedName` and `scaleName`. */
  packed?: BlockFormat;
}

// === Packed weights ===

/** Names of the two tensors that stand for a packed parameter: its whole numbers and their scales. As in compressed-tensors. */
export const packedName = (name: string) => `${name}_packed`;
export const scaleName = (name: string) => `${name}_scale`;

/** How the parameter `name` of `dims` is packed; undefined where it is not. */
export type PackedFormat = (name: string, dims: readonly number[]) => BlockFormat | undefined;

/** What is packed in `shapes`, tensors by name; bits and size of a block follow from the shapes, and those that fit nothing are no format. */
export function packedFormats(shape: (name: string) => readonly number[] | undefined): PackedFormat {
  return (name, [rows, columns, ...more]) => {
    const packed = shape(packedName(name));
    const scale = shape(scaleName(name));
    if (packed?.length !== 2 || scale?.length !== 2 || more.length > 0 || packed[0] !== rows || scale[0] !== rows) return undefined;
    const bits = (packed[1] * 8) / columns;
    const blockSize = columns / scale[1];
    return (bits === 4 || bits === 8) && [16, 32, 64, 128, 256].includes(blockSize) ? { bits, blockSize } : undefined;
  };
}

export class Parameters {
  private readonly all: Map<string, Parameter>;
  private readonly prefix: string;
  private readonly packed: PackedFormat;

  /** Parameters that `packed` knows are read from their packed tensors: the model function sees the matrix that they stand for. */
  constructor(packed: PackedFormat = () => undefined, all = new Map<string, Parameter>(), prefix = '') {
    this.packed = packed;
    this.all = all;
    this.prefix = prefix;
  }

  /** The float32 parameter `<prefix>.<name>`. Asking twice gives the same tensor (tied weights); another shape is an error. */
  get(name: string, dims: readonly number[], initialiser: Initialiser = normal()): Tensor {
    const full = this.prefix + name;
    const known = this.all.get(full);
    if (known) {
      if (formatDims(known.dims) !== formatDims(dims))
        throw new Error(`parameter ${full} is used as ${formatDims(known.dims)} and as ${formatDims(dims)}`);
      return known.tensor;
    }
    const format = this.packed(full, dims);
    const tensor = format ? packedWeight(full, dims, format) : input(full, 'float32', dims);
    this.all.set(full, { name: full, dims, tensor, initialiser, ...(format ? { packed: format } : {}) });
    return tensor;
  }

  /** Builds a sub-module: its parameters get `module.` in front, and so does the path of a shape error inside it. */
  module<T>(module: string, body: (p: Parameters) => T): T {
    return withPath(module, () => body(new Parameters(this.packed, this.all, `${this.prefix}${module}.`)));
  }

  list(): Parameter[] {
    return [...this.all.values()];
  }
}

function packedWeight(name: string, [rows, columns]: readonly number[], format: BlockFormat): Tensor {
  const { bits, blockSize } = format;
  const packed = input(packedName(name), 'uint8', [rows, (columns * bits) / 8]);
  return dequantize(packed, input(scaleName(name), 'float32', [rows, columns / blockSize]), format);
}

/** Names of the inputs that hold a parameter's values. */
export function inputNames({ name, packed }: Pick<Parameter, 'name' | 'packed'>): string[] {
  return packed ? [packedName(name), scaleName(name)] : [name];
}

/** Fresh values for a parameter. */
export function initialise({ dims, initialiser }: Pick<Parameter, 'dims' | 'initialiser'>, random: Random): Float32Array {
  const values = new Float32Array(dims.reduce((a, b) => a * b, 1));
  if (initialiser.kind === 'normal') for (let i = 0; i < values.length; i++) values[i] = initialiser.std * random.normal();
  else if (initialiser.kind === 'ones') values.fill(1);
  else if (initialiser.kind === 'constant') values.fill(initialiser.value);
  return values;
}
