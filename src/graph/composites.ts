// Composite ops: layers' hot pieces, each defined in primitives. An engine may take one whole as a fused
// kernel; where the derived gradient would touch memory more often than needed, a shorter one is given (and
// tested against the derived one).

import { broadcastDims, type Dim, dimProduct, ShapeError, sameDims } from './dims.ts';
import {
  add,
  div,
  erf,
  exp,
  expand,
  flattenLeading,
  gather,
  log,
  matmul,
  maximum,
  mul,
  neg,
  putAlong,
  reduceMax,
  reduceMean,
  reduceSum,
  reshape,
  sigmoid,
  softmax,
  sqrt,
  sub,
  takeAlong,
  tanh,
  transpose,
  where,
} from './primitives.ts';
import { type Composite, type CompositeRule, constant, createNode, type DType, type Tensor, type TensorOf } from './tensor.ts';
import { adamW8bitRule, adamWRule, squaredNormRule } from './updates.ts';

function checkLastDim(op: string, x: Tensor, ...weights: Tensor[]) {
  for (const weight of weights)
    if (weight.dims.length !== 1 || weight.dims[0] !== x.dims.at(-1))
      throw new ShapeError(op, 'the weight must have the size of the last dimension', [x.dims, weight.dims]);
}

const rowMean = (x: Tensor) => reduceMean(x, [-1], true);

/** Sum over all dims but the last: the gradient of a weight that is shared by all rows. */
const sumRows = (x: Tensor) => reduceSum(flattenLeading(x), [0]);

// === Norms ===

const inverseRms = (x: Tensor, epsilon: number) => div(1, sqrt(add(rowMean(mul(x, x)), epsilon)));

/**
 * x / sqrt(mean(x^2) + epsilon) * weight over the last dim (Zhang & Sennrich 2019). Gemma passes 1 + w as the
 * weight.
 */
export function rmsNorm(x: Tensor, weight: Tensor, epsilon: number): Tensor {
  checkLastDim('rmsNorm', x, weight);
  return createNode('rmsNorm', [x, weight], { epsilon }, x);
}

const rmsNormRule: CompositeRule<'rmsNorm'> = {
  definition: ({ inputs: [x, weight], attributes: { epsilon } }) => mul(mul(x, inverseRms(x, epsilon)), weight),
  gradient({ inputs: [x, weight], attributes: { epsilon } }, dy) {
    const inverse = inverseRms(x, epsilon);
    const normalized = mul(x, inverse);
    const product = mul(dy, normalized);
    const scaled = mul(product, weight);
    return [mul(inverse, sub(mul(dy, weight), mul(normalized, rowMean(scaled)))), sumRows(product)];
  },
};

const standardize = (x: Tensor, epsilon: number) => {
  const centered = sub(x, rowMean(x));
  const inverse = div(1, sqrt(add(rowMean(mul(centered, centered)), epsilon)));
  return { normalized: mul(centered, inverse), inverse };
};

/** (x - mean) / sqrt(var + epsilon) * weight + bias over the last dim (Ba et al. 2016). */
export function layerNorm(x: Tensor, weight: Tensor, bias: Tensor, epsilon: number): Tensor {
  checkLastDim('layerNorm', x, weight, bias);
  return createNode('layerNorm', [x, weight, bias], { epsilon }, x);
}

const layerNormRule: CompositeRule<'layerNorm'> = {
  definition: ({ inputs: [x, weight, bias], attributes: { epsilon } }) => add(mul(standardize(x, epsilon).normalized, weight), bias),
  gradient({ inputs: [x, weight], attributes: { epsilon } }, dy) {
    const { normalized, inverse } = standardize(x, epsilon);
    const scaled = mul(dy, weight);
    const inner = sub(sub(scaled, rowMean(scaled)), mul(normalized, rowMean(mul(scaled, normalized))));
    return [mul(inverse, inner), sumRows(mul(dy, normalized)), sumRows(dy)];
  },
};

// === Activations ===

const GELU_SCALE = Math.sqrt(2 / Math.PI);
const GELU_CUBIC = 0.044715;
/**
 * gelu_tanh(x) = x * sigmoid(x * gate(x^2)) with gate(w) = 2 s (1 + 0.044715 w): the sigmoid form saves a
 * pass over tanh's.
 */
