// What is written otherwise for ONNX Runtime's WebGPU provider (1.30), so that none of its nodes falls back
// to the CPU. It has no FusedMatMul, NonZero, Or, Scan and int64 arithmetic; few of its kernels move bool;
// and its sums of ScatterND race, so that bits would differ from run to run.

import { type Dim, type Dims, dimProduct } from '../../graph/dims.ts';
import type { DType, Tensor, TensorOf } from '../../graph/tensor.ts';
import type { GraphBuilder } from './builder.ts';
import { type LoweringRule, plainProduct, type Rules } from './rule.ts';

// === Types ===

/** The node that `emit` adds to a value of a type that its kernel takes, cast there and back. */
function inType(b: GraphBuilder, value: string, from: DType, to: DType, emit: (value: string) => string): string {
  return from === to ? emit(value) : b.cast(emit(b.cast(value, to)), from);
}

const KERNELS_OF_INT32: ReadonlySet<string> = new Set(['Transpose', 'Concat', 'Pad', 'Gather']);

/** The type in which a kernel moves values of `dtype`: int32 in float32 is exact up to 2^24. */
function movedType(opType: string, dtype: DType): DType {
  if (dtype === 'bool' || dtype === 'uint8') return KERNELS_OF_INT32.has(opType) ? 'int32' : 'float32';
  return dtype === 'int32' && !KERNELS_OF_INT32.has(opType) ? 'float32' : dtype;
}

/** Comparisons of truth values are those of 0 and 1. */
const comparison =
  (opType: string): LoweringRule<'equal' | 'greater' | 'lessOrEqual'> =>
  (b, operands, { inputs }) =>
    b.node(
      opType,
      operands.map((name, i) => (inputs[i].dtype === 'bool' ? b.cast(name, 'int32') : name)),
    );

// === Shapes ===

const reshaped = (b: GraphBuilder, value: string, dims: Dims) => b.node('Reshape', [value, b.shape(dims)]);

/** 0, 1, .. up to the size of a dim, int32. */
function iota(b: GraphBuilder, dim: Dim): string {
  return b.once(`iota ${dim}`, () => {
    if (typeof dim === 'string') return ranks(b, b.node('Expand', [b.number(1, 'int32'), b.shape([dim])]));
    const all = Int32Array.from({ length: dim }, (_, i) => i);
    return b.initializer(all, [dim], 'int32');
  });
}

/** How many of the entries of int32 [n], which are 0 or 1, are 1 up to each, less one. */
function ranks(b: GraphBuilder, entries: string): string {
  const counts = b.node('CumSum', [entries, b.initializer(BigInt64Array.of(0n), [], 'int64')]);
  return b.node('Sub', [counts, b.number(1, 'int32')]);
}

// === Rows ===

/**
 * Adds to each of `indices` [..] the rows that `updates` [.., ...] have for it: which rows they are, int64
 * [n, 1], and for each of them the sum of all with its index, [n, width]. Rows of one index have one sum, so
 * that it does not matter which of them is written last.
 */
function sumsOfRows(b: GraphBuilder, [indices, updates]: readonly string[], { dims, inputs }: TensorOf<'scatterAdd' | 'scatterAddOnto'>) {
  const rows = dimProduct(inputs[0].dims);
  const width = dimProduct(dims.slice(1));
  const column = reshaped(b, indices, [rows, 1]);
  const isSame = b.cast(b.node('Equal', [column, reshaped(b, indices, [1, rows])]), inputs[1].dtype);
  return { at: b.cast(column, 'int64'), sums: b.node('MatMul', [isSame, reshaped(b, updates, [rows, width])]), rows, width };
}

/** Rows [n, width] put into a table [.., width] of `dims`. */
const putRows = (b: GraphBuilder, table: string, at: string, rows: string) => b.node('ScatterND', [table, at, rows]);

/** x [.., n] as a table of rows, its mask [..] flat, and for each row that it holds the place among these. */
function asRows(b: GraphBuilder, [x, mask]: readonly string[], { dims }: Tensor) {
  const count = dimProduct(dims.slice(0, -1));
  const flatMask = reshaped(b, mask, [count]);
  return {
    count,
    width: dims.at(-1)!,
    x: reshaped(b, x, [count, dims.at(-1)!]),
    mask: flatMask,
    rank: ranks(b, b.cast(flatMask, 'int32')),
  };
}

/** Where an axis of a one-hot code has its index. */
const isAt = (b: GraphBuilder, indices: string, size: Dim) => b.node('Equal', [iota(b, size), b.column(indices)]);

// === Rules ===

/**
 * Matrices are multiplied by Gemm, which transposes by itself; so is a batch of rows by one matrix. A batch
 * of matrices is transposed before.
 */
const matmul: LoweringRule<'matmul'> = (b, names, tensor, options) => {
  const { inputs, dims, attributes } = tensor;
  const { transA, transB, alpha } = attributes;
  const [x, y] = inputs;
  const rows = x.dims.length;
  if ((!transA && !transB && alpha === 1) || y.dims.length !== 2 || rows < 2 || (rows > 2 && transA))
    return plainProduct(b, names, tensor, options);
  const count = dimProduct(x.dims.slice(0, -1));
  const flat = rows === 2 ? names[0] : b.view(names[0], x.dims, [count, x.dims.at(-1)!]);
  const factors = { transA: Number(transA), transB: Number(transB), alpha: { float: alpha } };
  const product = b.node('Gemm', [flat, names[1]], factors);
  return rows === 2 ? product : b.view(product, [count, dims.at(-1)!], dims);
};

