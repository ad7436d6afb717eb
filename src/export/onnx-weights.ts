// The weights of an exported graph: which inputs hold which part of which parameter, and their bytes. A
// matrix that is larger than a browser's GPU takes in one buffer is cut: a table that is looked up by
// columns, a matrix that multiplies by rows. Matrices of floats lie transposed, so that ONNX's own MatMul
// reads them.

import type { BlockFormat } from '../floats.ts';
import { float32ToFloat16 } from '../floats.ts';
import type { Outputs } from '../graph/passes.ts';
import { rewrite } from '../graph/passes.ts';
import { cast, concat, dequantize, gather, matmul } from '../graph/primitives.ts';
import { type DType, input, type Tensor } from '../graph/tensor.ts';
import { isPacked, type Parameter, packedName, type Storage, scaleName } from '../nn/parameters.ts';
import { quantizeRows } from '../weights/quantize.ts';
import { elementCount } from '../weights/safetensors.ts';

/** A part of a parameter, as a graph reads it: a matrix from row to row and from column to column. */
export interface WeightPart {
  parameter: string;
  /** Of the parameter as a matrix: rows are its first dim. */
  rows: readonly [number, number];
  columns: readonly [number, number];
  transposed: boolean;
  storage: Storage;
  /** Inputs that hold it: the numbers, and the scales of packed ones. */
  inputs: readonly { name: string; dtype: DType; dims: readonly number[] }[];
}

export interface StoredGraph {
  outputs: Outputs;
  parts: WeightPart[];
}

interface PartOptions {
  /** Bytes of an input at most, where it can be cut. */
  bufferLimit: number;
  /** Scales of packed weights in float16. */
  halfScales: boolean;
}

/**
 * The graph over inputs that hold its parameters in the parts in which they are written, and these parts.
 * `parameters` are those that the graph was built with, and say how each is stored.
 */
export function storeWeights(outputs: Outputs, parameters: readonly Parameter[], options: PartOptions): StoredGraph {
  const weights = new Map(parameters.map((parameter) => [parameter.tensor, parameter]));
  const parts = new Map<string, WeightPart>();
  const part = (parameter: Parameter, rows: Range, columns: Range, transposed: boolean): Tensor => {
    const { part, tensor } = weightPart(parameter, rows, columns, transposed, options.halfScales);
    parts.set(part.inputs[0].name, part);
    return tensor;
  };
  const read = rewrite(outputs, (node) => {
    if (node.op === 'gather') {
      const [table, indices] = node.inputs;
      const parameter = weights.get(table);
      if (!parameter) return node;
      const [rows, columns] = parameter.dims;
      const ranges = cut(columns, rows, parameter.storage, options.bufferLimit);
      return joined(ranges.map((range) => gather(part(parameter, [0, rows], range, false), indices)));
    }
    if (node.op !== 'matmul') return node;
    const [x, matrix] = node.inputs;
    const parameter = weights.get(matrix);
    const { transA, transB, alpha } = node.attributes;
    if (!parameter || transA || !transB || parameter.dims.length !== 2) return node;
    const [rows, columns] = parameter.dims;
    const transposed = !isPacked(parameter.storage);
    const ranges = cut(rows, columns, parameter.storage, options.bufferLimit);
    return joined(ranges.map((range) => matmul(x, part(parameter, range, [0, columns], transposed), { transB: !transposed, alpha })));
  });
  // norms, biases, positions, convolutions
  for (const parameter of parameters) {
    const { name, dims, storage } = parameter;
    if (isPacked(storage) || [...parts.values()].some((known) => known.parameter === name)) continue;
    const [rows, columns] = [dims[0] ?? 1, elementCount(dims.slice(1))];
    const whole = { name, dtype: storage, dims };
    parts.set(name, { parameter: name, rows: [0, rows], columns: [0, columns], transposed: false, storage, inputs: [whole] });
  }
  return { outputs: read, parts: [...parts.values()] };
}

type Range = readonly [number, number];

const joined = (parts: readonly Tensor[]) => (parts.length === 1 ? parts[0] : concat(parts, -1));

/** [0, size) in equal pieces, each of which is at most `limit` bytes if it is `across` wide. */
function cut(size: number, across: number, storage: Storage, limit: number): Range[] {
  const [bits, unit] = isPacked(storage) ? [storage.bits, storage.blockSize] : [storage === 'float32' ? 32 : 16, 1];
  const most = Math.max(unit, Math.floor((limit * 8) / (bits * across * unit)) * unit);
  const pieces = Math.ceil(size / most);
  const each = Math.ceil(size / pieces / unit) * unit;
  return Array.from({ length: Math.ceil(size / each) }, (_, i) => [i * each, Math.min(size, (i + 1) * each)] as const);
}