const geluGate = (square: Tensor) => add(mul(square, 2 * GELU_SCALE * GELU_CUBIC), 2 * GELU_SCALE);

/** GELU, tanh form (Hendrycks & Gimpel 2016; `gelu_pytorch_tanh`). */
export const geluTanh = (x: Tensor): Tensor => createNode('geluTanh', [x], {}, x);

const geluTanhRule: CompositeRule<'geluTanh'> = {
  definition: ({ inputs: [x] }) => mul(x, sigmoid(mul(x, geluGate(mul(x, x))))),
  gradient({ inputs: [x] }, dy) {
    const gate = geluGate(mul(x, x));
    const s = sigmoid(mul(x, gate));
    // d/dx [x s(x g)] = s + x s (1 - s) (3 g - 4 scale), since x g'(x) = 2 g - 4 scale
    const slope = add(mul(gate, 3), -4 * GELU_SCALE);
    return [mul(dy, mul(s, add(mul(mul(x, sub(1, s)), slope), 1)))];
  },
};

/** GELU, exact form with the error function (`gelu`). */
export const geluErf = (x: Tensor): Tensor => createNode('geluErf', [x], {}, x);

const geluErfRule: CompositeRule<'geluErf'> = {
  definition: ({ inputs: [x] }) => mul(mul(x, 0.5), add(erf(mul(x, Math.SQRT1_2)), 1)),
};

/** x * sigmoid(1.702 x): the GELU of OpenAI's CLIP. */
export const quickGelu = (x: Tensor): Tensor => createNode('quickGelu', [x], {}, x);

const quickGeluRule: CompositeRule<'quickGelu'> = {
  definition: ({ inputs: [x] }) => mul(x, sigmoid(mul(x, 1.702))),
  gradient({ inputs: [x] }, dy) {
    const s = sigmoid(mul(x, 1.702));
    return [mul(dy, mul(s, add(mul(mul(x, sub(1, s)), 1.702), 1)))];
  },
};

// === Soft caps ===

export interface CappedOptions {
  scale?: number;
  /** The cap; none when left out. */
  softcap?: number;
}

/**
 * scale a b^T under a soft cap, cap tanh(x / cap): x where x is small, never beyond the cap (Bello et al.
 * 2016; Gemma 2). `slope` is the derivative of the cap, absent without one.
 */
export function cappedProduct(a: Tensor, b: Tensor, { scale = 1, softcap }: CappedOptions): { product: Tensor; slope?: Tensor } {
  if (softcap === undefined) return { product: matmul(a, b, { transB: true, alpha: scale }) };
  // the division is the product's own factor: a pass less over the scores
  const t = tanh(matmul(a, b, { transB: true, alpha: scale / softcap }));
  return { product: mul(t, softcap), slope: sub(1, mul(t, t)) };
}

/** What an op keeps of the options. */
const cappedAttributes = ({ scale = 1, softcap }: CappedOptions) => (softcap === undefined ? { scale } : { scale, softcap });

// === Attention ===

interface AttentionShapes {
  batch: Dim;
  heads: number;
  kvHeads: number;
  tokens: Dim;
  headDim: number;
}

function attentionShapes(q: Tensor, k: Tensor, v: Tensor): AttentionShapes {
  const fail = (reason: string) => new ShapeError('attention', reason, [q.dims, k.dims, v.dims]);
  if (q.dims.length !== 4 || k.dims.length !== 4 || v.dims.length !== 4)
    throw fail('needs q, k, v of rank 4 [batch, heads, tokens, headDim]');
  const [batch, heads, tokens, headDim] = q.dims as [Dim, number, Dim, number];
  const kvHeads = k.dims[1] as number;
  if (k.dims[3] !== headDim) throw fail('q and k differ in head size');
  if (heads % kvHeads !== 0 || v.dims[1] !== kvHeads) throw fail('the heads of q must be a multiple of those of k and v');
  if (k.dims[2] !== v.dims[2]) throw fail('k and v differ in length');
  if (k.dims[0] !== batch || v.dims[0] !== batch) throw fail('q, k and v differ in batch');
  return { batch, heads, kvHeads, tokens, headDim };
}

