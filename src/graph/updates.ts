// What an optimizer does to state, as composites: an engine may compute them with kernels of its own, in
// place.

import { CODE_BLOCK, codeBlocks, type DynamicCode, signedCode, unsignedCode } from '../dynamic-code.ts';
import { type Dims, ShapeError, sameDims } from './dims.ts';
import {
  add,
  cast,
  div,
  equal,
  gather,
  greater,
  maximum,
  mul,
  neg,
  pad,
  reduceMax,
  reduceSum,
  reshape,
  slice,
  sqrt,
  sub,
  where,
} from './primitives.ts';
import { type CompositeRule, constant, createNode, type Tensor, type TensorOf } from './tensor.ts';

/** A trained parameter, its gradient and the moments of AdamW: float32, all of one shape. */
export interface AdamWTensors {
  parameter: Tensor;
  gradient: Tensor;
  /** Exponential mean of the gradient. */
  expAvg: Tensor;
  /** Exponential mean of the squared gradient. */
  expAvgSq: Tensor;
}

/** What differs from step to step: float32 scalars, dims []. */
export interface AdamWScalars {
  /** Factor on the gradient. */
  clip: Tensor;
  /** 1 - learning rate * weight decay. */
  keep: Tensor;
  /** Learning rate / (1 - beta1^step). */
  rate: Tensor;
  /** 1 / sqrt(1 - beta2^step). */
  rootScale: Tensor;
}

export interface AdamWConstants {
  beta1: number;
  beta2: number;
  eps: number;
}

type AdamWPart = TensorOf<'adamW'>['attributes']['part'];

/**
 * One update of AdamW (Loshchilov & Hutter 2019, as torch.optim.AdamW computes it), g being clip times the
 * gradient. Throws ShapeError where the four tensors differ in shape.
 *
 *     expAvg'    = beta1 expAvg + (1 - beta1) g
 *     expAvgSq'  = beta2 expAvgSq + (1 - beta2) g^2
 *     parameter' = keep parameter - rate expAvg' / (rootScale sqrt(expAvgSq') + eps)
 *     change     = sum of (parameter' - parameter)^2, dims []
 */
export function adamW(
  { parameter, gradient, expAvg, expAvgSq }: AdamWTensors,
  { clip, keep, rate, rootScale }: AdamWScalars,
  constants: AdamWConstants,
): Record<AdamWPart, TensorOf<'adamW'>> {
  for (const other of [gradient, expAvg, expAvgSq])
    if (!sameDims(other.dims, parameter.dims))
      throw new ShapeError('adamW', 'parameter, gradient and moments must have one shape', [parameter.dims, other.dims]);
  const inputs = [parameter, gradient, expAvg, expAvgSq, clip, keep, rate, rootScale] as const;
  const result = (part: AdamWPart, dims = parameter.dims) =>
    createNode('adamW', inputs, { ...constants, part }, { dtype: parameter.dtype, dims });
  return { parameter: result('parameter'), expAvg: result('expAvg'), expAvgSq: result('expAvgSq'), change: result('change', []) };
}

export const adamWRule: CompositeRule<'adamW'> = {
  definition({ inputs: [parameter, gradient, expAvg, expAvgSq, clip, keep, rate, rootScale], attributes }) {
    const { part, beta1, beta2, eps } = attributes;
    const clipped = mul(gradient, clip);
    const mean = add(mul(expAvg, beta1), mul(clipped, 1 - beta1));
    if (part === 'expAvg') return mean;
    const square = add(mul(expAvgSq, beta2), mul(mul(clipped, 1 - beta2), clipped));
    if (part === 'expAvgSq') return square;
    const next = sub(mul(parameter, keep), div(mul(mean, rate), add(mul(sqrt(square), rootScale), eps)));
    return part === 'parameter' ? next : squaredNorm(sub(next, parameter));
  },
};

// === Moments in 8 bits ===

/** The same where the moments are codes: uint8 of the parameter's shape, which has no named dims. */
export interface AdamW8bitTensors extends AdamWTensors {
  /** The largest magnitude of each block of codes, float32 [blocks]. */
  expAvgAbsmax: Tensor;
  expAvgSqAbsmax: Tensor;
}

type AdamW8bitPart = TensorOf<'adamW8bit'>['attributes']['part'];

/**
 * The update of `adamW` with moments in blocks of dynamic 8-bit codes (Dettmers et al. 2022), signed ones for
 * the mean: they are dequantized, the float32 results move the parameter and are quantized anew. Throws
 * ShapeError where the tensors do not fit together.
 */
