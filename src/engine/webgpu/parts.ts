// Constants that are larger than a buffer, as several.

import { type Outputs, rewrite } from '../../graph/passes.ts';
import { cast, concat, dequantize } from '../../graph/primitives.ts';
import { input, inputName, type Tensor, type TypedData, topologicalOrder } from '../../graph/tensor.ts';
import { type Constant, elementBytes, sizeOf } from '../engine.ts';
import { isStored } from '../onnx/constants.ts';
import { isStoredCast } from '../onnx/packed.ts';

/** Rows of a part are a multiple of it, so that softmaxes over classes find pieces of one size. */
const ROWS = 1024;

/**
 * The graph over the parts of those constants that have more than `bytes`: matrices, those in 16 bits as they
 * are stored, and packed ones with their scales, which are cut between rows. A matrix with a row of more
 * bytes stays as it is.
 */
export function inParts(graph: Outputs, constants: ReadonlyMap<string, Constant>, bytes: number) {
  const parts = new Map<string, Constant>(constants);
  const known = new Map<string, Tensor[]>();
  /** A constant's parts of so many rows as inputs; it is no constant any more. */
  const split = (name: string, size: number): Tensor[] => {
    if (known.has(name)) return known.get(name)!;
    parts.delete(name);
    const cut = splitRows(constants.get(name)!, size).map((part, i, { length }) => {
      const partName = `${name} ${i + 1}/${length}`;
      parts.set(partName, part);
      return input(partName, part.dtype, part.dims);
    });
    known.set(name, cut);
    return cut;
  };
  const rowsOf = (tensor: Tensor): number | undefined => {
    const value = tensor.op === 'input' ? constants.get(inputName(tensor)) : undefined;
    return value && partRows(value, bytes);
  };
  // cut with what they scale
  const scales = new Set(topologicalOrder(Object.values(graph)).flatMap(({ op, inputs }) => (op === 'dequantize' ? [inputs[1]] : [])));
  const joined = rewrite(graph, (node) => {
    if (node.op === 'input' && node.dtype === 'float32' && !scales.has(node)) {
      const size = rowsOf(node);
      return size === undefined ? node : concat(split(inputName(node), size), 0);
    }
    if (isStoredCast(node)) {
      const [stored] = node.inputs;
      const size = rowsOf(stored);
      if (size === undefined || stored.op !== 'input') return node;
      return concat(
        split(inputName(stored), size).map((part) => cast(part, node.dtype)),
        0,
      );
    }
    if (node.op === 'dequantize') {
      const [packed, scale] = node.inputs;
      const size = rowsOf(packed);
      if (size === undefined || packed.op !== 'input' || scale.op !== 'input') return node;
      const [packedParts, scaleParts] = [split(inputName(packed), size), split(inputName(scale), size)];
      return concat(
        packedParts.map((part, i) => dequantize(part, scaleParts[i], node.attributes)),
        0,
      );
    }
    return node;
  });
  return { graph: joined, constants: parts };
}

/** Rows of a part of a matrix that has more than `bytes`; undefined for what is not cut. */
function partRows({ dtype, dims }: Constant, bytes: number): number | undefined {
  if (dims.length !== 2) return undefined;
  const fitting = Math.floor(bytes / (dims[1] * elementBytes[dtype]));
  if (sizeOf(dims) * elementBytes[dtype] <= bytes || fitting === 0) return undefined;
  return fitting >= ROWS ? fitting - (fitting % ROWS) : fitting;
}

function splitRows(value: Constant, size: number): Constant[] {
  const [rows, width] = value.dims;
  return Array.from({ length: Math.ceil(rows / size) }, (_, i) => {
    const [start, end] = [i * size, Math.min((i + 1) * size, rows)];
    const dims = [end - start, width];
    if (isStored(value)) return { ...value, dims, offset: value.offset + start * width * elementBytes[value.dtype] };
    const data = value.data.subarray(start * width, end * width) as TypedData;
    return { ...value, dims, data };
  });
}
