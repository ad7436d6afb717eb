// Primitive ops: builders, which hold the shape rules and throw ShapeError, and below them the table of
// gradients. Every engine must run all of them. Semantics are those of the ONNX operator named in
// engine/onnx/lower.ts.

import type { BlockFormat } from '../floats.ts';
import { broadcastDims, type Dim, type Dims, dimProduct, dimSum, formatDims, normalizeAxis, ShapeError, sameDims } from './dims.ts';
import { constant, createNode, type DType, isFloat, type PerInput, type Primitive, type Tensor, type TensorOf } from './tensor.ts';

/** A tensor, or a number that becomes a scalar of the other operand's dtype. */
export type Operand = Tensor | number;

function operands(a: Operand, b: Operand): [Tensor, Tensor] {
  if (typeof a === 'number') return typeof b === 'number' ? [constant(a), constant(b)] : [constant(a, [], b.dtype), b];
  return [a, typeof b === 'number' ? constant(b, [], a.dtype) : b];
}

function checkSameType(op: Primitive, a: Tensor, b: Tensor): void {
  if (a.dtype !== b.dtype) throw new ShapeError(op, `dtypes ${a.dtype} and ${b.dtype} differ`, [a.dims, b.dims]);
}

// === Element-wise ===

type Arithmetic = 'add' | 'sub' | 'mul' | 'div' | 'maximum';
type Comparison = 'equal' | 'greater' | 'lessOrEqual' | 'and' | 'or';

function binary(op: Arithmetic | Comparison, a: Operand, b: Operand, result?: DType): Tensor {
  const [x, y] = operands(a, b);
  checkSameType(op, x, y);
  return createNode(op, [x, y], {}, { dtype: result ?? x.dtype, dims: broadcastDims(op, x.dims, y.dims) });
}

// operands of one dtype, whose shapes broadcast
export const add = (a: Operand, b: Operand): Tensor => binary('add', a, b);
export const sub = (a: Operand, b: Operand): Tensor => binary('sub', a, b);
export const mul = (a: Operand, b: Operand): Tensor => binary('mul', a, b);
export const div = (a: Operand, b: Operand): Tensor => binary('div', a, b);
/** Larger of the two; at a tie the gradient goes to the second. */
export const maximum = (a: Operand, b: Operand): Tensor => binary('maximum', a, b);

// comparisons and logic give bool, and have no gradient
export const equal = (a: Operand, b: Operand): Tensor => binary('equal', a, b, 'bool');
export const greater = (a: Operand, b: Operand): Tensor => binary('greater', a, b, 'bool');
export const lessOrEqual = (a: Operand, b: Operand): Tensor => binary('lessOrEqual', a, b, 'bool');
export const logicalAnd = (a: Operand, b: Operand): Tensor => binary('and', a, b, 'bool');
export const logicalOr = (a: Operand, b: Operand): Tensor => binary('or', a, b, 'bool');

type FloatFunction = 'neg' | 'exp' | 'log' | 'sqrt' | 'tanh' | 'sigmoid' | 'erf';

function unary(op: FloatFunction, x: Tensor): Tensor {
  if (!isFloat(x.dtype)) throw new ShapeError(op, `needs a float tensor, got ${x.dtype}`, [x.dims]);
  return createNode(op, [x], {}, x);
}

export const neg = (x: Tensor): Tensor => unary('neg', x);
export const exp = (x: Tensor): Tensor => unary('exp', x);
/** Natural logarithm. */
export const log = (x: Tensor): Tensor => unary('log', x);
export const sqrt = (x: Tensor): Tensor => unary('sqrt', x);
export const tanh = (x: Tensor): Tensor => unary('tanh', x);
/** 1 / (1 + exp(-x)). */
export const sigmoid = (x: Tensor): Tensor => unary('sigmoid', x);
/** The error function, 2 / sqrt(pi) times the integral of exp(-t^2) from 0 to x. */
export const erf = (x: Tensor): Tensor => unary('erf', x);

/** Identity whose gradient is cut: what lies before it counts as fixed. */
export const stopGradient = (x: Tensor): Tensor => createNode('stopGradient', [x], {}, x);
/**
 * x, marked: where a training step is told to compute its forward pass again for the backward pass, it begins
 * from here. Nothing else changes.
 */
export const hold = (x: Tensor): Tensor => createNode('hold', [x], {}, x);

