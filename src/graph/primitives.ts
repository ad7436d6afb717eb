// Primitive ops: each with its shape rule and its gradient rule. Every engine must run all of them.
// Semantics are those of the ONNX operator named in engine/onnx/lower.ts.

import {
  broadcastDims,
  constant,
  type Dim,
  type Dims,
  type DType,
  defineOp,
  dimProduct,
  dimSum,
  formatDims,
  makeNode,
  normaliseAxis,
  ShapeError,
  sameDims,
  type Tensor,
} from './tensor.ts';

export type Operand = Tensor | number;

function toTensor(value: Operand, like: Tensor): Tensor {
  return typeof value === 'number' ? constant(value, [], like.dtype) : value;
}

function operands(a: Operand, b: Operand): [Tensor, Tensor] {
  if (typeof a === 'number') return [toTensor(a, b as Tensor), b as Tensor];
  return [a, toTensor(b, a)];
}

/** Sums a gradient over the axes that broadcasting had widened, back to `dims`. */
export function reduceToShape(dy: Tensor, dims: Dims): Tensor {
  if (sameDims(dy.dims, dims)) return dy;
  const extra = dy.dims.length - dims.length;
  const axes: number[] = [];
  for (let i = 0; i < dy.dims.length; i++) if (i < extra || (dims[i - extra] === 1 && dy.dims[i] !== 1)) axes.push(i);
  return reshape(axes.length > 0 ? reduceSum(dy, axes) : dy, dims);
}

// === Element-wise, two operands ===

function defineBinary(op: string, gradient: (a: Tensor, b: Tensor, dy: Tensor, y: Tensor) => [Tensor, Tensor]): void {
  defineOp(op, {
    infer([a, b]) {
      if (a.dtype !== b.dtype) throw new ShapeError(op, `dtypes ${a.dtype} and ${b.dtype} differ`, [a.dims, b.dims]);
      return { dtype: a.dtype, dims: broadcastDims(op, a.dims, b.dims) };
    },
    gradient(y, dy) {
      const [a, b] = y.inputs;
      const [da, db] = gradient(a, b, dy, y);
      // a scalar constant needs no gradient: leaving it out keeps whole reductions from being built
      return [a.op === 'constant' ? undefined : reduceToShape(da, a.dims), b.op === 'constant' ? undefined : reduceToShape(db, b.dims)];
    },
  });
}

defineBinary('add', (_a, _b, dy) => [dy, dy]);
defineBinary('sub', (_a, _b, dy) => [dy, neg(dy)]);
defineBinary('mul', (a, b, dy) => [mul(dy, b), mul(dy, a)]);
defineBinary('div', (_a, b, dy, y) => [div(dy, b), neg(div(mul(dy, y), b))]);
defineBinary('maximum', (a, b, dy) => {
  const zero = constant(0);
  const first = greater(a, b);
  return [where(first, dy, zero), where(first, zero, dy)];
});

export const add = (a: Operand, b: Operand): Tensor => makeNode('add', operands(a, b));
export const sub = (a: Operand, b: Operand): Tensor => makeNode('sub', operands(a, b));
export const mul = (a: Operand, b: Operand): Tensor => makeNode('mul', operands(a, b));
export const div = (a: Operand, b: Operand): Tensor => makeNode('div', operands(a, b));
/** Larger of the two; at a tie the gradient goes to the second. */
export const maximum = (a: Operand, b: Operand): Tensor => makeNode('maximum', operands(a, b));

// === Element-wise, one operand ===

function defineUnary(op: string, gradient: (x: Tensor, y: Tensor, dy: Tensor) => Tensor): (x: Tensor) => Tensor {
  defineOp(op, {
    infer: ([x]) => {
      if (!x.dtype.includes('float')) throw new ShapeError(op, `needs a float tensor, got ${x.dtype}`, [x.dims]);
      return { dtype: x.dtype, dims: x.dims };
    },
    gradient: (y, dy) => [gradient(y.inputs[0], y, dy)],
  });
  return (x) => makeNode(op, [x]);
}

