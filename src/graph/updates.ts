// What an optimizer does to state, as composites: an engine may compute them with kernels of its own, in
// place.

import { ShapeError, sameDims } from './dims.ts';
import { add, div, mul, reduceSum, sqrt, sub } from './primitives.ts';
import { type CompositeRule, createNode, type Tensor, type TensorOf } from './tensor.ts';

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

/** Sum of the squares of all elements: a scalar, dims []. */
export const squaredNorm = (x: Tensor): TensorOf<'squaredNorm'> => createNode('squaredNorm', [x], {}, { dtype: x.dtype, dims: [] });

export const squaredNormRule: CompositeRule<'squaredNorm'> = {
  definition: ({ inputs: [x] }) =>
    reduceSum(
      mul(x, x),
      x.dims.map((_, axis) => axis),
    ),
};
