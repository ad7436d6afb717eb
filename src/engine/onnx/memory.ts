// How much memory the results of a model's nodes take at most at once, told from the model alone: the nodes
// in the order in which ONNX Runtime runs them, each result there from its node to the last that reads it.

import { type Dims, dimSize } from '../../graph/dims.ts';
import { elementBytes } from '../engine.ts';
import type { ShapedModel } from './builder.ts';
import { ELEMENT_TYPES, type OnnxAttribute, type OnnxGraph, type OnnxNode } from './writer.ts';

/** Sizes of named dims. */
export type DimSizes = Readonly<Record<string, number>>;

/** Elements of a value, and bytes of each. */
interface Extent {
  elements: number;
  width: number;
}

const bytesOf = ({ elements, width }: Extent) => elements * width;

/** Ops whose result is another view of their first operand. */
const VIEWS = new Set(['Reshape', 'Squeeze', 'Unsqueeze', 'Identity']);

/** Ops whose result may take the place of an operand of its size that nobody reads afterwards. */
const IN_PLACE = new Set([
  'Add',
  'Sub',
  'Mul',
  'Div',
  'Exp',
  'Log',
  'Sqrt',
  'Neg',
  'Tanh',
  'Sigmoid',
  'Softmax',
  'Cast',
  'ScatterElements',
]);

/**
 * Bytes that the results of the nodes take at most at once. Not counted are values that are read from files
 * or fed at a run, outputs that are written into memory of the caller (`placed`), and what the runtime's
 * allocator leaves between pieces. Throws an Error for a named dim that `sizes` lacks.
 */
export function peakBytes({ model, shapes }: ShapedModel, sizes: DimSizes, placed: ReadonlySet<string> = new Set()): number {
  const extents = new Map<string, Extent>();
  for (const { name, dtype, dims } of [...model.initializers, ...model.inputs])
    extents.set(name, { elements: elementsOf(dims, sizes), width: elementBytes[dtype] });
  const resultOf = (name: string, node: OnnxNode): Extent => {
    if (placed.has(name)) return { elements: 0, width: 0 };
    const shape = shapes.get(name);
    return shape ? { elements: elementsOf(shape.dims, sizes), width: elementBytes[shape.dtype] } : inferred(node, extents);
  };
  const kept = new Set([...extents.keys(), ...model.outputs.map(({ name }) => name)]);
  return peakOf(executionOrder(model), kept, extents, resultOf);
}

function elementsOf(dims: Dims, sizes: DimSizes): number {
  const known = (name: string) => (Object.hasOwn(sizes, name) ? sizes[name] : undefined);
  return dims.reduce((product: number, dim) => product * dimSize(dim, known), 1);
}

/** The extent of a value in the midst of a rule, of which no shape was said. */
function inferred({ opType, inputs, attributes }: OnnxNode, extents: ReadonlyMap<string, Extent>): Extent {
  const operands = inputs.flatMap((name) => extents.get(name) ?? []);
  if (opType === 'Shape' || operands.length === 0) return { elements: 1, width: 8 };
  const elements = opType === 'Concat' ? operands.reduce((sum, x) => sum + x.elements, 0) : Math.max(...operands.map((x) => x.elements));
  const width = opType === 'Cast' ? castWidth(attributes.to) : operands[0].width;
  return { elements, width };
}

function castWidth(to: OnnxAttribute): number {
  const [dtype] = Object.entries(ELEMENT_TYPES).find(([, type]) => type === to)!;
  return elementBytes[dtype as keyof typeof elementBytes];
}

/**
 * The nodes in the order in which ONNX Runtime runs them (graph.cc ReverseDFSFrom): a search from the nodes
 * that nobody reads, which enters the operand whose node has the larger number first.
 */
