// Ops in plain float64 loops: slow, obvious, and the oracle that every engine is tested against.
// Composites are evaluated through their definitions, so a fused kernel is always checked against primitives.

import { type Dims, dimSize } from '../graph/dims.ts';
import { expandComposites, type Outputs } from '../graph/passes.ts';
import {
  type DType,
  isIn,
  isInteger,
  numbersOf,
  type PerInput,
  type Primitive,
  type Tensor,
  type TensorOf,
  topologicalOrder,
  typedData,
} from '../graph/tensor.ts';

/** A value in float64, whatever its dtype. */
export interface ReferenceValue {
  dims: number[];
  data: Float64Array;
}

const sizeOf = (dims: readonly number[]) => dims.reduce((a, b) => a * b, 1);

function zeros(dims: number[]): ReferenceValue {
  return { dims, data: new Float64Array(sizeOf(dims)) };
}

/** Row-major strides; 0 along axes that broadcast to `rank`-aligned output dims. */
function broadcastStrides(dims: readonly number[], rank: number): number[] {
  const strides = new Array<number>(rank).fill(0);
  let stride = 1;
  for (let i = dims.length - 1; i >= 0; i--) {
    strides[rank - dims.length + i] = dims[i] === 1 ? 0 : stride;
    stride *= dims[i];
  }
  return strides;
}

/** Calls `visit(outputOffset, offsets)` for each element of `dims`, offsets following the given strides. */
function iterate(dims: readonly number[], strides: number[][], visit: (offset: number, offsets: number[]) => void): void {
  const total = sizeOf(dims);
  const index = new Array<number>(dims.length).fill(0);
  const offsets = strides.map(() => 0);
  for (let position = 0; position < total; position++) {
    visit(position, offsets);
    for (let axis = dims.length - 1; axis >= 0; axis--) {
      index[axis]++;
      strides.forEach((s, i) => {
        offsets[i] += s[axis];
      });
      if (index[axis] < dims[axis]) break;
      strides.forEach((s, i) => {
        offsets[i] -= s[axis] * dims[axis];
      });
      index[axis] = 0;
    }
  }
}

function elementwise(inputs: ReferenceValue[], f: (...values: number[]) => number): ReferenceValue {
  const rank = Math.max(...inputs.map((x) => x.dims.length));
  const dims: number[] = [];
  for (let i = 0; i < rank; i++) {
    const sizes = inputs.map((x) => x.dims[x.dims.length - rank + i] ?? 1);
    dims.push(sizes.find((size) => size !== 1) ?? 1);
  }
  const result = zeros(dims);
  iterate(
    dims,
    inputs.map((x) => broadcastStrides(x.dims, rank)),
    (offset, offsets) => {
      result.data[offset] = f(...inputs.map((x, i) => x.data[offsets[i]]));
    },
  );
  return result;
}

// Abramowitz & Stegun's fit gives only 1e-7; the series without cancellation (their 7.1.6) and the continued
// fraction (7.1.14) give double precision.
function erf(x: number): number {
  const a = Math.abs(x);
  if (a < 3) {
    let term = a;
    let sum = a;
    for (let n = 1; n < 200 && term > 1e-17 * sum; n++) {
      term *= (2 * a * a) / (2 * n + 1);
      sum += term;
    }
    return Math.sign(x) * (2 / Math.sqrt(Math.PI)) * Math.exp(-a * a) * sum;
  }
  let fraction = 0;
  for (let k = 60; k > 0; k--) fraction = k / 2 / (a + fraction);
  return Math.sign(x) * (1 - Math.exp(-a * a) / (Math.sqrt(Math.PI) * (a + fraction)));
}

function matmul(a: ReferenceValue, b: ReferenceValue, { transA, transB, alpha }: TensorOf<'matmul'>['attributes']): ReferenceValue {
  const [ar, ac] = a.dims.slice(-2);
  const [br, bc] = b.dims.slice(-2);
  const [m, k] = transA ? [ac, ar] : [ar, ac];
  const n = transB ? br : bc;
  const batchA = a.dims.slice(0, -2);
  const batchB = b.dims.slice(0, -2);
  const rank = Math.max(batchA.length, batchB.length);
  const batch = Array.from({ length: rank }, (_, i) =>
    Math.max(batchA[batchA.length - rank + i] ?? 1, batchB[batchB.length - rank + i] ?? 1),
  );
  const result = zeros([...batch, m, n]);
  iterate(batch, [broadcastStrides(batchA, rank), broadcastStrides(batchB, rank)], (offset, [offsetA, offsetB]) => {
    for (let i = 0; i < m; i++)
      for (let j = 0; j < n; j++) {
        let sum = 0;
        for (let l = 0; l < k; l++)
          sum +=
            a.data[offsetA * ar * ac + (transA ? l * ac + i : i * ac + l)] * b.data[offsetB * br * bc + (transB ? j * bc + l : l * bc + j)];
        result.data[(offset * m + i) * n + j] = alpha * sum;
      }
  });
  return result;
}

