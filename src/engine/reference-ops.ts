// Ops in plain float64 loops: slow, obvious, and the oracle that every engine is tested against.
// Composites are evaluated through their definitions, so a fused kernel is always checked against primitives.

import { expandComposites, type Outputs } from '../graph/passes.ts';
import { type Dims, inputName, type Tensor, topologicalOrder } from '../graph/tensor.ts';

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

// Abramowitz & Stegun's fit gives only 1e-7; the series without cancellation (their 7.1.6) and the continued fraction (7.1.14) give double precision.
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

const ELEMENTWISE: Record<string, (...values: number[]) => number> = {
  add: (a, b) => a + b,
  sub: (a, b) => a - b,
  mul: (a, b) => a * b,
  div: (a, b) => a / b,
  maximum: (a, b) => Math.max(a, b),
  neg: (x) => -x,
  exp: Math.exp,
  log: Math.log,
  sqrt: Math.sqrt,
  tanh: Math.tanh,
  sigmoid: (x) => 1 / (1 + Math.exp(-x)),
  erf,
  equal: (a, b) => Number(a === b),
  greater: (a, b) => Number(a > b),
  lessOrEqual: (a, b) => Number(a <= b),
  and: (a, b) => Number(a !== 0 && b !== 0),
  or: (a, b) => Number(a !== 0 || b !== 0),
  where: (condition, a, b) => (condition ? a : b),
};