function executionOrder({ nodes }: Pick<OnnxGraph, 'nodes'>): OnnxNode[] {
  const maker = new Map(nodes.flatMap(({ outputs }, index) => outputs.map((name) => [name, index] as const)));
  const sources = nodes.map(({ inputs }) => [...new Set(inputs.flatMap((name) => maker.get(name) ?? []))].sort((a, b) => a - b));
  const isRead = new Set(sources.flat());
  const order: OnnxNode[] = [];
  const seen = new Set<number>();
  const stack: { index: number; leaves: boolean }[] = [];
  nodes.forEach((_, index) => {
    if (!isRead.has(index)) stack.push({ index, leaves: false });
  });
  for (let next = stack.pop(); next; next = stack.pop()) {
    const { index, leaves } = next;
    if (leaves) order.push(nodes[index]);
    else if (!seen.has(index)) {
      seen.add(index);
      stack.push({ index, leaves: true });
      for (const source of sources[index]) if (!seen.has(source)) stack.push({ index: source, leaves: false });
    }
  }
  return order;
}

/** A piece of memory, with the values that are views of it. */
interface Buffer {
  bytes: number;
  readers: number;
  isKept: boolean;
}

/** `kept` are values that are there all the time, or asked for at the end. */
function peakOf(
  order: readonly OnnxNode[],
  kept: ReadonlySet<string>,
  extents: Map<string, Extent>,
  resultOf: (name: string, node: OnnxNode) => Extent,
): number {
  const readers = new Map<string, number>();
  for (const { inputs } of order) for (const name of inputs) readers.set(name, (readers.get(name) ?? 0) + 1);
  const buffers = new Map<string, Buffer>();
  const unread: string[] = [];
  let [live, peak] = [0, 0];
  for (const node of order) {
    for (const name of node.outputs) {
      const extent = resultOf(name, node);
      extents.set(name, extent);
      const bytes = bytesOf(extent);
      const count = readers.get(name) ?? 0;
      const taken = takenOver(node, bytes, buffers);
      if (taken) {
        taken.readers += count;
        taken.isKept ||= kept.has(name);
        buffers.set(name, taken);
        continue;
      }
      // what nobody reads is read by its own node, to be freed behind it
      buffers.set(name, { bytes, readers: Math.max(count, 1), isKept: kept.has(name) });
      if (count === 0) unread.push(name);
      live += bytes;
    }
    peak = Math.max(peak, live + workspace(node, extents));
    for (const name of [...node.inputs, ...unread.splice(0)]) live -= freed(buffers.get(name));
  }
  return peak;
}

/** The buffer of an operand that the result of a node lies in. */
function takenOver({ opType, inputs }: OnnxNode, bytes: number, buffers: ReadonlyMap<string, Buffer>): Buffer | undefined {
  if (VIEWS.has(opType)) return buffers.get(inputs[0]);
  if (!IN_PLACE.has(opType)) return undefined;
  const operands = inputs.flatMap((name) => buffers.get(name) ?? []);
  return operands.find((buffer) => buffer.bytes === bytes && !buffer.isKept && buffer.readers === 1);
}

/** Bytes that are free once one more reader of a buffer is done. */
function freed(buffer: Buffer | undefined): number {
  if (!buffer) return 0;
  buffer.readers--;
  return buffer.readers === 0 && !buffer.isKept ? buffer.bytes : 0;
}

/**
 * What a loop takes inside, for one of the pieces that it goes over: the piece itself and three passes over
 * its results.
 */
function workspace({ opType, inputs, attributes }: OnnxNode, extents: ReadonlyMap<string, Extent>): number {
  if (opType !== 'Scan') return 0;
  const { graph } = attributes.body as { graph: OnnxGraph };
  const pieces = inputs.slice(graph.outputs.length).map((name, i) => {
    const { elements } = extents.get(name)!;
    const { dims } = graph.inputs[graph.outputs.length + i];
    return { elements: Number(dims[0]) * Number(dims[1] ?? 1), rows: Number(dims[0]), all: elements };
  });
  const stateRows = extents.get(inputs[0])!.elements;
  return pieces.reduce((sum, { elements, rows }) => sum + 4 * (elements + 3 * rows * stateRows), 0);
}