/**
 * Heads that share a key head are laid below each other, so that grouped attention is one product a key head:
 * [b, kv, group * t, d].
 */
const groupHeads = (x: Tensor, s: AttentionShapes, width: Dim) =>
  reshape(x, [s.batch, s.kvHeads, dimProduct([s.heads / s.kvHeads, s.tokens]), width]);
const ungroupHeads = (x: Tensor, s: AttentionShapes) => reshape(x, [s.batch, s.heads, s.tokens, x.dims[3]]);

function attentionProbabilities({ inputs, attributes }: TensorOf<'attention'>, s: AttentionShapes) {
  const [q, k, , bias] = inputs;
  const { product, slope } = cappedProduct(groupHeads(q, s, s.headDim), k, attributes);
  const scores = ungroupHeads(product, s);
  return { probabilities: softmax(bias ? add(scores, bias) : scores), slope: slope && ungroupHeads(slope, s) };
}

export interface AttentionOptions extends CappedOptions {
  scale: number;
  /** Broadcasts to [batch, heads, tokens, keys]. */
  bias?: Tensor;
}

/**
 * softmax(scale q k^T + bias) v, the scaled product under a soft cap if there is one. q [batch, heads,
 * tokens, headDim]; k, v [batch, kvHeads, keys, headDim] with heads a multiple of kvHeads (multi-query and
 * grouped-query attention); bias broadcasts to [batch, heads, tokens, keys], is a mask, and gets no gradient.
 */
export function attention(q: Tensor, k: Tensor, v: Tensor, { bias, ...options }: AttentionOptions): TensorOf<'attention'> {
  const { batch, heads, tokens } = attentionShapes(q, k, v);
  const scores = [batch, heads, tokens, k.dims[2]];
  if (bias && !sameDims(broadcastDims('attention', scores, bias.dims), scores))
    throw new ShapeError('attention', 'the bias does not broadcast to the scores', [scores, bias.dims]);
  const result = { dtype: q.dtype, dims: [...q.dims.slice(0, 3), v.dims[3]] };
  return createNode('attention', bias ? [q, k, v, bias] : [q, k, v], cappedAttributes(options), result);
}

/**
 * `attention` with the probabilities that it multiplies v by, [batch, heads, tokens, keys], as a tensor on
 * the way to its result: they can be looked at, and differentiated with respect to.
 */
export function observedAttention(q: Tensor, k: Tensor, v: Tensor, options: AttentionOptions): { output: Tensor; probabilities: Tensor } {
  const y = attention(q, k, v, options);
  const s = attentionShapes(q, k, v);
  const { probabilities } = attentionProbabilities(y, s);
  return { output: ungroupHeads(matmul(groupHeads(probabilities, s, k.dims[2]), v), s), probabilities };
}

const attentionRule: CompositeRule<'attention'> = {
  definition({ inputs: [q, k, v, bias], attributes }) {
    return observedAttention(q, k, v, { ...attributes, bias }).output;
  },
  gradient(y, dy) {
    const [q, k, v] = y.inputs;
    const { scale } = y.attributes;
    const s = attentionShapes(q, k, v);
    // the same nodes as in the definition: common-subexpression elimination makes this the forward's own
    // softmax
    const { probabilities: p, slope } = attentionProbabilities(y, s);
    const dyGrouped = groupHeads(dy, s, v.dims[3]);
    const pGrouped = groupHeads(p, s, k.dims[2]);
    const dv = matmul(pGrouped, dyGrouped, { transA: true });
    const dp = ungroupHeads(matmul(dyGrouped, v, { transB: true }), s);
    // rowsum(dP * P) = rowsum(dO * O) (Dao et al. 2022): a pass over head size instead of over keys
    const dscores = mul(p, sub(dp, reduceSum(mul(dy, y), [-1], true)));
    const ds = slope ? mul(dscores, slope) : dscores;
    const dsGrouped = groupHeads(ds, s, k.dims[2]);
    const dq = ungroupHeads(matmul(dsGrouped, k, { alpha: scale }), s);
    const dk = matmul(dsGrouped, groupHeads(q, s, s.headDim), { transA: true, alpha: scale });
    return [dq, dk, dv];
  },
};

// === Masks ===