function matmul(a: ReferenceValue, b: ReferenceValue, transA: boolean, transB: boolean, alpha: number): ReferenceValue {
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

function reduce(x: ReferenceValue, axes: number[], dims: number[], op: string): ReferenceValue {
  const kept = x.dims.map((dim, i) => (axes.includes(i) ? 1 : dim));
  const result: ReferenceValue = { dims, data: new Float64Array(sizeOf(kept)).fill(op === 'reduceMax' ? -Infinity : 0) };
  iterate(x.dims, [broadcastStrides(kept, kept.length)], (offset, [target]) => {
    result.data[target] = op === 'reduceMax' ? Math.max(result.data[target], x.data[offset]) : result.data[target] + x.data[offset];
  });
  if (op === 'reduceMean')
    result.data.forEach((sum, i) => {
      result.data[i] = (sum * result.data.length) / x.data.length;
    });
  return result;
}

function evaluate(tensor: Tensor, inputs: ReferenceValue[], bind: (dims: Dims) => number[]): ReferenceValue {
  const f = ELEMENTWISE[tensor.op];
  if (f) return elementwise(inputs, f);
  const a = tensor.attributes;
  const [x, y, z] = inputs;
  switch (tensor.op) {
    case 'constant':
      return { dims: [...tensor.dims] as number[], data: Float64Array.from(a.data as Float32Array, Number) };
    case 'cast':
      return {
        dims: x.dims,
        data: tensor.dtype.startsWith('int')
          ? x.data.map(Math.trunc)
          : tensor.dtype === 'bool'
            ? x.data.map((v) => Number(v !== 0))
            : x.data,
      };
    case 'matmul':
      return matmul(x, y, a.transA as boolean, a.transB as boolean, a.alpha as number);
    case 'reshape':
      return { dims: bind(tensor.dims), data: x.data };
    case 'transpose': {
      const perm = a.perm as number[];
      const strides = broadcastStrides(x.dims, x.dims.length);
      const result = zeros(perm.map((axis) => x.dims[axis]));
      iterate(result.dims, [perm.map((axis) => strides[axis])], (offset, [from]) => {
        result.data[offset] = x.data[from];
      });
      return result;
    }
    case 'concat': {
      const axis = a.axis as number;
      const result = zeros(x.dims.map((dim, i) => (i === axis ? inputs.reduce((sum, t) => sum + t.dims[i], 0) : dim)));
      const inner = sizeOf(x.dims.slice(axis + 1));
      let start = 0;
      for (const part of inputs) {
        const run = part.dims[axis] * inner;
        for (let outer = 0; outer * run < part.data.length; outer++)
          result.data.set(part.data.subarray(outer * run, (outer + 1) * run), outer * result.dims[axis] * inner + start);
        start += run;
      }
      return result;
    }
    case 'slice':
    case 'pad': {
      const axis = a.axis as number;
      const slice = tensor.op === 'slice';
      const size = slice ? (a.end as number) - (a.start as number) : x.dims[axis] + (a.before as number) + (a.after as number);
      const result = zeros(x.dims.map((dim, i) => (i === axis ? size : dim)));
      const inner = sizeOf(x.dims.slice(axis + 1));
      const outerCount = sizeOf(x.dims.slice(0, axis));
      for (let outer = 0; outer < outerCount; outer++) {
        const source = x.data.subarray(outer * x.dims[axis] * inner, (outer + 1) * x.dims[axis] * inner);
        if (slice) result.data.set(source.subarray((a.start as number) * inner, (a.end as number) * inner), outer * size * inner);
        else result.data.set(source, (outer * size + (a.before as number)) * inner);
      }
      return result;
    }
    case 'expand': {
      const result = zeros(bind(tensor.dims));
      iterate(result.dims, [broadcastStrides(x.dims, result.dims.length)], (offset, [from]) => {
        result.data[offset] = x.data[from];
      });
      return result;
    }
    case 'reduceSum':
    case 'reduceMean':
    case 'reduceMax':
      return reduce(x, a.axes as number[], bind(tensor.dims), tensor.op);
    case 'softmax': {
      const n = x.dims.at(-1)!;
      const result = zeros(x.dims);
      for (let row = 0; row < x.data.length; row += n) {
        const values = x.data.subarray(row, row + n);
        const max = values.reduce((p, q) => Math.max(p, q), -Infinity);
        const exps = values.map((v) => Math.exp(v - max));
        const sum = exps.reduce((p, q) => p + q, 0);
        result.data.set(
          exps.map((v) => v / sum),
          row,
        );
      }
      return result;
    }
    case 'dequantize': {
      const [packed, scale] = inputs;
      const { bits, blockSize } = tensor.attributes as unknown as { bits: 4 | 8; blockSize: number };
      const result = zeros(bind(tensor.dims));
      for (let i = 0; i < result.data.length; i++) {
        const whole = bits === 8 ? packed.data[i] : (packed.data[i >> 1] >> (4 * (i % 2))) & 15;
        result.data[i] = (whole - 2 ** (bits - 1)) * scale.data[Math.floor(i / blockSize)];
      }
      return result;
    }
    case 'argmax': {
      const n = x.dims.at(-1)!;
      const result = zeros(x.dims.slice(0, -1));
      for (let row = 0; row < result.data.length; row++) {
        const values = x.data.subarray(row * n, (row + 1) * n);
        result.data[row] = values.indexOf(values.reduce((p, q) => Math.max(p, q), -Infinity));
      }
      return result;
    }
    case 'gather': {
      const row = sizeOf(x.dims.slice(1));
      const result = zeros([...y.dims, ...x.dims.slice(1)]);
      y.data.forEach((index, i) => {
        result.data.set(x.data.subarray(index * row, (index + 1) * row), i * row);
      });
      return result;
    }
    case 'scatterAdd': {
      const result = zeros(bind(tensor.dims));
      const row = sizeOf(result.dims.slice(1));
      x.data.forEach((index, i) => {
        for (let j = 0; j < row; j++) result.data[index * row + j] += y.data[i * row + j];
      });
      return result;
    }
    case 'takeAlong': {
      const n = x.dims.at(-1)!;
      return { dims: y.dims, data: y.data.map((index, i) => x.data[i * n + index]) };
    }
    case 'putAlong': {
      const result = zeros(bind(tensor.dims));
      const n = result.dims.at(-1)!;
      x.data.forEach((index, i) => {
        result.data[i * n + index] = y.data[i];
      });
      return result;
    }
    case 'maskedScatter':
    case 'maskedGather': {
      const n = x.dims.at(-1)!;
      const rows = [...y.data.keys()].filter((i) => y.data[i] !== 0);
      if (tensor.op === 'maskedScatter') {
        const data = x.data.slice();
        rows.forEach((row, i) => {
          data.set(z.data.subarray(i * n, (i + 1) * n), row * n);
        });
        return { dims: x.dims, data };
      }
      const result = zeros([rows.length, n]);
      rows.forEach((row, i) => {
        result.data.set(x.data.subarray(row * n, (row + 1) * n), i * n);
      });
      return result;
    }
    case 'rotary': {
      const [, positions, cos, sin] = inputs;
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
    }
    default:
      throw new Error(`op ${tensor.op} has no reference evaluation`);
  }
}

/** Evaluates a graph in float64 and keeps float64: for finite differences. */
export function evaluateReference(outputs: Outputs, values: Readonly<Record<string, ReferenceValue>>): Record<string, ReferenceValue> {
  const graph = expandComposites(outputs);
  const sizes = new Map<string, number>();
  const bindDim = (dim: string | number): number => {
    if (typeof dim === 'number') return dim;
    const known = sizes.get(dim);
    if (known !== undefined) return known;
    if (dim.includes('+')) return dim.split('+').reduce((sum, part) => sum + (/^\d+$/.test(part) ? Number(part) : bindDim(part)), 0);
    if (dim.includes('*'))
      return dim.split('*').reduce((product, part) => product * (/^\d+$/.test(part) ? Number(part) : bindDim(part)), 1);
    throw new Error(`no graph input carries the dimension "${dim}"`);
  };
  const results = new Map<Tensor, ReferenceValue>();
  const order = topologicalOrder(Object.values(graph));
  for (const tensor of order) {
    if (tensor.op !== 'input') continue;
    const value = values[inputName(tensor)];
    if (!value) throw new Error(`input ${inputName(tensor)} is missing`);
    tensor.dims.forEach((dim, i) => {
      if (typeof dim === 'string') sizes.set(dim, value.dims[i]);
    });
    results.set(tensor, value);
  }
  for (const tensor of order) {
    if (tensor.op === 'input') continue;
    results.set(
      tensor,
      evaluate(
        tensor,
        tensor.inputs.map((t) => results.get(t)!),
        (dims) => dims.map(bindDim),
      ),
    );
  }
  return Object.fromEntries(Object.entries(graph).map(([name, tensor]) => [name, results.get(tensor)!]));
}