export const neg = defineUnary('neg', (_x, _y, dy) => neg(dy));
export const exp = defineUnary('exp', (_x, y, dy) => mul(dy, y));
export const log = defineUnary('log', (x, _y, dy) => div(dy, x));
export const sqrt = defineUnary('sqrt', (_x, y, dy) => div(dy, mul(y, 2)));
export const tanh = defineUnary('tanh', (_x, y, dy) => mul(dy, sub(1, mul(y, y))));
export const sigmoid = defineUnary('sigmoid', (_x, y, dy) => mul(dy, mul(y, sub(1, y))));
export const erf = defineUnary('erf', (x, _y, dy) => mul(dy, mul(exp(neg(mul(x, x))), 2 / Math.sqrt(Math.PI))));

/** Identity whose gradient is cut: what lies before it counts as fixed. */
defineOp('stopGradient', { infer: ([x]) => ({ dtype: x.dtype, dims: x.dims }), gradient: () => [undefined] });
export const stopGradient = (x: Tensor): Tensor => makeNode('stopGradient', [x]);

// === Comparisons and logic (no gradient) ===

function defineComparison(op: string): (a: Operand, b: Operand) => Tensor {
  defineOp(op, {
    infer([a, b]) {
      if (a.dtype !== b.dtype) throw new ShapeError(op, `dtypes ${a.dtype} and ${b.dtype} differ`, [a.dims, b.dims]);
      return { dtype: 'bool', dims: broadcastDims(op, a.dims, b.dims) };
    },
    gradient: () => [undefined, undefined],
  });
  return (a, b) => makeNode(op, operands(a, b));
}

export const equal = defineComparison('equal');
export const greater = defineComparison('greater');
export const lessOrEqual = defineComparison('lessOrEqual');
export const logicalAnd = defineComparison('and');
export const logicalOr = defineComparison('or');

defineOp('cast', {
  infer: ([x], a) => ({ dtype: a.to as DType, dims: x.dims }),
  gradient: (y, dy) => [y.inputs[0].dtype.includes('float') ? cast(dy, y.inputs[0].dtype) : undefined],
});
export const cast = (x: Tensor, to: DType): Tensor => (x.dtype === to ? x : makeNode('cast', [x], { to }));

defineOp('where', {
  infer([condition, a, b]) {
    if (condition.dtype !== 'bool') throw new ShapeError('where', `condition must be bool, got ${condition.dtype}`, [condition.dims]);
    if (a.dtype !== b.dtype) throw new ShapeError('where', `dtypes ${a.dtype} and ${b.dtype} differ`, [a.dims, b.dims]);
    return { dtype: a.dtype, dims: broadcastDims('where', condition.dims, broadcastDims('where', a.dims, b.dims)) };
  },
  gradient(y, dy) {
    const [condition, a, b] = y.inputs;
    const zero = constant(0, [], y.dtype);
    return [
      undefined,
      a.op === 'constant' ? undefined : reduceToShape(where(condition, dy, zero), a.dims),
      b.op === 'constant' ? undefined : reduceToShape(where(condition, zero, dy), b.dims),
    ];
  },
});
/** `a` where the condition holds, `b` elsewhere; broadcasts. */
export function where(condition: Tensor, a: Operand, b: Operand): Tensor {
  const [x, y] = typeof a === 'number' && typeof b === 'number' ? [constant(a), constant(b)] : operands(a, b);
  return makeNode('where', [condition, x, y]);
}

// === Matrix product ===

export interface MatmulOptions {
  transA?: boolean;
  transB?: boolean;
  /** Factor on the product, free in the fused kernel. */
  alpha?: number;
}