/** Each output element takes the element of `x` at the strided place. */
function copyStrided(x: ReferenceValue, dims: number[], strides: number[]): ReferenceValue {
  const result = zeros(dims);
  iterate(dims, [strides], (offset, [from]) => {
    result.data[offset] = x.data[from];
  });
  return result;
}

/** Folds the elements of `x` over axes, beginning with `initial`. */
function reduce(
  x: ReferenceValue,
  axes: readonly number[],
  dims: number[],
  initial: number,
  fold: (a: number, b: number) => number,
): ReferenceValue {
  const kept = x.dims.map((dim, i) => (axes.includes(i) ? 1 : dim));
  const result: ReferenceValue = { dims, data: new Float64Array(sizeOf(kept)).fill(initial) };
  iterate(x.dims, [broadcastStrides(kept, kept.length)], (offset, [target]) => {
    result.data[target] = fold(result.data[target], x.data[offset]);
  });
  return result;
}

const sum = (a: number, b: number) => a + b;

/** `x` with `size` elements along `axis`: each run of them written by `copy` from the run of `x`. */
function alongAxis(x: ReferenceValue, axis: number, size: number, copy: (from: Float64Array, to: Float64Array, inner: number) => void) {
  const result = zeros(x.dims.with(axis, size));
  const inner = sizeOf(x.dims.slice(axis + 1));
  const [from, to] = [x.dims[axis] * inner, size * inner];
  for (let outer = 0; outer < sizeOf(x.dims.slice(0, axis)); outer++)
    copy(x.data.subarray(outer * from, (outer + 1) * from), result.data.subarray(outer * to, (outer + 1) * to), inner);
  return result;
}

/** Calls `visit` with each row along the last axis, and its number. */
function eachRow(x: ReferenceValue, visit: (row: Float64Array, i: number) => void): void {
  const n = x.dims.at(-1)!;
  for (let i = 0; i * n < x.data.length; i++) visit(x.data.subarray(i * n, (i + 1) * n), i);
}

const largest = (values: Float64Array) => values.reduce((a, b) => Math.max(a, b), -Infinity);

/** Places where a mask holds. */
const placesOf = (mask: ReferenceValue) => [...mask.data.keys()].filter((i) => mask.data[i] !== 0);

/** The values of `data` as `dtype` holds them; float32 and float64 are not told apart here. */
function roundTo(data: Float64Array, dtype: DType): Float64Array {
  if (isInteger(dtype)) return data.map(Math.trunc);
  if (dtype === 'bool') return data.map((value) => Number(value !== 0));
  return dtype === 'float32' ? data : numbersOf(typedData(data, dtype), dtype);
}

// === Rules ===

type Evaluated = Exclude<Primitive, 'stopGradient'> | 'constant';
/** A node's value from those of its inputs; `bind` gives the size of a shape at this run. */
type ReferenceRule<O extends Evaluated> = (
  node: TensorOf<O>,
  inputs: PerInput<O, ReferenceValue>,
  bind: (dims: Dims) => number[],
) => ReferenceValue;

const binary =
  (f: (a: number, b: number) => number) =>
  (_: Tensor, [a, b]: readonly [ReferenceValue, ReferenceValue]) =>
    elementwise([a, b], f);
const unary =
  (f: (x: number) => number) =>
  (_: Tensor, [x]: readonly [ReferenceValue]): ReferenceValue => ({ dims: x.dims, data: x.data.map((value) => f(value)) });