/**
 * The same values in another dtype. Floats are rounded to nearest, ties to even; what is cast to integers is
 * cut towards zero, and should be in their range; anything but 0 is true. The gradient is cast back, and
 * there is none for what was no float.
 */
export const cast = (x: Tensor, to: DType): Tensor => (x.dtype === to ? x : createNode('cast', [x], {}, { dtype: to, dims: x.dims }));

/** `a` where the condition holds, `b` elsewhere; broadcasts. Two numbers make a float32. */
export function where(condition: Tensor, a: Operand, b: Operand): Tensor {
  if (condition.dtype !== 'bool') throw new ShapeError('where', `condition must be bool, got ${condition.dtype}`, [condition.dims]);
  const [x, y] = operands(a, b);
  checkSameType('where', x, y);
  const dims = broadcastDims('where', condition.dims, broadcastDims('where', x.dims, y.dims));
  return createNode('where', [condition, x, y], {}, { dtype: x.dtype, dims });
}

// === Matrix product ===

export interface MatmulOptions {
  transA?: boolean;
  transB?: boolean;
  /** Factor on the product, free in the fused kernel. */
  alpha?: number;
}

/**
 * Batched product alpha * op(a) op(b) over the last two dims; leading dims broadcast. [.., m, k] x [.., k, n]
 * -> [.., m, n].
 */
export function matmul(a: Tensor, b: Tensor, { transA = false, transB = false, alpha = 1 }: MatmulOptions = {}): Tensor {
  if (a.dims.length < 2 || b.dims.length < 2) throw new ShapeError('matmul', 'both operands need rank 2 or more', [a.dims, b.dims]);
  checkSameType('matmul', a, b);
  const [rowsA, columnsA] = a.dims.slice(-2);
  const [rowsB, columnsB] = b.dims.slice(-2);
  const [m, k] = transA ? [columnsA, rowsA] : [rowsA, columnsA];
  const [k2, n] = transB ? [columnsB, rowsB] : [rowsB, columnsB];
  if (k !== k2) throw new ShapeError('matmul', `inner dimensions ${k} and ${k2} differ`, [a.dims, b.dims]);
  const batch = broadcastDims('matmul', a.dims.slice(0, -2), b.dims.slice(0, -2));
  return createNode('matmul', [a, b], { transA, transB, alpha }, { dtype: a.dtype, dims: [...batch, m, n] });
}

// === Shape ===

/** The same elements, row-major, as `dims`, which must hold as many. */
export function reshape(x: Tensor, dims: Dims): Tensor {
  if (sameDims(x.dims, dims)) return x;
  if (x.op === 'reshape') return reshape(x.inputs[0], dims);
  if (dimProduct(x.dims) !== dimProduct(dims))
    throw new ShapeError('reshape', `${formatDims(dims)} holds another number of elements`, [x.dims]);
  return createNode('reshape', [x], {}, { dtype: x.dtype, dims });
}

/** [a, b, .., n] -> [a*b*.., n]. */
export function flattenLeading(x: Tensor): Tensor {
  return reshape(x, [dimProduct(x.dims.slice(0, -1)), x.dims.at(-1)!]);
}

/** Axes in another order: axis i of the result is axis perm[i] of x. */
export function transpose(x: Tensor, perm: readonly number[]): Tensor {
  if (perm.length !== x.dims.length || x.dims.some((_, axis) => !perm.includes(axis)))
    throw new ShapeError('transpose', `[${perm}] is not a permutation of the axes`, [x.dims]);
  return createNode('transpose', [x], { perm }, { dtype: x.dtype, dims: perm.map((axis) => x.dims[axis]) });
}

/** Tensors of one dtype, and of equal dims but along `axis`, one after the other along it. */
export function concat(inputs: readonly Tensor[], axis: number): Tensor {
  const [first] = inputs;
  const at = normalizeAxis('concat', axis, first.dims);
  const differs = (x: Tensor) =>
    x.dtype !== first.dtype || x.dims.length !== first.dims.length || x.dims.some((dim, i) => i !== at && dim !== first.dims[i]);
  const shapes = inputs.map((x) => x.dims);
  if (inputs.some(differs)) throw new ShapeError('concat', `dtypes or shapes differ outside axis ${at}`, shapes);
  return createNode(
    'concat',
    inputs,
    { axis: at },
    {
      dtype: first.dtype,
      dims: first.dims.map((dim, i) => (i === at ? dimSum(shapes.map((dims) => dims[i])) : dim)),
    },
  );
}

