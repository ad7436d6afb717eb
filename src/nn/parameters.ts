// Parameters of a model. The model function requests them by name and shape as it runs; the requests make up
// the list of what must be loaded, trained or frozen. Names are those of Hugging Face checkpoints; layouts
// are PyTorch's ([out, in] for a linear layer).

import type { BlockFormat } from '../floats.ts';
import { formatDims, withPath } from '../graph/dims.ts';
import { cast, dequantize } from '../graph/primitives.ts';
import { type DType, input, type Tensor } from '../graph/tensor.ts';
import type { Random } from '../random.ts';

/** How a fresh parameter is initialized. */
export type Initializer =
  | { kind: 'normal'; std: number }
  /** Between -bound and bound. */
  | { kind: 'uniform'; bound: number }
  | { kind: 'zeros' }
  | { kind: 'ones' }
  | { kind: 'constant'; value: number };

export const normal = (std = 0.02): Initializer => ({ kind: 'normal', std });
export const uniform = (bound: number): Initializer => ({ kind: 'uniform', bound });
export const zeros: Initializer = { kind: 'zeros' };
export const ones: Initializer = { kind: 'ones' };

/**
 * How the values of a parameter are stored: as floats, or as integers of a few bits with one scale per block.
 */
export type Storage = 'float32' | 'float16' | 'bfloat16' | BlockFormat;

/** How the parameter `name` of `dims` is stored. */
export type StorageOf = (name: string, dims: readonly number[]) => Storage;

export interface Parameter {
  name: string;
  dims: readonly number[];
  /** Its values in float32, however they are stored: what the model function computes with. */
  tensor: Tensor;
  storage: Storage;
  initializer: Initializer;
  /** No computation needs it: a checkpoint may lack it. */
  optional?: boolean;
}

// === Packed weights ===

/**
 * Names of the two tensors that hold a packed parameter: its integers and their scales. As in
 * compressed-tensors.
 */
export const packedName = (name: string) => `${name}_packed`;
export const scaleName = (name: string) => `${name}_scale`;

/** Whether a parameter is stored as packed blocks. */
export const isPacked = (storage: Storage): storage is BlockFormat => typeof storage === 'object';

/**
 * The block format of a packed parameter, inferred from the shapes of its two tensors; undefined where it is
 * not packed, or where bits and block size come out as none that exist. `shape` gives the dims of a tensor by
 * name.
 */
export function packedFormat(
  shape: (name: string) => readonly number[] | undefined,
  name: string,
  [rows, columns, ...more]: readonly number[],
): BlockFormat | undefined {
  const packed = shape(packedName(name));
  const scale = shape(scaleName(name));
  if (packed?.length !== 2 || scale?.length !== 2 || more.length > 0 || packed[0] !== rows || scale[0] !== rows) return undefined;
  const bits = (packed[1] * 8) / columns;
  const blockSize = columns / scale[1];
  return (bits === 4 || bits === 8) && [16, 32, 64, 128, 256].includes(blockSize) ? { bits, blockSize } : undefined;
}

/**
 * How parameters with these `values` are stored; `values` are keyed by the names of the inputs that hold
 * them. A missing parameter counts as float32: the code that needs it reports that it is missing.
 */
export function storageOfValues(values: ReadonlyMap<string, { dtype: DType; dims: readonly number[] }>): StorageOf {
  return (name, dims) => {
    const dtype = values.get(name)?.dtype;
    if (dtype === 'float16' || dtype === 'bfloat16') return dtype;
    return packedFormat((tensor) => values.get(tensor)?.dims, name, dims) ?? 'float32';
  };
}

// === Asking ===

/** What a linear layer learns beside its weight (nn/lora.ts). */
export interface Adapter {
  rank: number;
  /** Factor of what it adds: alpha / rank, or alpha / sqrt(rank) with rsLoRA. */
  scale: number;
  /**
   * In training, a share of `rate` of the layer's input x is left out: it is multiplied by a mask of 0 and 1.
   */
  dropout?: { rate: number; mask: (x: Tensor, module: string) => Tensor };
}

/** The adapter of a linear layer, by the name of its module. */
export type AdapterOf = (module: string) => Adapter | undefined;

/**
 * Called as a layer of self-attention is built, with the name of its module and its probabilities
 * [batch, heads, tokens, keys].
 */
export type AttentionObserver = (module: string, probabilities: Tensor) => void;

export interface ParameterOptions {
  /** How parameters are stored; the model function sees float32 in any case. Default: all in float32. */
  storage?: StorageOf;
  /** Default: none. */
  adapters?: AdapterOf;
  /** Sees the attention of every layer. Default: nobody does, and an engine may take attention whole. */
  onAttention?: AttentionObserver;
}

/** Where a model function gets its parameters. */
export class Parameters {
  private readonly all: Map<string, Parameter>;
  private readonly prefix: string;
  private readonly options: ParameterOptions;

  constructor(options: ParameterOptions = {}, all = new Map<string, Parameter>(), prefix = '') {
    this.options = options;
    this.all = all;
    this.prefix = prefix;
  }

  /** Name of the module that is being built. */
  get path(): string {
    return this.prefix.slice(0, -1);
  }

  /** The adapter of the linear layer that is being built. */
  adapter(): Adapter | undefined {
    return this.options.adapters?.(this.path);
  }

  /** Who sees the attention of the layer that is being built. */
  attentionObserver(): AttentionObserver | undefined {
    return this.options.onAttention;
  }

  /**
   * The parameter `<prefix>.<name>` in float32. Asking twice gives the same tensor (tied weights); throws an
   * Error if the shape differs.
   */
  get(name: string, dims: readonly number[], initializer: Initializer = normal()): Tensor {
    const full = this.prefix + name;
    const known = this.all.get(full);
    if (known) {
      if (formatDims(known.dims) !== formatDims(dims))
        throw new Error(`parameter ${full} is used as ${formatDims(known.dims)} and as ${formatDims(dims)}`);
      return known.tensor;
    }
    const storage = this.options.storage?.(full, dims) ?? 'float32';
    const tensor = isPacked(storage) ? packedWeight(full, dims, storage) : cast(input(full, storage, dims), 'float32');
    this.all.set(full, { name: full, dims, tensor, storage, initializer });
    return tensor;
  }

  /**
   * Builds a submodule: `module.` is prefixed to the names of its parameters and to the path of a shape error
   * inside it.
   */
  module<T>(module: string, body: (p: Parameters) => T): T {
    return withPath(module, () => body(new Parameters(this.options, this.all, `${this.prefix}${module}.`)));
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

/** Names of the graph inputs that hold a parameter's values. */
export function inputNames({ name, storage }: Pick<Parameter, 'name' | 'storage'>): string[] {
  return isPacked(storage) ? [packedName(name), scaleName(name)] : [name];
}

/** Fresh values for a parameter, row-major; as many as `dims` hold. */
export function initialize({ dims, initializer }: Pick<Parameter, 'dims' | 'initializer'>, random: Random): Float32Array {
  const values = new Float32Array(dims.reduce((a, b) => a * b, 1));
  if (initializer.kind === 'normal') for (let i = 0; i < values.length; i++) values[i] = initializer.std * random.normal();
  else if (initializer.kind === 'uniform')
    for (let i = 0; i < values.length; i++) values[i] = initializer.bound * (2 * random.uniform() - 1);
  else if (initializer.kind === 'ones') values.fill(1);
  else if (initializer.kind === 'constant') values.fill(initializer.value);
  return values;
}
