// Additions to a large matrix of state that are never made as a whole. The gradient of an embedding that is
// the output head, too, is one of classes (graph/composites.ts classGradient), which comes in pieces, and
// rows that are scattered. An engine in host memory adds both where they belong: as an output of ONNX Runtime
// the matrix would be in memory three times.

import { classGradient } from '../graph/composites.ts';
import { add } from '../graph/primitives.ts';
import { input, inputName, type Tensor, type TensorOf } from '../graph/tensor.ts';
import type { Program, Value, Write } from './engine.ts';
import type { HostState } from './host-state.ts';

type ClassGradient = TensorOf<'classGradient'>;

/** What is added to one state, apart from what its write in the graph adds. */
export interface RowWrites {
  gradients: readonly ClassGradient[];
  scattered: readonly TensorOf<'scatterAdd'>[];
}

/** Rows of a piece. */
const PIECE_ROWS = 4096;

/** A tensor without markers. */
const unmarked = (tensor: Tensor): Tensor => (tensor.op === 'stopGradient' ? unmarked(tensor.inputs[0]) : tensor);

const termsOf = (tensor: Tensor): Tensor[] => (tensor.op === 'add' ? tensor.inputs.flatMap(termsOf) : [tensor]);

/**
 * Takes the gradients of classes out of sums that `writes` add, and the scattered rows beside them. What is
 * left is for the graph.
 */
export function takeRowWrites(writes: Readonly<Record<string, Write>>): { rows: Map<string, RowWrites>; rest: Record<string, Write> } {
  const rest = { ...writes };
  const rows = new Map<string, RowWrites>();
  for (const [name, { mode, tensor }] of Object.entries(writes)) {
    const terms = termsOf(tensor);
    const gradients = terms.filter((term) => term.op === 'classGradient').filter(({ inputs }) => unmarked(inputs[1]).op === 'input');
    if (mode !== 'add' || gradients.length === 0) continue;
    const scattered = terms.filter((term) => term.op === 'scatterAdd').filter(({ dims }) => dims.length === 2);
    rows.set(name, { gradients, scattered });
    const others = terms.filter((term) => !(gradients as Tensor[]).includes(term) && !(scattered as Tensor[]).includes(term));
    delete rest[name];
    if (others.length > 0) rest[name] = { mode, tensor: others.reduce(add) };
  }
  return { rows, rest };
}

/** What a graph must give so that `addRows` can do the rest, by names that begin with `prefix`. */
export function rowOperands(prefix: string, { gradients, scattered }: RowWrites): Record<string, Tensor> {
  const operands: Record<string, Tensor> = {};
  gradients.forEach(({ inputs: [hidden, , logSumExp, factors] }, i) => {
    Object.assign(operands, { [`${prefix} hidden ${i}`]: hidden, [`${prefix} sum ${i}`]: logSumExp, [`${prefix} factors ${i}`]: factors });
  });
  scattered.forEach(({ inputs: [indices, updates] }, i) => {
    Object.assign(operands, { [`${prefix} indices ${i}`]: indices, [`${prefix} updates ${i}`]: updates });
  });
  return operands;
}

/** The graph of a piece of a gradient: `weight` [classes, n] of any number of classes. */
export function pieceGraph({ inputs, attributes }: ClassGradient): Record<string, Tensor> {
  const [hidden, weight, logSumExp, factors] = inputs;
  const rows = (name: string, { dtype, dims }: Tensor) => input(name, dtype, ['rows', ...dims.slice(1)]);
  const piece = input('weight', weight.dtype, ['classes', weight.dims[1]]);
  const numbers = { logSumExp: rows('sum', logSumExp), factors: rows('factors', factors) };
  return { gradient: classGradient(rows('hidden', hidden), piece, numbers, attributes) };
}

/**
 * Adds to a state what `rowOperands` has given. `programs` run the `pieceGraph` of each gradient; `weightOf`
 * gives the value of an input.
 */
export async function addRows(
  state: HostState,
  { gradients, scattered }: RowWrites,
  operand: (name: string) => Value,
  programs: readonly Program[],
  weightOf: (name: string) => Value,
): Promise<void> {
  for (const [i, { inputs }] of gradients.entries()) {
    const [hidden, sum, factors] = [operand(`hidden ${i}`), operand(`sum ${i}`), operand(`factors ${i}`)];
    const { dims, data, dtype } = weightOf(inputName(unmarked(inputs[1]) as TensorOf<'input'>));
    const [classes, width] = dims;
    const isFirst = state.isCleared;
    for (let start = 0; start < classes; start += PIECE_ROWS) {
      const rows = Math.min(PIECE_ROWS, classes - start);
      const part = (data as Float32Array).subarray(start * width, (start + rows) * width);
      const weight = { dtype, dims: [rows, width], data: part };
      const { gradient } = await programs[i].run({ hidden, sum, factors, weight });
      state.addPart(start * width, gradient.data as Float32Array, isFirst);
    }
  }
  for (const i of scattered.keys()) {
    const [indices, updates] = [operand(`indices ${i}`).data as Int32Array, operand(`updates ${i}`).data as Float32Array];
    const width = updates.length / indices.length;
    indices.forEach((row, j) => {
      state.addPart(row * width, updates.subarray(j * width, (j + 1) * width), false);
    });
  }
}