/** Elements [start, end) along one axis. */
export function slice(x: Tensor, axis: number, start: number, end: number): Tensor {
  const at = normalizeAxis('slice', axis, x.dims);
  const size = x.dims[at];
  if (start < 0 || end <= start || (typeof size === 'number' && end > size))
    throw new ShapeError('slice', `[${start}, ${end}) is outside axis ${at}`, [x.dims]);
  return createNode('slice', [x], { axis: at, start, end }, { dtype: x.dtype, dims: x.dims.with(at, end - start) });
}

/**
 * The last `count` entries along one axis, an integer scalar that is known when the graph runs; all of them
 * for 0. The result has the size `kept` there. It gets no gradient.
 */
export function takeLast(x: Tensor, axis: number, count: Tensor, kept: string): Tensor {
  if (!isIndex(count) || count.dims.length > 0) throw new ShapeError('takeLast', 'the count must be one integer', [x.dims, count.dims]);
  const at = normalizeAxis('takeLast', axis, x.dims);
  return createNode('takeLast', [x, count], { axis: at }, { dtype: x.dtype, dims: x.dims.with(at, kept) });
}

/** Zeros before and after along one axis. */
export function pad(x: Tensor, axis: number, before: number, after: number): Tensor {
  if (before === 0 && after === 0) return x;
  const at = normalizeAxis('pad', axis, x.dims);
  const dims = x.dims.with(at, dimSum([x.dims[at], before + after]));
  return createNode('pad', [x], { axis: at, before, after }, { dtype: x.dtype, dims });
}

/** Broadcasts to `dims` explicitly. */
export function expand(x: Tensor, dims: Dims): Tensor {
  if (sameDims(x.dims, dims)) return x;
  if (!sameDims(broadcastDims('expand', x.dims, dims), dims))
    throw new ShapeError('expand', `does not widen to ${formatDims(dims)}`, [x.dims]);
  return createNode('expand', [x], {}, { dtype: x.dtype, dims });
}

// === Reductions ===

function reduce(op: 'reduceSum' | 'reduceMean' | 'reduceMax', x: Tensor, over: readonly number[], keepDims: boolean): Tensor {
  const axes = over.map((axis) => normalizeAxis(op, axis, x.dims));
  const dims = keepDims ? x.dims.map((dim, i) => (axes.includes(i) ? 1 : dim)) : x.dims.filter((_, i) => !axes.includes(i));
  return createNode(op, [x], { axes, keepDims }, { dtype: x.dtype, dims });
}

/** Sum over `axes`, which are left out of the result or, with `keepDims`, kept as 1. */
export const reduceSum = (x: Tensor, axes: readonly number[], keepDims = false): Tensor => reduce('reduceSum', x, axes, keepDims);
/** Mean over `axes`; has a gradient where their sizes are known. */
export const reduceMean = (x: Tensor, axes: readonly number[], keepDims = false): Tensor => reduce('reduceMean', x, axes, keepDims);
/** Largest element; counts as fixed for gradients. */
export const reduceMax = (x: Tensor, axes: readonly number[], keepDims = false): Tensor => reduce('reduceMax', x, axes, keepDims);

/** Sums a gradient over the axes that broadcasting had widened, back to `dims`. */
export function reduceToShape(dy: Tensor, dims: Dims): Tensor {
  if (sameDims(dy.dims, dims)) return dy;
  const extra = dy.dims.length - dims.length;
  const axes: number[] = [];
  for (let i = 0; i < dy.dims.length; i++) if (i < extra || (dims[i - extra] === 1 && dy.dims[i] !== 1)) axes.push(i);
  return reshape(axes.length > 0 ? reduceSum(dy, axes) : dy, dims);
}

/** Softmax over the last axis. */
export const softmax = (x: Tensor): Tensor => createNode('softmax', [x], {}, x);

// === Indexing ===

const isIndex = ({ dtype }: Tensor) => dtype === 'int32' || dtype === 'int64';

/** Index of the largest value along the last axis, the first of equals: x [.., n] -> int32 [..]. */
export function argmax(x: Tensor): Tensor {
  if (x.dims.length === 0) throw new ShapeError('argmax', 'needs an axis', [x.dims]);
  return createNode('argmax', [x], {}, { dtype: 'int32', dims: x.dims.slice(0, -1) });
}