function weightPart({ name, dims, storage }: Parameter, rows: Range, columns: Range, transposed: boolean, halfScales: boolean) {
  const [height, width] = [rows[1] - rows[0], columns[1] - columns[0]];
  const isWhole = height === dims[0] && width === dims[1];
  const range = isWhole ? '' : `[${rows.join(':')},${columns.join(':')}]`;
  if (!isPacked(storage)) {
    const shape = transposed ? [width, height] : [height, width];
    const held = { name: `${name}${range}${transposed ? '.T' : ''}`, dtype: storage, dims: shape };
    const part: WeightPart = { parameter: name, rows, columns, transposed, storage, inputs: [held] };
    return { part, tensor: cast(input(held.name, storage, shape), 'float32') };
  }
  const { bits, blockSize } = storage;
  const scaleType = halfScales ? 'float16' : 'float32';
  const packed = { name: packedName(name) + range, dtype: 'uint8' as const, dims: [height, (width * bits) / 8] };
  const scale = { name: scaleName(name) + range, dtype: scaleType, dims: [height, width / blockSize] } as const;
  const part: WeightPart = { parameter: name, rows, columns, transposed, storage, inputs: [packed, scale] };
  const scales = cast(input(scale.name, scaleType, scale.dims), 'float32');
  return { part, tensor: dequantize(input(packed.name, 'uint8', packed.dims), scales, storage) };
}

/** Takes the bytes of an input: `at` is where they begin in it. */
export type ByteSink = (input: string, at: number, bytes: Uint8Array) => Promise<void>;

/**
 * Takes the rows of a parameter, one chunk after the other, and hands the bytes of its part to `sink`. An
 * Error for a number that float16 does not hold.
 */
export interface PartEncoder {
  add(firstRow: number, rows: Float32Array): Promise<void>;
}

const bytesOf = ({ buffer, byteOffset, byteLength }: ArrayBufferView) => new Uint8Array(buffer, byteOffset, byteLength);

function floatBytes(values: Float32Array, dtype: DType, name: string): Uint8Array {
  if (dtype === 'float32') return bytesOf(values);
  const halves = float32ToFloat16(values);
  const lost = halves.findIndex((half, i) => (half & 0x7c00) === 0x7c00 && Number.isFinite(values[i]));
  if (lost >= 0) throw new RangeError(`${name} holds ${values[lost]}, but float16 ends at 65504`);
  return bytesOf(halves);
}

/** The encoder of a part. `width` is that of the whole parameter's rows. */
export function partEncoder(part: WeightPart, width: number, sink: ByteSink): PartEncoder {
  const { rows, columns, storage, inputs, transposed } = part;
  const [height, span] = [rows[1] - rows[0], columns[1] - columns[0]];
  const written = inputs.map(() => 0);
  const write = async (i: number, bytes: Uint8Array) => {
    await sink(inputs[i].name, written[i], bytes);
    written[i] += bytes.length;
  };
  // of a table of words cut into many parts, one at a time: together they would be as large as the table
  let turned: Float32Array | undefined;
  let filled = 0;
  return {
    async add(firstRow, values) {
      const own = rowsWithin(firstRow, values, width, part);
      if (own.values.length === 0) return;
      if (transposed) {
        turned ??= new Float32Array(height * span);
        const count = own.values.length / span;
        for (let r = 0; r < count; r++) for (let c = 0; c < span; c++) turned[c * height + own.first + r] = own.values[r * span + c];
        filled += count;
        if (filled < height) return;
        await write(0, floatBytes(turned, inputs[0].dtype, part.parameter));
        turned = undefined;
      } else if (isPacked(storage)) {
        const { packed, scale } = quantizeRows(own.values, storage as BlockFormat);
        await write(0, packed);
        await write(1, floatBytes(scale, inputs[1].dtype, part.parameter));
      } else await write(0, floatBytes(own.values, inputs[0].dtype, part.parameter));
    },
  };
}

/** What a part has of some rows of its parameter: its own rows and columns, and its first row among them. */
function rowsWithin(firstRow: number, values: Float32Array, width: number, { rows, columns }: WeightPart) {
  const from = Math.max(firstRow, rows[0]);
  const to = Math.min(firstRow + values.length / width, rows[1]);
  if (to <= from) return { first: 0, values: new Float32Array(0) };
  const whole = values.subarray((from - firstRow) * width, (to - firstRow) * width);
  const span = columns[1] - columns[0];
  if (span === width) return { first: from - rows[0], values: whole };
  const own = new Float32Array((to - from) * span);
  for (let r = 0; r < to - from; r++) own.set(whole.subarray(r * width + columns[0], r * width + columns[1]), r * span);
  return { first: from - rows[0], values: own };
}
