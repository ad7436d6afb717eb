// Constants that are larger than a buffer, as several.

import { type Outputs, rewrite } from '../../graph/passes.ts';
import { concat } from '../../graph/primitives.ts';
import { input, inputName, type Tensor, type TypedData } from '../../graph/tensor.ts';
import { type Constant, elementBytes, sizeOf } from '../engine.ts';
import { isStored } from '../onnx/constants.ts';

/** Rows of a part are a multiple of it, so that softmaxes over classes find pieces of one size. */
const ROWS = 1024;

/**
 * The graph over the parts of those constants that have more than `bytes`: matrices of float32, which are cut
 * between rows. A matrix with a row of more bytes stays as it is.
 */
export function inParts(graph: Outputs, constants: ReadonlyMap<string, Constant>, bytes: number) {
  const parts = new Map<string, Constant>();
  const tables = new Map<string, Tensor>();
  for (const [name, value] of constants) {
    const split = value.dtype === 'float32' && value.dims.length === 2 ? splitRows(value, bytes) : [value];
    if (split.length < 2) {
      parts.set(name, value);
      continue;
    }
    const named = split.map((part, i) => [`${name} ${i + 1}/${split.length}`, part] as const);
    for (const [partName, part] of named) parts.set(partName, part);
    tables.set(
      name,
      concat(
        named.map(([partName, { dtype, dims }]) => input(partName, dtype, dims)),
        0,
      ),
    );
  }
  const joined = rewrite(graph, (node) => (node.op === 'input' && tables.get(inputName(node))) || node);
  return { graph: joined, constants: parts };
}

function splitRows(value: Constant, bytes: number): Constant[] {
  const [rows, width] = value.dims;
  const rowBytes = width * elementBytes[value.dtype];
  const fitting = Math.floor(bytes / rowBytes);
  if (sizeOf(value.dims) * elementBytes[value.dtype] <= bytes || fitting === 0) return [value];
  const size = fitting >= ROWS ? fitting - (fitting % ROWS) : fitting;
  return Array.from({ length: Math.ceil(rows / size) }, (_, i) => {
    const [start, end] = [i * size, Math.min((i + 1) * size, rows)];
    const dims = [end - start, width];
    if (isStored(value)) return { ...value, dims, offset: value.offset + start * rowBytes };
    const data = (value.data as Float32Array).subarray(start * width, end * width) as TypedData;
    return { ...value, dims, data };
  });
}