/** Sums along the last axis of all entries up to each, its own included: integers [.., n] -> the same. */
export function cumsum(x: Tensor): Tensor {
  if (!isIndex(x) || x.dims.length === 0) throw new ShapeError('cumsum', `needs integers along an axis, got ${x.dtype}`, [x.dims]);
  return createNode('cumsum', [x], {}, x);
}

/** Rows of `data` [rows, ..] by index: indices [a, b] -> [a, b, ..]. Embedding lookup. */
export function gather(data: Tensor, indices: Tensor): Tensor {
  if (!isIndex(indices)) throw new ShapeError('gather', `indices must be integers, got ${indices.dtype}`, [data.dims, indices.dims]);
  return createNode('gather', [data, indices], {}, { dtype: data.dtype, dims: [...indices.dims, ...data.dims.slice(1)] });
}

/** Zeros of `dims` [rows, ..] to which each update row is added at its index: the gradient of `gather`. */
export function scatterAdd(indices: Tensor, updates: Tensor, dims: Dims): Tensor {
  if (!isIndex(indices) || !sameDims(updates.dims, [...indices.dims, ...dims.slice(1)])) {
    const reason = `needs integer indices and one update row each for ${formatDims(dims)}`;
    throw new ShapeError('scatterAdd', reason, [indices.dims, updates.dims]);
  }
  return createNode('scatterAdd', [indices, updates], {}, { dtype: updates.dtype, dims });
}

/** x[.., indices[..]]: one element of each row. [.., n], [..] -> [..]. */
export function takeAlong(x: Tensor, indices: Tensor): Tensor {
  if (!sameDims(x.dims.slice(0, -1), indices.dims)) throw new ShapeError('takeAlong', 'one index a row is needed', [x.dims, indices.dims]);
  return createNode('takeAlong', [x, indices], {}, { dtype: x.dtype, dims: indices.dims });
}

/**
 * Rows of `size` zeros, each with one value at its index: the gradient of `takeAlong`. [..], [..] -> [..,
 * size].
 */
export function putAlong(indices: Tensor, values: Tensor, size: Dim): Tensor {
  if (!sameDims(indices.dims, values.dims)) throw new ShapeError('putAlong', 'one value an index is needed', [indices.dims, values.dims]);
  return createNode('putAlong', [indices, values], {}, { dtype: values.dtype, dims: [...indices.dims, size] });
}

/**
 * x [.., n] with the rows where mask [..] holds replaced, in order, by rows [count, n]; count must be the
 * number of true entries.
 */
export function maskedScatter(x: Tensor, mask: Tensor, rows: Tensor): Tensor {
  if (!sameDims(x.dims.slice(0, -1), mask.dims) || rows.dims.length !== 2 || rows.dims[1] !== x.dims.at(-1))
    throw new ShapeError('maskedScatter', 'needs x [.., n], mask [..] and rows [count, n]', [x.dims, mask.dims, rows.dims]);
  return createNode('maskedScatter', [x, mask, rows], {}, x);
}

/** The rows of x [.., n] where mask [..] holds, in order: [count, n]. */
export function maskedGather(x: Tensor, mask: Tensor, count: Dim): Tensor {
  if (!sameDims(x.dims.slice(0, -1), mask.dims)) throw new ShapeError('maskedGather', 'needs x [.., n] and mask [..]', [x.dims, mask.dims]);
  return createNode('maskedGather', [x, mask], {}, { dtype: x.dtype, dims: [count, x.dims.at(-1)!] });
}

// === Position encoding ===

/**
 * Rotary position embedding, half-rotate form (Su et al. 2021; Hugging Face `apply_rotary_pos_emb`): x
 * [batch, heads, tokens, headDim], positions int32 [batch, tokens], tables cos and sin [positions, headDim /
 * 2]. The tables get no gradient.
 */
export function rotary(x: Tensor, positions: Tensor, cos: Tensor, sin: Tensor): Tensor {
  const headDim = x.dims[3];
  if (x.dims.length !== 4 || typeof headDim !== 'number' || headDim % 2 !== 0)
    throw new ShapeError('rotary', 'needs x [batch, heads, tokens, even head size]', [x.dims]);
  if (!sameDims(positions.dims, [x.dims[0], x.dims[2]]))
    throw new ShapeError('rotary', 'positions must be [batch, tokens]', [x.dims, positions.dims]);
  if (cos.dims[1] !== headDim / 2 || sin.dims[1] !== headDim / 2)
    throw new ShapeError('rotary', 'tables must be [positions, head size / 2]', [x.dims, cos.dims]);
  return createNode('rotary', [x, positions, cos, sin], {}, x);
}