/**
 * An additive attention mask of `dtype`: 0 where `keep` (bool) is true, elsewhere so low that the softmax
 * gives 0. That is -1e9, and -2^15 in float16, which ends at -65,504 and must hold the sum with a score.
 */
export const maskBias = (keep: Tensor, dtype: DType = 'float32'): Tensor =>
  where(keep, constant(0, [], dtype), dtype === 'float16' ? -(2 ** 15) : -1e9);

// === Loss ===

/**
 * The smallest probability whose logarithm is taken: no normal number of float32 and bfloat16, or the least
 * of float16, is smaller.
 */
const smallestProbability = (dtype: DType) => (dtype === 'float16' ? 2 ** -24 : 1e-37);

/**
 * Cross entropy of the classes weight [classes, n] for hidden [rows, n] against labels int32 [rows]: loss of
 * each row, [rows]. logits = scale * hidden weight^T, under a soft cap if there is one. Only rows that carry
 * a label should be handed in: no logits are made for the others.
 */
export function linearCrossEntropy(hidden: Tensor, weight: Tensor, labels: Tensor, options: CappedOptions = {}): Tensor {
  const shapes = [hidden.dims, weight.dims, labels.dims];
  const ranks = shapes.map((dims) => dims.length).join();
  if (ranks !== '2,2,1' || hidden.dims[1] !== weight.dims[1] || labels.dims[0] !== hidden.dims[0])
    throw new ShapeError('linearCrossEntropy', 'needs hidden [rows, n], weight [classes, n], labels [rows]', shapes);
  const result = { dtype: hidden.dtype, dims: labels.dims };
  return createNode('linearCrossEntropy', [hidden, weight, labels], cappedAttributes(options), result);
}

/**
 * Elements of a weight of classes above which neither logits nor the weight's gradient are made as a whole:
 * with 256,000 words, logits of 650 labels take 0.7 GB, and the gradient 0.8 GB or more.
 */
const LARGE_WEIGHT = 2 ** 27;

const isLarge = (weight: Tensor) => weight.dims.reduce<number>((product, dim) => product * Number(dim), 1) > LARGE_WEIGHT;

const linearCrossEntropyRule: CompositeRule<'linearCrossEntropy'> = {
  definition({ inputs: [hidden, weight, labels], attributes }) {
    if (isLarge(weight)) return crossEntropyOfMany(hidden, weight, labels, attributes);
    const probabilities = takeAlong(softmax(cappedProduct(hidden, weight, attributes).product), labels);
    return neg(log(maximum(probabilities, smallestProbability(hidden.dtype))));
  },
  gradient({ inputs: [hidden, weight, labels], attributes }, dy) {
    if (isLarge(weight)) return undefined;
    // dlogits = (softmax - onehot) dy. The rows' factors go to the thin side of each product, not over the
    // logits.
    const rowFactors = mul(reshape(dy, [dy.dims[0], 1]), attributes.scale);
    const minusOnehot = putAlong(labels, expand(constant(-1, [], hidden.dtype), labels.dims), weight.dims[0]);
    const { product, slope } = cappedProduct(hidden, weight, attributes);
    const dlogits = add(softmax(product), minusOnehot);
    const difference = slope ? mul(dlogits, slope) : dlogits;
    const dhidden = mul(matmul(difference, weight), rowFactors);
    // there are many more classes than hidden units: the thin matrix is the one to read transposed
    const scaled = mul(hidden, rowFactors);
    const dweight = transpose(matmul(scaled, difference, { transA: true }), [1, 0]);
    return [dhidden, dweight, undefined];
  },
};

// === Very many classes ===

/**
 * `linearCrossEntropy` of so many classes that an engine goes through them in pieces: log sum exp of all
 * logits less the label's, which is a product of two rows.
 */
export function crossEntropyOfMany(hidden: Tensor, weight: Tensor, labels: Tensor, options: CappedOptions = {}): Tensor {
  const { scale = 1, softcap } = options;
  const product = reduceSum(mul(hidden, gather(weight, labels)), [1]);
  const ofLabels = softcap === undefined ? mul(product, scale) : mul(tanh(mul(product, scale / softcap)), softcap);
  return sub(linearLogSumExp(hidden, weight, options), ofLabels);
}

