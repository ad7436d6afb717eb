// What an optimizer does to state, as ops: an engine may compute them with kernels of its own, in place.

import { add, div, mul, reduceSum, sqrt, sub } from './primitives.ts';
import { defineOp, makeNode, ShapeError, sameDims, type Tensor } from './tensor.ts';

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

const PARTS = ['parameter', 'expAvg', 'expAvgSq'] as const;
type Part = (typeof PARTS)[number];

/** Attributes of an `adamW` node: which of the three results it is. */
export interface AdamWAttributes extends AdamWConstants {
  part: Part;
}

defineOp('adamW', {
  infer([parameter, ...others]) {
    for (const other of others.slice(0, 3))
      if (!sameDims(other.dims, parameter.dims))
        throw new ShapeError('adamW', 'parameter, gradient and moments must have one shape', [parameter.dims, other.dims]);
    return { dtype: parameter.dtype, dims: parameter.dims };
  },
  definition([parameter, gradient, expAvg, expAvgSq, clip, keep, rate, rootScale], a) {
    const { part, beta1, beta2, eps } = a as unknown as AdamWAttributes;
    const clipped = mul(gradient, clip);
    const mean = add(mul(expAvg, beta1), mul(clipped, 1 - beta1));
    if (part === 'expAvg') return mean;
    const square = add(mul(expAvgSq, beta2), mul(mul(clipped, 1 - beta2), clipped));
    if (part === 'expAvgSq') return square;
    return sub(mul(parameter, keep), div(mul(mean, rate), add(mul(sqrt(square), rootScale), eps)));
  },
});

/**
 * One update of AdamW (Loshchilov & Hutter 2019, as torch.optim.AdamW computes it) with the gradient times `clip`:
 *
 *     expAvg'    = beta1 expAvg + (1 - beta1) g
 *     expAvgSq'  = beta2 expAvgSq + (1 - beta2) g^2
 *     parameter' = keep parameter - rate expAvg' / (rootScale sqrt(expAvgSq') + eps)
 */
export function adamW(
  { parameter, gradient, expAvg, expAvgSq }: AdamWTensors,
  { clip, keep, rate, rootScale }: AdamWScalars,
  constants: AdamWConstants,
): Record<Part, Tensor> {
  const inputs = [parameter, gradient, expAvg, expAvgSq, clip, keep, rate, rootScale];
  const [first, second, third] = PARTS.map((part) => makeNode('adamW', inputs, { ...constants, part }));
  return { parameter: first, expAvg: second, expAvgSq: third };
}

defineOp('squaredNorm', {
  infer: ([x]) => ({ dtype: x.dtype, dims: [] }),
  definition: ([x]) =>
    reduceSum(
      mul(x, x),
      x.dims.map((_, axis) => axis),
    ),
});
/** Sum of the squares of all elements: a scalar, dims []. */
export const squaredNorm = (x: Tensor): Tensor => makeNode('squaredNorm', [x]);