// === Packed weights ===

/**
 * The matrix [rows, columns] whose blocks of `blockSize` columns are scale * (q - 2^(bits - 1)): packed uint8
 * [rows, columns * bits / 8], the first of two 4-bit numbers in the low half of its byte; scale [rows,
 * columns / blockSize]. It gets no gradient.
 */
export function dequantize(packed: Tensor, scale: Tensor, { bits, blockSize }: BlockFormat): Tensor {
  const [rows, bytes] = packed.dims;
  const columns = typeof bytes === 'number' ? (bytes * 8) / bits : Number.NaN;
  if (packed.dtype !== 'uint8' || packed.dims.length !== 2 || !sameDims(scale.dims, [rows, columns / blockSize])) {
    const reason = `needs uint8 [rows, bytes] and a scale for every ${blockSize} numbers of ${bits} bits`;
    throw new ShapeError('dequantize', reason, [packed.dims, scale.dims]);
  }
  return createNode('dequantize', [packed, scale], { bits, blockSize }, { dtype: scale.dtype, dims: [rows, columns] });
}

// === Gradients ===

/**
 * Gradients for each input given the gradient of the result; undefined where there is none (integers, masks).
 */
export type GradientRule<O extends Primitive> = (y: TensorOf<O>, dy: Tensor) => PerInput<O, Tensor | undefined>;

/** A scalar constant needs no gradient: leaving it out keeps whole reductions from being built. */
const reduceUnlessConstant = (gradient: Tensor, x: Tensor) => (x.op === 'constant' ? undefined : reduceToShape(gradient, x.dims));

type BinaryGradient = (a: Tensor, b: Tensor, dy: Tensor, y: Tensor) => [Tensor, Tensor];
const binaryGradient =
  (gradient: BinaryGradient): GradientRule<Arithmetic> =>
  (y, dy) => {
    const [a, b] = y.inputs;
    const [da, db] = gradient(a, b, dy, y);
    return [reduceUnlessConstant(da, a), reduceUnlessConstant(db, b)];
  };

const unaryGradient =
  (gradient: (x: Tensor, y: Tensor, dy: Tensor) => Tensor): GradientRule<FloatFunction> =>
  (y, dy) => [gradient(y.inputs[0], y, dy)];

const noGradient = () => [undefined, undefined] as const;

/** The gradient of a reduction laid along the axes that are gone, as 1 each. */
function alongReduced(y: TensorOf<'reduceSum' | 'reduceMean'>, dy: Tensor): Tensor {
  return reshape(
    dy,
    y.inputs[0].dims.map((dim, i) => (y.attributes.axes.includes(i) ? 1 : dim)),
  );
}

/** Size of an axis, which the gradient of `y` must know. */
function knownSize(y: Tensor, x: Tensor, axis: number, shapes: readonly Dims[]): number {
  const size = x.dims[axis];
  if (typeof size !== 'number') throw new ShapeError(y.op, 'has a gradient only along an axis of known size', shapes);
  return size;
}

