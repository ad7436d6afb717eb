// Stored weights on their way to ONNX: products and lookups that read packed numbers (graph/primitives.ts
// `dequantize`) as they lie (onnxruntime/docs/ContribOperators.md, MatMulNBits and GatherBlockQuantized), and
// neighbors that are multiplied as one.

import { type Outputs, rewrite } from '../../graph/passes.ts';
import { cast, gather, slice } from '../../graph/primitives.ts';
import { createNode, input, type Tensor, type TensorOf, topologicalOrder } from '../../graph/tensor.ts';

/** Name under which the bytes of fixed inputs are handed to the runtime beside the model. */
export const EXTERNAL_DATA_PATH = 'constants.bin';

/**
 * Where the bytes of a fixed input lie: in EXTERNAL_DATA_PATH, unless another file is named, relative to a
 * folder the runtime is told.
 */
export interface ExternalData {
  location?: string;
  offset: number;
  length: number;
}

/**
 * Products with packed weights, and rows looked up in them, read the packed numbers: the matrix in float32 is
 * never made. Of a table in 16 bits, only the rows that are looked up are cast.
 */
export function readStored(outputs: Outputs): Outputs {
  return rewrite(outputs, (node) => {
    if (node.op === 'matmul') {
      const [x, matrix] = node.inputs;
      const { transA, transB, alpha } = node.attributes;
      if (matrix.op !== 'dequantize' || transA || !transB) return node;
      return createNode('matmulPacked', [x, ...matrix.inputs], { ...matrix.attributes, alpha }, node);
    }
    if (node.op === 'gather') {
      const [table, indices] = node.inputs;
      if (table.op === 'dequantize') return createNode('gatherPacked', [...table.inputs, indices], table.attributes, node);
      if (isStoredCast(table)) return cast(gather(table.inputs[0], indices), table.dtype);
    }
    return node;
  });
}

/** Whether a tensor is an input of 16 bits that is cast to float32. */
export function isStoredCast(tensor: Tensor): tensor is TensorOf<'cast'> {
  if (tensor.op !== 'cast') return false;
  const [stored] = tensor.inputs;
  return stored.op === 'input' && (stored.dtype === 'float16' || stored.dtype === 'bfloat16') && tensor.dtype === 'float32';
}

type PackedProduct = TensorOf<'matmulPacked'>;
type Input = TensorOf<'input'>;

/** Rows of joined weights up to which joining pays; with more, cutting the product apart costs as much. */
const MAX_JOINED_ROWS = 8192;

/** A product whose weight is fixed, and multiplies nothing else: it may be joined. */
interface Candidate {
  product: PackedProduct;
  x: Tensor;
  packed: Input;
  scale: Input;
  rows: number;
}

/**
 * Packed weights that multiply the same x and lie one behind the other, as those of queries, keys and values
 * do, are multiplied as one: where a product takes a fraction of a millisecond, waking the threads for it
 * does too. What is joined is added to `external`.
 */
export function joinNeighbors(outputs: Outputs, external: Map<string, ExternalData>): Outputs {
  /** By packed weight: what it is joined into, and where its rows begin there. */
  const joined = new Map<Tensor, { packed: Input; scale: Input; start: number }>();
  for (const members of runsOf(candidatesOf(outputs, external), external)) {
    const total = members.reduce((sum, { rows }) => sum + rows, 0);
    const [packed, scale] = (['packed', 'scale'] as const).map((part) => {
      const parts = members.map((member) => member[part]);
      const name = parts.map((tensor) => tensor.attributes.name).join('+');
      const places = parts.map((tensor) => external.get(tensor.attributes.name)!);
      external.set(name, { ...places[0], length: places.reduce((sum, { length }) => sum + length, 0) });
      return input(name, parts[0].dtype, [total, parts[0].dims[1]]);
    });
    let start = 0;
    for (const member of members) {
      joined.set(member.packed, { packed, scale, start });
      start += member.rows;
    }
  }
  const made = new Map<Tensor, Tensor>();
  return rewrite(outputs, (node) => {
    if (node.op !== 'matmulPacked') return node;
    const into = joined.get(node.inputs[1]);
    if (!into) return node;
    const { packed, scale, start } = into;
    const type = { dtype: node.dtype, dims: node.dims.with(-1, packed.dims[0]) };
    const product = made.get(packed) ?? createNode('matmulPacked', [node.inputs[0], packed, scale], node.attributes, type);
    made.set(packed, product);
    return slice(product, -1, start, start + (node.dims.at(-1) as number));
  });
}

function candidatesOf(outputs: Outputs, external: ReadonlyMap<string, ExternalData>): Candidate[] {
  const products = topologicalOrder(Object.values(outputs)).filter((tensor) => tensor.op === 'matmulPacked');
  const fixed = (tensor: Tensor): tensor is Input => tensor.op === 'input' && external.has(tensor.attributes.name);
  return products.flatMap((product) => {
    const [x, packed, scale] = product.inputs;
    const uses = products.filter(({ inputs }) => inputs[1] === packed).length;
    return fixed(packed) && fixed(scale) && uses === 1 ? [{ product, x, packed, scale, rows: packed.dims[0] as number }] : [];
  });
}

/** Runs of two and more that may be joined, in the order in which they lie. */
function runsOf(candidates: Candidate[], external: ReadonlyMap<string, ExternalData>): Candidate[][] {
  const place = (tensor: Input) => external.get(tensor.attributes.name)!;
  const follows = (a: Input, b: Input) => {
    const [first, second] = [place(a), place(b)];
    return first.location === second.location && first.offset + first.length === second.offset;
  };
  const alike = (a: Candidate, b: Candidate) =>
    a.x === b.x && (['bits', 'blockSize', 'alpha'] as const).every((name) => a.product.attributes[name] === b.product.attributes[name]);
  const runs: Candidate[][] = [];
  let total = 0;
  for (const next of candidates.sort((a, b) => place(a.packed).offset - place(b.packed).offset)) {
    const last = runs.at(-1)?.at(-1);
    total += next.rows;
    if (last && alike(last, next) && follows(last.packed, next.packed) && follows(last.scale, next.scale) && total <= MAX_JOINED_ROWS) {
      runs.at(-1)!.push(next);
    } else {
      runs.push([next]);
      total = next.rows;
    }
  }
  return runs.filter(({ length }) => length > 1);
}
