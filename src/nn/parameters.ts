// Parameters of a model: asked for by name and shape while the model function runs, which makes the list of what must be loaded,
// trained or frozen. Names are those of Hugging Face checkpoints; layouts are PyTorch's ([out, in] for a linear layer).

import { formatDims, input, type Tensor, withPath } from '../graph/tensor.ts';
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
}

export class Parameters {
  private readonly all: Map<string, Parameter>;
  private readonly prefix: string;

  constructor(all = new Map<string, Parameter>(), prefix = '') {
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
    const tensor = input(full, 'float32', dims);
    this.all.set(full, { name: full, dims, tensor, initialiser });
    return tensor;
  }

  /** Builds a sub-module: its parameters get `module.` in front, and so does the path of a shape error inside it. */
  module<T>(module: string, body: (p: Parameters) => T): T {
    return withPath(module, () => body(new Parameters(this.all, `${this.prefix}${module}.`)));
  }

  list(): Parameter[] {
    return [...this.all.values()];
  }
}

/** Fresh values for a parameter. */
export function initialise({ dims, initialiser }: Pick<Parameter, 'dims' | 'initialiser'>, random: Random): Float32Array {
  const values = new Float32Array(dims.reduce((a, b) => a * b, 1));
  if (initialiser.kind === 'normal') for (let i = 0; i < values.length; i++) values[i] = initialiser.std * random.normal();
  else if (initialiser.kind === 'ones') values.fill(1);
  else if (initialiser.kind === 'constant') values.fill(initialiser.value);
  return values;
}