defineOp('matmul', {
  infer([a, b], { transA, transB }) {
    if (a.dims.length < 2 || b.dims.length < 2) throw new ShapeError('matmul', 'both operands need rank 2 or more', [a.dims, b.dims]);
    if (a.dtype !== b.dtype) throw new ShapeError('matmul', `dtypes ${a.dtype} and ${b.dtype} differ`, [a.dims, b.dims]);
    const [m, k] = transA ? [a.dims.at(-1)!, a.dims.at(-2)!] : [a.dims.at(-2)!, a.dims.at(-1)!];
    const [k2, n] = transB ? [b.dims.at(-1)!, b.dims.at(-2)!] : [b.dims.at(-2)!, b.dims.at(-1)!];
    if (k !== k2) throw new ShapeError('matmul', `inner dimensions ${k} and ${k2} differ`, [a.dims, b.dims]);
    return { dtype: a.dtype, dims: [...broadcastDims('matmul', a.dims.slice(0, -2), b.dims.slice(0, -2)), m, n] };
  },
  gradient(y, dy) {
    const [a, b] = y.inputs;
    const { transA = false, transB = false, alpha = 1 } = y.attributes as MatmulOptions;
    if (b.dims.length === 2 && a.dims.length > 2 && !transA) {
      // a weight shared by all leading dims: one flat product each way instead of a batched one that is then summed
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
});
/** Batched product alpha * op(a) op(b) over the last two dims; leading dims broadcast. [.., m, k] x [.., k, n] -> [.., m, n]. */
export function matmul(a: Tensor, b: Tensor, { transA = false, transB = false, alpha = 1 }: MatmulOptions = {}): Tensor {
  return makeNode('matmul', [a, b], { transA, transB, alpha });
}

// === Shape ===

defineOp('reshape', {
  infer([x], a) {
    const dims = a.dims as Dims;
    if (dimProduct(x.dims) !== dimProduct(dims))
      throw new ShapeError('reshape', `${formatDims(dims)} holds another number of elements`, [x.dims]);
    return { dtype: x.dtype, dims };
  },
  gradient: (y, dy) => [reshape(dy, y.inputs[0].dims)],
});
export function reshape(x: Tensor, dims: Dims): Tensor {
  if (sameDims(x.dims, dims)) return x;
  return x.op === 'reshape' ? reshape(x.inputs[0], dims) : makeNode('reshape', [x], { dims });
}

/** [a, b, .., n] -> [a*b*.., n]. */
export function flattenLeading(x: Tensor): Tensor {
  return reshape(x, [dimProduct(x.dims.slice(0, -1)), x.dims.at(-1)!]);
}

defineOp('transpose', {
  infer([x], a) {
    const perm = a.perm as readonly number[];
    if (perm.length !== x.dims.length || x.dims.some((_, axis) => !perm.includes(axis)))
      throw new ShapeError('transpose', `[${perm}] is not a permutation of the axes`, [x.dims]);
    return { dtype: x.dtype, dims: perm.map((axis) => x.dims[axis]) };
  },
  gradient(y, dy) {
    const perm = y.attributes.perm as readonly number[];
    const inverse = perm.map((_, i) => perm.indexOf(i));
    return [transpose(dy, inverse)];
  },
});
export const transpose = (x: Tensor, perm: readonly number[]): Tensor => makeNode('transpose', [x], { perm });

defineOp('concat', {
  infer(inputs, a) {
    const axis = a.axis as number;
    const [first] = inputs;
    for (const x of inputs) {
      if (x.dtype !== first.dtype || x.dims.length !== first.dims.length || x.dims.some((dim, i) => i !== axis && dim !== first.dims[i]))
        throw new ShapeError(
          'concat',
          `dtypes or shapes differ outside axis ${axis}`,
          inputs.map((t) => t.dims),
        );
    }
    return { dtype: first.dtype, dims: first.dims.map((dim, i) => (i === axis ? dimSum(inputs.map((x) => x.dims[i])) : dim)) };
  },
  gradient(y, dy) {
    const axis = y.attributes.axis as number;
    let start = 0;
    return y.inputs.map((x) => {
      const size = x.dims[axis];
      if (typeof size !== 'number')
        throw new ShapeError(
          'concat',
          'has a gradient only along an axis of known size',
          y.inputs.map((t) => t.dims),
        );
      const part = slice(dy, axis, start, start + size);
      start += size;
      return part;
    });
  },
});
export function concat(inputs: readonly Tensor[], axis: number): Tensor {
  return makeNode('concat', inputs, { axis: normaliseAxis('concat', axis, inputs[0].dims) });
}

defineOp('slice', {
  infer([x], a) {
    const { axis, start, end } = a as { axis: number; start: number; end: number };
    const size = x.dims[axis];
    if (start < 0 || end <= start || (typeof size === 'number' && end > size))
      throw new ShapeError('slice', `[${start}, ${end}) is outside axis ${axis}`, [x.dims]);
    return { dtype: x.dtype, dims: x.dims.map((dim, i) => (i === axis ? end - start : dim)) };
  },
  gradient(y, dy) {
    const { axis, start, end } = y.attributes as { axis: number; start: number; end: number };
    const [x] = y.inputs;
    const size = x.dims[axis];
    if (typeof size !== 'number') throw new ShapeError('slice', 'has a gradient only along an axis of known size', [x.dims]);
    return [pad(dy, axis, start, size - end)];
  },
});
/** Elements [start, end) along one axis. */
export function slice(x: Tensor, axis: number, start: number, end: number): Tensor {
  return makeNode('slice', [x], { axis: normaliseAxis('slice', axis, x.dims), start, end });
}

defineOp('pad', {
  infer([x], a) {
    const { axis, before, after } = a as { axis: number; before: number; after: number };
    return { dtype: x.dtype, dims: x.dims.map((dim, i) => (i === axis ? dimSum([dim, before + after]) : dim)) };
  },
  gradient(y, dy) {
    const { axis, before } = y.attributes as { axis: number; before: number };
    const size = y.inputs[0].dims[axis];
    if (typeof size !== 'number') throw new ShapeError('pad', 'has a gradient only along an axis of known size', [y.dims]);
    return [slice(dy, axis, before, before + size)];
  },
});
/** Zeros before and after along one axis. */
export function pad(x: Tensor, axis: number, before: number, after: number): Tensor {
  return before === 0 && after === 0 ? x : makeNode('pad', [x], { axis: normaliseAxis('pad', axis, x.dims), before, after });
}

defineOp('expand', {
  infer([x], a) {
    const dims = a.dims as Dims;
    if (!sameDims(broadcastDims('expand', x.dims, dims), dims))
      throw new ShapeError('expand', `does not widen to ${formatDims(dims)}`, [x.dims]);
    return { dtype: x.dtype, dims };
  },
  gradient: (y, dy) => [reduceToShape(dy, y.inputs[0].dims)],
});
/** Broadcasts to `dims` explicitly. */
export const expand = (x: Tensor, dims: Dims): Tensor => (sameDims(x.dims, dims) ? x : makeNode('expand', [x], { dims }));

// === Reductions ===

function defineReduction(op: string, gradient: (y: Tensor, dy: Tensor, x: Tensor, axes: readonly number[]) => Tensor | undefined): void {
  defineOp(op, {
    infer([x], a) {
      const axes = a.axes as readonly number[];
      return {
        dtype: x.dtype,
        dims: a.keepDims ? x.dims.map((dim, i) => (axes.includes(i) ? 1 : dim)) : x.dims.filter((_, i) => !axes.includes(i)),
      };
    },
    gradient(y, dy) {
      const [x] = y.inputs;
      const axes = y.attributes.axes as readonly number[];
      const kept = x.dims.map((dim, i) => (axes.includes(i) ? 1 : dim));
      return [gradient(y, reshape(dy, kept), x, axes)];
    },
  });
}

defineReduction('reduceSum', (_y, dy, x) => expand(dy, x.dims));
defineReduction('reduceMean', (_y, dy, x, axes) => {
  const sizes = axes.map((axis) => x.dims[axis]);
  if (sizes.some((size) => typeof size !== 'number'))
    throw new ShapeError('reduceMean', 'has a gradient only over axes of known size', [x.dims]);
  return expand(mul(dy, 1 / (dimProduct(sizes) as number)), x.dims);
});
defineReduction('reduceMax', () => undefined);

function reduction(op: string) {
  return (x: Tensor, axes: readonly number[], keepDims = false): Tensor =>
    makeNode(op, [x], { axes: axes.map((axis) => normaliseAxis(op, axis, x.dims)), keepDims });
}
export const reduceSum = reduction('reduceSum');
export const reduceMean = reduction('reduceMean');
/** Largest element; counts as fixed for gradients. */
export const reduceMax = reduction('reduceMax');

defineOp('softmax', {
  infer: ([x]) => ({ dtype: x.dtype, dims: x.dims }),
  gradient: (y, dy) => [mul(y, sub(dy, reduceSum(mul(dy, y), [-1], true)))],
});
/** Softmax over the last axis. */
export const softmax = (x: Tensor): Tensor => makeNode('softmax', [x]);

// === Indexing ===

defineOp('argmax', {
  infer([x]) {
    if (x.dims.length === 0) throw new ShapeError('argmax', 'needs an axis', [x.dims]);
    return { dtype: 'int32', dims: x.dims.slice(0, -1) };
  },
  gradient: () => [undefined],
});
/** Index of the largest value along the last axis, the first of equals: x [.., n] -> int32 [..]. */
export const argmax = (x: Tensor): Tensor => makeNode('argmax', [x]);

defineOp('gather', {
  infer([data, indices]) {
    if (!indices.dtype.startsWith('int'))
      throw new ShapeError('gather', `indices must be integers, got ${indices.dtype}`, [data.dims, indices.dims]);
    return { dtype: data.dtype, dims: [...indices.dims, ...data.dims.slice(1)] };
  },
  gradient(y, dy) {
    const [data, indices] = y.inputs;
    return [scatterAdd(indices, dy, data.dims), undefined];
  },
});
/** Rows of `data` [rows, ..] by index: indices [a, b] -> [a, b, ..]. Embedding lookup. */
export const gather = (data: Tensor, indices: Tensor): Tensor => makeNode('gather', [data, indices]);

defineOp('scatterAdd', {
  infer([indices, updates], a) {
    const dims = a.dims as Dims;
    if (!indices.dtype.startsWith('int') || !sameDims(updates.dims, [...indices.dims, ...dims.slice(1)]))
      throw new ShapeError('scatterAdd', `needs integer indices and one update row each for ${formatDims(dims)}`, [
        indices.dims,
        updates.dims,
      ]);
    return { dtype: updates.dtype, dims };
  },
  gradient: (y, dy) => [undefined, gather(dy, y.inputs[0])],
});
/** Zeros of `dims` [rows, ..] to which each update row is added at its index: the gradient of `gather`. */
export const scatterAdd = (indices: Tensor, updates: Tensor, dims: Dims): Tensor => makeNode('scatterAdd', [indices, updates], { dims });

defineOp('takeAlong', {
  infer([x, indices]) {
    if (!sameDims(x.dims.slice(0, -1), indices.dims))
      throw new ShapeError('takeAlong', 'one index a row is needed', [x.dims, indices.dims]);
    return { dtype: x.dtype, dims: indices.dims };
  },
  gradient: (y, dy) => [putAlong(y.inputs[1], dy, y.inputs[0].dims.at(-1)!), undefined],
});
/** x[.., indices[..]]: one element of each row. [.., n], [..] -> [..]. */
export const takeAlong = (x: Tensor, indices: Tensor): Tensor => makeNode('takeAlong', [x, indices]);

defineOp('putAlong', {
  infer([indices, values], a) {
    if (!sameDims(indices.dims, values.dims)) throw new ShapeError('putAlong', 'one value an index is needed', [indices.dims, values.dims]);
    return { dtype: values.dtype, dims: [...indices.dims, a.size as Dim] };
  },
  gradient: (y, dy) => [undefined, takeAlong(dy, y.inputs[0])],
});
/** Rows of zeros, each with one value at its index: the gradient of `takeAlong`. */
export const putAlong = (indices: Tensor, values: Tensor, size: Dim): Tensor => makeNode('putAlong', [indices, values], { size });

defineOp('maskedScatter', {
  infer([x, mask, rows]) {
    if (!sameDims(x.dims.slice(0, -1), mask.dims) || rows.dims.length !== 2 || rows.dims[1] !== x.dims.at(-1))
      throw new ShapeError('maskedScatter', 'needs x [.., n], mask [..] and rows [count, n]', [x.dims, mask.dims, rows.dims]);
    return { dtype: x.dtype, dims: x.dims };
  },
  gradient(y, dy) {
    const [, mask, rows] = y.inputs;
    return [where(reshape(mask, [...mask.dims, 1]), 0, dy), undefined, maskedGather(dy, mask, rows.dims[0])];
  },
});
/** x [.., n] with the rows where mask [..] holds replaced, in order, by rows [count, n]; count must be the number of true entries. */
export const maskedScatter = (x: Tensor, mask: Tensor, rows: Tensor): Tensor => makeNode('maskedScatter', [x, mask, rows]);

defineOp('maskedGather', {
  infer([x, mask], a) {
    if (!sameDims(x.dims.slice(0, -1), mask.dims))
      throw new ShapeError('maskedGather', 'needs x [.., n] and mask [..]', [x.dims, mask.dims]);
    return { dtype: x.dtype, dims: [a.count as Dim, x.dims.at(-1)!] };
  },
  gradient(y, dy) {
    const [x, mask] = y.inputs;
    return [maskedScatter(expand(constant(0), x.dims), mask, dy), undefined];
  },
});
/** The rows of x [.., n] where mask [..] holds, in order: [count, n]. */
export const maskedGather = (x: Tensor, mask: Tensor, count: Dim): Tensor => makeNode('maskedGather', [x, mask], { count });

// === Position encoding ===

defineOp('rotary', {
  infer([x, positions, cos, sin]) {
    const headDim = x.dims[3];
    if (x.dims.length !== 4 || typeof headDim !== 'number' || headDim % 2 !== 0)
      throw new ShapeError('rotary', 'needs x [batch, heads, tokens, even head size]', [x.dims]);
    if (!sameDims(positions.dims, [x.dims[0], x.dims[2]]))
      throw new ShapeError('rotary', 'positions must be [batch, tokens]', [x.dims, positions.dims]);
    if (cos.dims[1] !== headDim / 2 || sin.dims[1] !== headDim / 2)
      throw new ShapeError('rotary', 'tables must be [positions, head size / 2]', [x.dims, cos.dims]);
    return { dtype: x.dtype, dims: x.dims };
  },
  // a rotation's transpose turns the other way
  gradient: (y, dy) => [rotary(dy, y.inputs[1], y.inputs[2], neg(y.inputs[3])), undefined, undefined, undefined],
});
/**
 * Rotary position embedding, half-rotate form (Su et al. 2021; Hugging Face `apply_rotary_pos_emb`): x [batch, heads, tokens, headDim],
 * positions int32 [batch, tokens], tables cos and sin [positions, headDim / 2]. The tables get no gradient.
 */
export const rotary = (x: Tensor, positions: Tensor, cos: Tensor, sin: Tensor): Tensor => makeNode('rotary', [x, positions, cos, sin]);

// === Packed weights ===

/** How a matrix is stored in whole numbers of few bits: blocks along a row, each with one scale. */
export interface BlockFormat {
  bits: 4 | 8;
  blockSize: number;
}

defineOp('dequantize', {
  infer([packed, scale], a) {
    const { bits, blockSize } = a as unknown as BlockFormat;
    const [rows, bytes] = packed.dims;
    const columns = typeof bytes === 'number' ? (bytes * 8) / bits : Number.NaN;
    if (packed.dtype !== 'uint8' || packed.dims.length !== 2 || !sameDims(scale.dims, [rows, columns / blockSize]))
      throw new ShapeError('dequantize', `needs uint8 [rows, bytes] and a scale for every ${blockSize} numbers of ${bits} bits`, [
        packed.dims,
        scale.dims,
      ]);
    return { dtype: scale.dtype, dims: [rows, columns] };
  },
  // such weights are run, not trained
  gradient: () => [undefined, undefined],
});
/**
 * The matrix [rows, columns] whose blocks of `blockSize` columns are scale * (q - 2^(bits - 1)): packed uint8 [rows, columns * bits / 8],
 * the first of two 4-bit numbers in the low half of its byte; scale [rows, columns / blockSize].
 */
export const dequantize = (packed: Tensor, scale: Tensor, { bits, blockSize }: BlockFormat): Tensor =>
  makeNode('dequantize', [packed, scale], { bits, blockSize });