export const gradients: { readonly [O in Primitive]: GradientRule<O> } = {
  add: binaryGradient((_a, _b, dy) => [dy, dy]),
  sub: binaryGradient((_a, _b, dy) => [dy, neg(dy)]),
  mul: binaryGradient((a, b, dy) => [mul(dy, b), mul(dy, a)]),
  div: binaryGradient((_a, b, dy, y) => [div(dy, b), neg(div(mul(dy, y), b))]),
  maximum: binaryGradient((a, b, dy) => {
    const first = greater(a, b);
    return [where(first, dy, 0), where(first, 0, dy)];
  }),
  neg: unaryGradient((_x, _y, dy) => neg(dy)),
  exp: unaryGradient((_x, y, dy) => mul(dy, y)),
  log: unaryGradient((x, _y, dy) => div(dy, x)),
  sqrt: unaryGradient((_x, y, dy) => div(dy, mul(y, 2))),
  tanh: unaryGradient((_x, y, dy) => mul(dy, sub(1, mul(y, y)))),
  sigmoid: unaryGradient((_x, y, dy) => mul(dy, mul(y, sub(1, y)))),
  erf: unaryGradient((x, _y, dy) => mul(dy, mul(exp(neg(mul(x, x))), 2 / Math.sqrt(Math.PI)))),
  stopGradient: () => [undefined],
  hold: (_, dy) => [dy],
  equal: noGradient,
  greater: noGradient,
  lessOrEqual: noGradient,
  and: noGradient,
  or: noGradient,
  cast: ({ inputs: [x] }, dy) => [isFloat(x.dtype) ? cast(dy, x.dtype) : undefined],
  where({ inputs: [condition, a, b] }, dy) {
    return [undefined, reduceUnlessConstant(where(condition, dy, 0), a), reduceUnlessConstant(where(condition, 0, dy), b)];
  },
  matmul(y, dy) {
    const [a, b] = y.inputs;
    const { transA, transB, alpha } = y.attributes;
    if (b.dims.length === 2 && a.dims.length > 2 && !transA) {
      // a weight shared by all leading dims: one flat product each way instead of a batched one that is then
      // summed
      const flatA = flattenLeading(a);
      const flatDy = flattenLeading(dy);
      return [
        matmul(dy, b, { transB: !transB, alpha }),
        transB ? matmul(flatDy, flatA, { transA: true, alpha }) : matmul(flatA, flatDy, { transA: true, alpha }),
      ];
    }
    const da = transA ? matmul(b, dy, { transA: transB, transB: true, alpha }) : matmul(dy, b, { transB: !transB, alpha });
    const db = transB ? matmul(dy, a, { transA: true, transB: transA, alpha }) : matmul(a, dy, { transA: !transA, alpha });
    return [reduceToShape(da, a.dims), reduceToShape(db, b.dims)];
  },
  reshape: ({ inputs: [x] }, dy) => [reshape(dy, x.dims)],
  transpose: ({ attributes: { perm } }, dy) => [
    transpose(
      dy,
      perm.map((_, i) => perm.indexOf(i)),
    ),
  ],
  concat(y, dy) {
    const { axis } = y.attributes;
    const shapes = y.inputs.map((x) => x.dims);
    let start = 0;
    return y.inputs.map((x) => {
      const end = start + knownSize(y, x, axis, shapes);
      const part = slice(dy, axis, start, end);
      start = end;
      return part;
    });
  },
  slice(y, dy) {
    const { axis, start, end } = y.attributes;
    const [x] = y.inputs;
    return [pad(dy, axis, start, knownSize(y, x, axis, [x.dims]) - end)];
  },
  // it selects what a model answers, and is not trained through
  takeLast: noGradient,
  pad(y, dy) {
    const { axis, before } = y.attributes;
    return [slice(dy, axis, before, before + knownSize(y, y.inputs[0], axis, [y.dims]))];
  },
  expand: ({ inputs: [x] }, dy) => [reduceToShape(dy, x.dims)],
  reduceSum: (y, dy) => [expand(alongReduced(y, dy), y.inputs[0].dims)],
  reduceMean(y, dy) {
    const [x] = y.inputs;
    const count = dimProduct(y.attributes.axes.map((axis) => x.dims[axis]));
    if (typeof count !== 'number') throw new ShapeError('reduceMean', 'has a gradient only over axes of known size', [x.dims]);
    return [expand(mul(alongReduced(y, dy), 1 / count), x.dims)];
  },
  reduceMax: () => [undefined],
  softmax: (y, dy) => [mul(y, sub(dy, reduceSum(mul(dy, y), [-1], true)))],
  argmax: () => [undefined],
  cumsum: () => [undefined],
  gather: ({ inputs: [data, indices] }, dy) => [scatterAdd(indices, dy, data.dims), undefined],
  scatterAdd: ({ inputs: [indices] }, dy) => [undefined, gather(dy, indices)],
  takeAlong: ({ inputs: [x, indices] }, dy) => [putAlong(indices, dy, x.dims.at(-1)!), undefined],
  putAlong: ({ inputs: [indices] }, dy) => [undefined, takeAlong(dy, indices)],
  maskedScatter({ inputs: [, mask, rows] }, dy) {
    return [where(reshape(mask, [...mask.dims, 1]), 0, dy), undefined, maskedGather(dy, mask, rows.dims[0])];
  },
  maskedGather({ inputs: [x, mask] }, dy) {
    return [maskedScatter(expand(constant(0, [], x.dtype), x.dims), mask, dy), undefined];
  },
  // a rotation's transpose turns the other way
  rotary: ({ inputs: [, positions, cos, sin] }, dy) => [rotary(dy, positions, cos, neg(sin)), undefined, undefined, undefined],
  // such weights are run, not trained
  dequantize: noGradient,
};