const rules: { readonly [O in Evaluated]: ReferenceRule<O> } = {
  constant: (node) => ({ dims: [...node.dims] as number[], data: numbersOf(node.attributes.data, node.dtype) }),
  add: binary(sum),
  sub: binary((a, b) => a - b),
  mul: (node, inputs) => elementwise([...inputs], node.dtype === 'int32' ? Math.imul : (a, b) => a * b),
  div: binary((a, b) => a / b),
  maximum: binary(Math.max),
  hold: (_, [x]) => x,
  neg: unary((x) => -x),
  exp: unary(Math.exp),
  log: unary(Math.log),
  sqrt: unary(Math.sqrt),
  tanh: unary(Math.tanh),
  sigmoid: unary((x) => 1 / (1 + Math.exp(-x))),
  erf: unary(erf),
  equal: binary((a, b) => Number(a === b)),
  greater: binary((a, b) => Number(a > b)),
  lessOrEqual: binary((a, b) => Number(a <= b)),
  and: binary((a, b) => Number(a !== 0 && b !== 0)),
  or: binary((a, b) => Number(a !== 0 || b !== 0)),
  where: (_, inputs) => elementwise([...inputs], (condition, a, b) => (condition ? a : b)),
  cast: (node, [x]) => ({ dims: x.dims, data: roundTo(x.data, node.dtype) }),
  matmul: (node, [a, b]) => matmul(a, b, node.attributes),
  reshape: (node, [x], bind) => ({ dims: bind(node.dims), data: x.data }),
  transpose(node, [x]) {
    const { perm } = node.attributes;
    const strides = broadcastStrides(x.dims, x.dims.length);
    return copyStrided(
      x,
      perm.map((axis) => x.dims[axis]),
      perm.map((axis) => strides[axis]),
    );
  },
  concat(node, inputs) {
    const { axis } = node.attributes;
    const [first] = inputs;
    const result = zeros(first.dims.with(axis, inputs.map((x) => x.dims[axis]).reduce(sum)));
    const inner = sizeOf(first.dims.slice(axis + 1));
    let start = 0;
    for (const part of inputs) {
      const run = part.dims[axis] * inner;
      for (let outer = 0; outer * run < part.data.length; outer++)
        result.data.set(part.data.subarray(outer * run, (outer + 1) * run), outer * result.dims[axis] * inner + start);
      start += run;
    }
    return result;
  },
  slice(node, [x]) {
    const { axis, start, end } = node.attributes;
    return alongAxis(x, axis, end - start, (from, to, inner) => to.set(from.subarray(start * inner, end * inner)));
  },
  pad(node, [x]) {
    const { axis, before, after } = node.attributes;
    return alongAxis(x, axis, before + x.dims[axis] + after, (from, to, inner) => to.set(from, before * inner));
  },
  expand(node, [x], bind) {
    const dims = bind(node.dims);
    return copyStrided(x, dims, broadcastStrides(x.dims, dims.length));
  },
  reduceSum: (node, [x], bind) => reduce(x, node.attributes.axes, bind(node.dims), 0, sum),
  reduceMean(node, [x], bind) {
    const { dims, data } = reduce(x, node.attributes.axes, bind(node.dims), 0, sum);
    return { dims, data: data.map((total) => (total * data.length) / x.data.length) };
  },
  reduceMax: (node, [x], bind) => reduce(x, node.attributes.axes, bind(node.dims), -Infinity, Math.max),
  softmax(_, [x]) {
    const result = zeros(x.dims);
    eachRow(x, (row, i) => {
      const max = largest(row);
      const exps = row.map((value) => Math.exp(value - max));
      const total = exps.reduce(sum, 0);
      result.data.set(
        exps.map((value) => value / total),
        i * row.length,
      );
    });
    return result;
  },
  argmax(_, [x]) {
    const result = zeros(x.dims.slice(0, -1));
    eachRow(x, (row, i) => {
      result.data[i] = row.indexOf(largest(row));
    });
    return result;
  },
  gather(_, [data, indices]) {
    const row = sizeOf(data.dims.slice(1));
    const result = zeros([...indices.dims, ...data.dims.slice(1)]);
    indices.data.forEach((index, i) => {
      result.data.set(data.data.subarray(index * row, (index + 1) * row), i * row);
    });
    return result;
  },
  scatterAdd(node, [indices, updates], bind) {
    const result = zeros(bind(node.dims));
    const row = sizeOf(result.dims.slice(1));
    indices.data.forEach((index, i) => {
      for (let j = 0; j < row; j++) result.data[index * row + j] += updates.data[i * row + j];
    });
    return result;
  },
  takeLast(node, [x, count]) {
    const { axis } = node.attributes;
    const [size, width] = [x.dims[axis], sizeOf(x.dims.slice(axis + 1))];
    const kept = count.data[0] === 0 ? size : Math.min(count.data[0], size);
    const result = zeros(x.dims.with(axis, kept));
    for (let outer = 0; outer < sizeOf(x.dims.slice(0, axis)); outer++) {
      const end = (outer + 1) * size * width;
      result.data.set(x.data.subarray(end - kept * width, end), outer * kept * width);
    }
    return result;
  },
  cumsum(_, [x]) {
    const n = x.dims.at(-1)!;
    const data = x.data.slice();
    for (let i = 0; i < data.length; i++) if (i % n > 0) data[i] += data[i - 1];
    return { dims: x.dims, data };
  },
  takeAlong(_, [x, indices]) {
    const n = x.dims.at(-1)!;
    return { dims: indices.dims, data: indices.data.map((index, i) => x.data[i * n + index]) };
  },
  putAlong(node, [indices, values], bind) {
    const result = zeros(bind(node.dims));
    const n = result.dims.at(-1)!;
    indices.data.forEach((index, i) => {
      result.data[i * n + index] = values.data[i];
    });
    return result;
  },
  maskedScatter(_, [x, mask, rows]) {
    const data = x.data.slice();
    const n = x.dims.at(-1)!;
    placesOf(mask).forEach((place, i) => {
      data.set(rows.data.subarray(i * n, (i + 1) * n), place * n);
    });
    return { dims: x.dims, data };
  },
  maskedGather(_, [x, mask]) {
    const places = placesOf(mask);
    const n = x.dims.at(-1)!;
    const result = zeros([places.length, n]);
    places.forEach((place, i) => {
      result.data.set(x.data.subarray(place * n, (place + 1) * n), i * n);
    });
    return result;
  },
  rotary(_, [x, positions, cos, sin]) {
    const [batch, heads, tokens, size] = x.dims;
    const half = size / 2;
    const result = zeros(x.dims);
    for (let b = 0; b < batch; b++)
      for (let h = 0; h < heads; h++)
        for (let t = 0; t < tokens; t++)
          for (let i = 0; i < half; i++) {
            const at = ((b * heads + h) * tokens + t) * size + i;
            const table = positions.data[b * tokens + t] * half + i;
            result.data[at] = x.data[at] * cos.data[table] - x.data[at + half] * sin.data[table];
            result.data[at + half] = x.data[at + half] * cos.data[table] + x.data[at] * sin.data[table];
          }
    return result;
  },
  dequantize(node, [packed, scale], bind) {
    const { bits, blockSize } = node.attributes;
    const result = zeros(bind(node.dims));
    for (let i = 0; i < result.data.length; i++) {
      const whole = bits === 8 ? packed.data[i] : (packed.data[i >> 1] >> (4 * (i % 2))) & 15;
      result.data[i] = (whole - 2 ** (bits - 1)) * scale.data[Math.floor(i / blockSize)];
    }
    return result;
  },
};

