// What a rule of lowering is: from one op of a graph to the nodes of ONNX that compute it. The tables of
// rules are lower.ts's and webgpu-rules.ts's.

import type { Composite, Dialect, PerInput, Primitive, TensorOf } from '../../graph/tensor.ts';
import type { GraphBuilder } from './builder.ts';

/** What a model is written for. */
export type Target = 'cpu' | 'anywhere' | 'webgpu';

/** Composites that ORT computes in one kernel. */
export const FUSED_KERNELS = ['rmsNorm', 'layerNorm', 'geluTanh', 'quickGelu'] as const satisfies Composite[];
export type FusedKernel = (typeof FUSED_KERNELS)[number];

/** Ops that have a rule. */
export type Lowered = Exclude<Primitive, 'stopGradient'> | keyof Dialect | FusedKernel | 'constant';

/** Of the options of `lower`, those that rules look at. */
export interface RuleOptions {
  packedAccuracy?: 'float32' | 'int8';
  recast?: boolean;
  target: Target;
}

/** Adds the nodes that compute `tensor` from values named `inputs`; the name of the result. */
export type LoweringRule<O extends Lowered> = (
  b: GraphBuilder,
  inputs: PerInput<O, string>,
  tensor: TensorOf<O>,
  options: RuleOptions,
) => string;

export type Rules = { readonly [O in Lowered]: LoweringRule<O> };

/** A product of ONNX's own ops: operands are transposed before, and the factor is put on the first. */
export const plainProduct: LoweringRule<'matmul'> = (b, names, { inputs, attributes, dtype }) => {
  const { transA, transB, alpha } = attributes;
  const turned = (i: number) => {
    const axes = inputs[i].dims.map((_, axis) => axis);
    return b.node('Transpose', [names[i]], { perm: [...axes.slice(0, -2), axes.length - 1, axes.length - 2] });
  };
  const left = transA ? turned(0) : names[0];
  const right = transB ? turned(1) : names[1];
  return b.node('MatMul', [alpha === 1 ? left : b.node('Mul', [left, b.number(alpha, dtype)]), right]);
};