/**
 * log sum_v exp(logit of class v) for each row of hidden [rows, n] and the classes of weight [classes, n]:
 * [rows].
 */
export function linearLogSumExp(hidden: Tensor, weight: Tensor, options: CappedOptions = {}): Tensor {
  checkClasses('linearLogSumExp', hidden, weight);
  return createNode('linearLogSumExp', [hidden, weight], cappedAttributes(options), { dtype: hidden.dtype, dims: [hidden.dims[0]] });
}

/**
 * Mean of the rows of weight [classes, n] under the softmax of each row of hidden [rows, n], under a soft cap
 * each times its slope: [rows, n]. It is the gradient of `linearLogSumExp` in hidden, but for the scale.
 */
export function classMean(hidden: Tensor, weight: Tensor, options: CappedOptions = {}): Tensor {
  checkClasses('classMean', hidden, weight);
  return createNode('classMean', [hidden, weight], cappedAttributes(options), hidden);
}

/**
 * Gradient of sum(factors linearLogSumExp) in weight [classes, n], with logSumExp its result and factors,
 * both [rows]: [classes, n]. Its rows need only the same rows of weight.
 */
export function classGradient(
  hidden: Tensor,
  weight: Tensor,
  { logSumExp, factors }: { logSumExp: Tensor; factors: Tensor },
  options: CappedOptions = {},
): Tensor {
  checkClasses('classGradient', hidden, weight);
  for (const { dims } of [logSumExp, factors])
    if (!sameDims(dims, [hidden.dims[0]])) throw new ShapeError('classGradient', 'needs a number a row', [hidden.dims, dims]);
  return createNode('classGradient', [hidden, weight, logSumExp, factors], cappedAttributes(options), weight);
}

function checkClasses(op: string, hidden: Tensor, weight: Tensor) {
  if (hidden.dims.length !== 2 || weight.dims.length !== 2 || hidden.dims[1] !== weight.dims[1])
    throw new ShapeError(op, 'needs hidden [rows, n], weight [classes, n]', [hidden.dims, weight.dims]);
}

const asColumn = (x: Tensor) => reshape(x, [x.dims[0], 1]);

const linearLogSumExpRule: CompositeRule<'linearLogSumExp'> = {
  definition({ inputs: [hidden, weight], attributes }) {
    const { product } = cappedProduct(hidden, weight, attributes);
    const max = reduceMax(product, [1], true);
    const sum = reduceSum(exp(sub(product, max)), [1], true);
    return reshape(add(max, log(sum)), [hidden.dims[0]]);
  },
  gradient(y, dy) {
    const { inputs, attributes } = y;
    const [hidden, weight] = inputs;
    const dhidden = mul(classMean(hidden, weight, attributes), mul(asColumn(dy), attributes.scale));
    return [dhidden, classGradient(hidden, weight, { logSumExp: y, factors: dy }, attributes)];
  },
};

const classMeanRule: CompositeRule<'classMean'> = {
  definition({ inputs: [hidden, weight], attributes }) {
    const { product, slope } = cappedProduct(hidden, weight, attributes);
    const probabilities = softmax(product);
    return matmul(slope ? mul(probabilities, slope) : probabilities, weight);
  },
};

const classGradientRule: CompositeRule<'classGradient'> = {
  definition({ inputs: [hidden, weight, logSumExp, factors], attributes }) {
    const { product, slope } = cappedProduct(hidden, weight, attributes);
    const probabilities = exp(sub(product, asColumn(logSumExp)));
    const scaled = mul(hidden, mul(asColumn(factors), attributes.scale));
    return matmul(slope ? mul(probabilities, slope) : probabilities, scaled, { transA: true });
  },
};

// === Table ===

export const compositeRules: { readonly [O in Composite]: CompositeRule<O> } = {
  rmsNorm: rmsNormRule,
  layerNorm: layerNormRule,
  geluTanh: geluTanhRule,
  geluErf: geluErfRule,
  quickGelu: quickGeluRule,
  attention: attentionRule,
  linearCrossEntropy: linearCrossEntropyRule,
  linearLogSumExp: linearLogSumExpRule,
  classMean: classMeanRule,
  classGradient: classGradientRule,
  squaredNorm: squaredNormRule,
  adamW: adamWRule,
  adamW8bit: adamW8bitRule,
};