function evaluate<O extends Evaluated>(node: TensorOf<O>, inputs: readonly ReferenceValue[], bind: (dims: Dims) => number[]) {
  const result = rules[node.op](node, inputs as PerInput<O, ReferenceValue>, bind);
  return node.dtype === 'float16' || node.dtype === 'bfloat16' ? { dims: result.dims, data: roundTo(result.data, node.dtype) } : result;
}

/**
 * Evaluates a graph in float64 and keeps float64: for finite differences. Only results in float16 and
 * bfloat16 are rounded, each op's to its format. Throws an Error for an input without a value.
 */
export function evaluateReference(outputs: Outputs, values: Readonly<Record<string, ReferenceValue>>): Record<string, ReferenceValue> {
  const graph = expandComposites(outputs);
  const sizes = new Map<string, number>();
  const bind = (dims: Dims) => dims.map((dim) => dimSize(dim, (name) => sizes.get(name)));
  const results = new Map<Tensor, ReferenceValue>();
  const order = topologicalOrder(Object.values(graph));
  for (const tensor of order) {
    if (tensor.op !== 'input') continue;
    const { name } = tensor.attributes;
    const value = values[name];
    if (!value) throw new Error(`input ${name} is missing`);
    tensor.dims.forEach((dim, i) => {
      if (typeof dim === 'string') sizes.set(dim, value.dims[i]);
    });
    results.set(tensor, value);
  }
  for (const tensor of order) {
    if (tensor.op === 'input') continue;
    if (!isIn(rules, tensor)) throw new Error(`${tensor.op} is an op of another engine`);
    const inputs = tensor.inputs.map((x) => results.get(x)!);
    results.set(tensor, evaluate(tensor, inputs, bind));
  }
  return Object.fromEntries(Object.entries(graph).map(([name, tensor]) => [name, results.get(tensor)!]));
}
