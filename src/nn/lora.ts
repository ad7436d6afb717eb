// LoRA (Hu et al. 2021, arXiv 2106.09685): beside the frozen weight of a linear layer, two thin matrices
// learn what is added to it. Names, initialization and scale as in peft 0.21 (tuners/lora/layer.py); rsLoRA
// is Kalajdzievski 2023, arXiv 2312.03732.

import { add, cast, lessOrEqual, matmul, mul } from '../graph/primitives.ts';
import { constant, type Tensor } from '../graph/tensor.ts';
import { createRandom, hashString } from '../random.ts';
import { type Parameters, uniform, zeros } from './parameters.ts';

/** Names of a layer's two matrices, A [rank, in] and B [out, rank], and of the weight that they add to. */
export const downName = (module: string) => `${module}.lora_A.weight`;
export const upName = (module: string) => `${module}.lora_B.weight`;
export const weightName = (module: string) => `${module}.weight`;

/** Whether a parameter belongs to an adapter. */
export const isOfAdapter = (name: string) => /\.lora_[AB]\.weight$/.test(name);

/** alpha / rank, or alpha / sqrt(rank) with rank stabilization. */
export const loraScale = (rank: number, alpha: number, isRankStabilized: boolean) => alpha / (isRankStabilized ? Math.sqrt(rank) : rank);

/**
 * y + scale * dropout(x) A^T B^T, where the linear layer that is being built has an adapter; y otherwise.
 * x [.., in], y [.., out]. B begins at zero, so that nothing has changed before the first step.
 */
export function adapted(p: Parameters, x: Tensor, y: Tensor): Tensor {
  const adapter = p.adapter();
  if (!adapter) return y;
  const { rank, scale, dropout } = adapter;
  const [inFeatures, outFeatures] = [x.dims.at(-1) as number, y.dims.at(-1) as number];
  const down = p.get('lora_A.weight', [rank, inFeatures], uniform(inFeatures ** -0.5));
  const up = p.get('lora_B.weight', [outFeatures, rank], zeros);
  // the factor of the dropout costs nothing in the product
  const low = dropout
    ? matmul(mul(x, dropout.mask(x, p.path)), down, { transB: true, alpha: 1 / (1 - dropout.rate) })
    : matmul(x, down, { transB: true });
  return add(y, matmul(low, up, { transB: true, alpha: scale }));
}

/** weight + scale * B A: the weight [out, in] with which the layer does the same without an adapter. */
export const mergedWeight = (weight: Tensor, down: Tensor, up: Tensor, scale: number): Tensor =>
  add(weight, matmul(up, down, { alpha: scale }));

/**
 * What x [.., in] is multiplied by to leave out about a share of `rate` of its elements: 0 or 1 for each.
 * `rows` are random odd int32 numbers, one a row of x and of shape [.., 1]: they are inputs of a step, so
 * that what is left out is a function of them and of the layer's name. An element is left out by the product
 * of its row's and its column's number modulo 2^32.
 */
export function dropoutMask(x: Pick<Tensor, 'dims' | 'dtype'>, rows: Tensor, rate: number, name: string): Tensor {
  const random = createRandom(hashString(name), 'dropout');
  const columns = Int32Array.from({ length: x.dims.at(-1) as number }, () => oddNumber(random));
  const hash = mul(rows, constant(columns, [columns.length], 'int32'));
  // of the 2^32 numbers, those above are the share `rate`
  return cast(lessOrEqual(hash, constant(Math.round(2 ** 31 - 1 - rate * 2 ** 32), [], 'int32')), x.dtype);
}

/** A random odd int32. */
export const oddNumber = (random: { integer(n: number): number }): number => random.integer(2 ** 32) | 1 | 0;