export function adamW8bit(
  { parameter, gradient, expAvg, expAvgAbsmax, expAvgSq, expAvgSqAbsmax }: AdamW8bitTensors,
  { clip, keep, rate, rootScale }: AdamWScalars,
  constants: AdamWConstants,
): Record<AdamW8bitPart, TensorOf<'adamW8bit'>> {
  const { dims } = parameter;
  const blocks = [codeBlocks(sizeOf(dims))];
  for (const [other, expected] of [
    [gradient, dims],
    [expAvg, dims],
    [expAvgSq, dims],
    [expAvgAbsmax, blocks],
    [expAvgSqAbsmax, blocks],
  ] as const)
    if (!sameDims(other.dims, expected))
      throw new ShapeError('adamW8bit', 'codes must have the shape of the parameter, and a magnitude a block', [dims, other.dims]);
  const inputs = [parameter, gradient, expAvg, expAvgAbsmax, expAvgSq, expAvgSqAbsmax, clip, keep, rate, rootScale] as const;
  const result = (part: AdamW8bitPart, { dtype, dims }: Pick<Tensor, 'dtype' | 'dims'>) =>
    createNode('adamW8bit', inputs, { ...constants, part }, { dtype, dims });
  return {
    parameter: result('parameter', parameter),
    expAvg: result('expAvg', expAvg),
    expAvgAbsmax: result('expAvgAbsmax', expAvgAbsmax),
    expAvgSq: result('expAvgSq', expAvgSq),
    expAvgSqAbsmax: result('expAvgSqAbsmax', expAvgSqAbsmax),
    change: result('change', { ...parameter, dims: [] }),
  };
}

export const adamW8bitRule: CompositeRule<'adamW8bit'> = {
  definition({ inputs, attributes }) {
    const [parameter, gradient, expAvg, expAvgAbsmax, expAvgSq, expAvgSqAbsmax, clip, keep, rate, rootScale] = inputs;
    const { part, ...constants } = attributes;
    const moments = {
      expAvg: fromCodes(expAvg, expAvgAbsmax, signedCode),
      expAvgSq: fromCodes(expAvgSq, expAvgSqAbsmax, unsignedCode),
    };
    const after = adamW({ parameter, gradient, ...moments }, { clip, keep, rate, rootScale }, constants);
    if (part === 'parameter' || part === 'change') return after[part];
    const [moment, code] = part.startsWith('expAvgSq') ? [after.expAvgSq, unsignedCode] : [after.expAvg, signedCode];
    return part.endsWith('Absmax') ? absmaxOf(inBlocks(moment)) : toCodes(moment, code);
  },
};

function sizeOf(dims: Dims): number {
  if (!dims.every((size) => typeof size === 'number')) throw new ShapeError('adamW8bit', 'blocks need a shape without named dims', [dims]);
  return dims.reduce((product, size) => product * size, 1);
}

/** [blocks, block], filled up with zeros. */
function inBlocks(x: Tensor): Tensor {
  const size = sizeOf(x.dims);
  const blocks = codeBlocks(size);
  return reshape(pad(reshape(x, [size]), 0, 0, blocks * CODE_BLOCK - size), [blocks, CODE_BLOCK]);
}

/** The reverse. */
function fromBlocks(x: Tensor, dims: Dims): Tensor {
  const [blocks, block] = x.dims as number[];
  return reshape(slice(reshape(x, [blocks * block]), 0, 0, sizeOf(dims)), dims);
}

const magnitude = (x: Tensor) => maximum(x, neg(x));
const absmaxOf = (blocks: Tensor) => reduceMax(magnitude(blocks), [1]);
const asColumn = (x: Tensor) => reshape(x, [...x.dims, 1]);

function fromCodes(codes: Tensor, absmax: Tensor, { values }: DynamicCode): Tensor {
  const shares = gather(cast(constant(values, [values.length]), absmax.dtype), cast(codes, 'int32'));
  return fromBlocks(mul(inBlocks(shares), asColumn(absmax)), codes.dims);
}

function toCodes(x: Tensor, { bounds }: DynamicCode): Tensor {
  const blocks = inBlocks(x);
  const absmax = asColumn(absmaxOf(blocks));
  const shares = div(blocks, where(equal(absmax, 0), 1, absmax));
  const below = greater(reshape(shares, [...shares.dims, 1]), cast(constant(bounds, [bounds.length]), x.dtype));
  return fromBlocks(cast(reduceSum(cast(below, 'float32'), [2]), 'uint8'), x.dims);
}

/** Sum of the squares of all elements: a scalar, dims []. */
export const squaredNorm = (x: Tensor): TensorOf<'squaredNorm'> => createNode('squaredNorm', [x], {}, { dtype: x.dtype, dims: [] });

export const squaredNormRule: CompositeRule<'squaredNorm'> = {
  definition: ({ inputs: [x] }) =>
    reduceSum(
      mul(x, x),
      x.dims.map((_, axis) => axis),
    ),
};
