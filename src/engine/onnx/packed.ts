// Packed weights (graph/primitives.ts `dequantize`) on their way to ONNX: products and lookups that read the packed numbers as they lie
// (onnxruntime/docs/ContribOperators.md, MatMulNBits and GatherBlockQuantized), and neighbours that are multiplied as one.

import { type Outputs, rewrite } from '../../graph/passes.ts';
import { slice } from '../../graph/primitives.ts';
import { input, inputName, type Tensor, topologicalOrder } from '../../graph/tensor.ts';

/** Where the bytes of a fixed input lie: in EXTERNAL_DATA_PATH, unless another file is named, relative to a folder the runtime is told. */
export interface ExternalData {
  location?: string;
  offset: number;
  length: number;
}

/**
 * Products with packed weights, and rows looked up in them, read the packed numbers: the matrix in float32 is never made. Such nodes carry
 * the packed weight and its scale in place of the matrix.
 */
export function readPacked(outputs: Outputs): Outputs {
  return rewrite(outputs, (node) => {
    const [a, b] = node.inputs;
    if (node.op === 'matmul' && b.op === 'dequantize' && node.attributes.transB === true && node.attributes.transA === false)
      return Object.freeze({ ...node, op: 'matmulPacked', inputs: [a, ...b.inputs], attributes: { ...node.attributes, ...b.attributes } });
    if (node.op === 'gather' && a.op === 'dequantize')
      return Object.freeze({ ...node, op: 'gatherPacked', inputs: [...a.inputs, b], attributes: a.attributes });
    return node;
  });
}

/** Rows of joined weights up to which joining pays: of more, cutting the product apart costs as much as was won. */
const MAX_JOINED_ROWS = 8192;

/**
 * Packed weights that multiply the same x and lie one behind the other, as those of queries, keys and values do, are multiplied as one:
 * where a product takes a fraction of a millisecond, waking the threads for it does too. What is joined is added to `external`.
 */
export function joinNeighbours(outputs: Outputs, external: Map<string, ExternalData>): Outputs {
  const follows = (a: Tensor, b: Tensor) => {
    const [first, second] = [a, b].map((tensor) => external.get(inputName(tensor)));
    return first && second && first.location === second.location && first.offset + first.length === second.offset;
  };
  const all = topologicalOrder(Object.values(outputs)).filter(({ op }) => op === 'matmulPacked');
  const uses = (packed: Tensor) => all.filter(({ inputs }) => inputs[1] === packed).length;
  const products = all.filter(
    ({ inputs: [, packed, scale] }) =>
      [packed, scale].every((part) => part.op === 'input' && external.has(inputName(part))) && uses(packed) === 1,
  );
  const place = ({ inputs: [, packed] }: Tensor) => external.get(inputName(packed))!.offset;
  products.sort((a, b) => place(a) - place(b));
  /** By packed weight: what it is joined into, and where its rows begin there. */
  const joined = new Map<Tensor, { packed: Tensor; scale: Tensor; start: number }>();
  for (let first = 0, next = 1; first < products.length; first = next++) {
    const rows = (product: Tensor) => product.inputs[1].dims[0] as number;
    let total = rows(products[first]);
    for (; next < products.length; next++) {
      const [a, b] = [products[next - 1], products[next]];
      const alike =
        a.inputs[0] === b.inputs[0] && ['bits', 'blockSize', 'alpha'].every((name) => a.attributes[name] === b.attributes[name]);
      if (!alike || !follows(a.inputs[1], b.inputs[1]) || !follows(a.inputs[2], b.inputs[2]) || total + rows(b) > MAX_JOINED_ROWS) break;
      total += rows(b);
    }
    const members = products.slice(first, next);
    if (members.length === 1) continue;
    const [packed, scale] = [1, 2].map((i) => {
      const parts = members.map(({ inputs }) => inputs[i]);
      const name = parts.map(inputName).join('+');
      const length = parts.reduce((sum, part) => sum + external.get(inputName(part))!.length, 0);
      external.set(name, { ...external.get(inputName(parts[0]))!, length });
      return input(name, parts[0].dtype, [total, parts[0].dims[1]]);
    });
    let start = 0;
    for (const product of members) {
      joined.set(product.inputs[1], { packed, scale, start });
      start += rows(product);
    }
  }
  const made = new Map<Tensor, Tensor>();
  return rewrite(outputs, (node) => {
    const into = node.op === 'matmulPacked' ? joined.get(node.inputs[1]) : undefined;
    if (!into) return node;
    const { packed, scale, start } = into;
    const dims = node.dims.with(-1, packed.dims[0]);
    const product = made.get(packed) ?? Object.freeze({ ...node, inputs: [node.inputs[0], packed, scale], dims });
    made.set(packed, product);
    return slice(product, -1, start, start + (node.dims.at(-1) as number));
  });
}