const refused = (op: string, reason: string) => (): never => {
  throw new Error(`${op}: ONNX Runtime has no kernel for WebGPU: ${reason}`);
};

export const webgpuRules: Partial<Rules> = {
  matmul,
  reshape: (b, [x], { inputs: [{ dims }], ...tensor }) => b.view(x, dims, tensor.dims),
  neg: (b, [x], { dtype }) => (dtype === 'int32' ? b.node('Mul', [x, b.number(-1, dtype)]) : b.node('Neg', [x])),
  equal: comparison('Equal'),
  greater: comparison('Greater'),
  lessOrEqual: comparison('LessOrEqual'),
  or: (b, operands) =>
    b.node('Not', [
      b.node(
        'And',
        operands.map((name) => b.node('Not', [name])),
      ),
    ]),
  transpose: (b, [x], { attributes: { perm }, dtype }) =>
    inType(b, x, dtype, movedType('Transpose', dtype), (x) => b.node('Transpose', [x], { perm })),
  concat(b, inputs, { attributes: { axis }, dtype }) {
    const type = movedType('Concat', dtype);
    const joined = b.node('Concat', type === dtype ? inputs : inputs.map((x) => b.cast(x, type)), { axis });
    return type === dtype ? joined : b.cast(joined, dtype);
  },
  slice: (b, [x], { attributes: { axis, start, end }, dtype }) =>
    inType(b, x, dtype, movedType('Slice', dtype), (x) => b.node('Slice', [x, b.int64([start]), b.int64([end]), b.int64([axis])])),
  pad: (b, [x], { attributes: { axis, before, after }, dtype }) =>
    inType(b, x, dtype, movedType('Pad', dtype), (x) => b.node('Pad', [x, b.int64([before, after]), '', b.int64([axis])])),
  takeLast: refused('takeLast', 'how long its result is would be known on the device alone'),
  argmax(b, [x], { inputs }) {
    const size = inputs[0].dims.at(-1)!;
    const places = iota(b, size);
    const last = typeof size === 'number' ? b.number(size - 1, 'int32') : b.node('ReduceMax', [places, b.int64([0])], { keepdims: 1 });
    const largest = b.node('ReduceMax', [x, b.int64([-1])], { keepdims: 1 });
    const ofLargest = b.node('Where', [b.node('Equal', [x, largest]), places, last]);
    return b.node('ReduceMin', [ofLargest, b.int64([-1])], { keepdims: 0 });
  },
  scatterAdd(b, inputs, tensor) {
    const { at, sums, width } = sumsOfRows(b, inputs, tensor);
    const { dims, dtype } = tensor;
    return reshaped(b, putRows(b, b.zeros([dims[0], width], dtype), at, sums), dims);
  },
  scatterAddOnto(b, inputs, tensor) {
    const { at, sums, rows, width } = sumsOfRows(b, inputs, tensor);
    const { dims } = tensor;
    const onto = reshaped(b, inputs[2], [dims[0], width]);
    const before = b.node('Gather', [onto, reshaped(b, inputs[0], [rows])], { axis: 0 });
    return reshaped(b, putRows(b, onto, at, b.node('Add', [before, sums])), dims);
  },
  putAlong(b, [indices, values], { dims, dtype }) {
    return b.node('Where', [isAt(b, indices, dims.at(-1)!), b.column(values), b.number(0, dtype)]);
  },
  putAlongOnto(b, [indices, values, onto], { dims }) {
    const isHere = isAt(b, indices, dims.at(-1)!);
    return b.node('Where', [isHere, b.node('Add', [onto, b.column(values)]), onto]);
  },
  maskedScatter(b, inputs, tensor) {
    const { x, mask, width, count, rank } = asRows(b, inputs, tensor);
    // a row more, so that there is one to look up where there are none
    const rows = b.node('Concat', [inputs[2], b.zeros([1, width], tensor.dtype)], { axis: 0 });
    const at = b.node('Max', [rank, b.number(0, 'int32')]);
    const replaced = b.node('Where', [reshaped(b, mask, [count, 1]), b.node('Gather', [rows, at], { axis: 0 }), x]);
    return reshaped(b, replaced, tensor.dims);
  },
  maskedGather(b, inputs, tensor) {
    const { x, mask, width, rank } = asRows(b, inputs, tensor.inputs[0]);
    const [count] = tensor.dims;
    // what the mask leaves out goes to a row behind the others, which is cut off
    const behind = b.node('ReduceMax', [rank, b.int64([0])], { keepdims: 1 });
    const at = b.node('Where', [mask, rank, b.node('Add', [behind, b.number(1, 'int32')])]);
    const table = b.node('Concat', [b.zeros([count, width], tensor.dtype), b.zeros([1, width], tensor.dtype)], { axis: 0 });
    const rows = putRows(b, table, b.cast(b.column(at), 'int64'), x);
    return b.node('Slice', [rows, b.int64([0]), b.int64([-1]), b.int64([0])]);
  },
  dequantize: (b, [packed, scale], { attributes, dims }) => b.unpackedByGather(packed, scale, attributes, dims[0] as number),
};
