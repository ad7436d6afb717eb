// Layers as functions of parameters and tensors. Weights in PyTorch layout; names follow Hugging Face
// modules.

import {
  type AttentionOptions,
  attention,
  layerNorm as layerNormOp,
  observedAttention,
  rmsNorm as rmsNormOp,
} from '../graph/composites.ts';
import { type Dim, ShapeError } from '../graph/dims.ts';
import { add, matmul, reshape, transpose } from '../graph/primitives.ts';
import type { Tensor } from '../graph/tensor.ts';
import { adapted } from './lora.ts';
import { normal, ones, type Parameters, zeros } from './parameters.ts';

export interface LinearOptions {
  bias?: boolean;
  /** Standard deviation of the fresh weight. */
  std?: number;
}

/**
 * x weight^T (+ bias), and what an adapter adds: [.., in] -> [.., outFeatures]. ShapeError unless the last
 * dim is a number.
 */
export function linear(
  p: Parameters,
  name: string,
  x: Tensor,
  outFeatures: number,
  { bias = false, std = 0.02 }: LinearOptions = {},
): Tensor {
  return p.module(name, (p) => {
    const inFeatures = x.dims.at(-1);
    if (typeof inFeatures !== 'number') throw new ShapeError('linear', 'the last dimension must have a known size', [x.dims]);
    const y = matmul(x, p.get('weight', [outFeatures, inFeatures], normal(std)), { transB: true });
    return adapted(p, x, bias ? add(y, p.get('bias', [outFeatures], zeros)) : y);
  });
}

/** LayerNorm with weight and bias over the last dim: [.., size] -> the same. */
export function layerNorm(p: Parameters, name: string, x: Tensor, epsilon: number): Tensor {
  return p.module(name, (p) => {
    const size = x.dims.at(-1) as number;
    return layerNormOp(x, p.get('weight', [size], ones), p.get('bias', [size], zeros), epsilon);
  });
}

/** Gemma's RMSNorm: the stored weight is an offset from one (modeling_gemma.py). [.., size] -> the same. */
export function gemmaRmsNorm(p: Parameters, name: string, x: Tensor, epsilon: number): Tensor {
  return p.module(name, (p) => rmsNormOp(x, add(p.get('weight', [x.dims.at(-1) as number], zeros), 1), epsilon));
}

/** [batch, tokens, heads * headDim] -> [batch, heads, tokens, headDim]. */
export function splitHeads(x: Tensor, heads: number): Tensor {
  const [batch, tokens, width] = x.dims as [Dim, Dim, number];
  return transpose(reshape(x, [batch, tokens, heads, width / heads]), [0, 2, 1, 3]);
}

/** [batch, heads, tokens, headDim] -> [batch, tokens, heads * headDim]. */
export function mergeHeads(x: Tensor): Tensor {
  const [batch, heads, tokens, headDim] = x.dims as [Dim, number, Dim, number];
  return reshape(transpose(x, [0, 2, 1, 3]), [batch, tokens, heads * headDim]);
}

/** Attention of the layer that is being built (composites.ts `attention`), shown to whoever observes it. */
export function selfAttention(p: Parameters, q: Tensor, k: Tensor, v: Tensor, options: AttentionOptions): Tensor {
  const observer = p.attentionObserver();
  if (!observer) return attention(q, k, v, options);
  const { output, probabilities } = observedAttention(q, k, v, options);
  observer(p.path, probabilities);
  return output;
}
