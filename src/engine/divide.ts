// What of a program's work is a graph for ONNX Runtime, and what our own kernels do beside it in host memory.

import { inputName, type Tensor, topologicalOrder } from '../graph/tensor.ts';
import type { CompileOptions, Write } from './engine.ts';
import { type AdamWUpdate, hostChangeOf, hostNormOf, takeAdamW } from './host-kernels.ts';
import type { LowerOptions } from './onnx/lower.ts';
import { type RowWrites, rowOperands, takeRowWrites } from './row-writes.ts';

type Outputs = Readonly<Record<string, Tensor>>;

/** Name of the graph's output that is written to a state. */
export const writeName = (state: string) => `write ${state}`;

export interface DividedWork {
  /** For the runtime: by the names of outputs, of writes and of the operands of row writes. */
  graph: Outputs;
  /** Outputs of the graph that are the program's own. */
  forward: string[];
  /** Writes of which the graph gives the tensor. */
  rest: Record<string, Write>;
  /** Operands of row writes, which no caller sees. */
  operands: Outputs;
  /** Writes of what an input holds, which needs no graph: the name of the input by that of the state. */
  copies: Map<string, { mode: Write['mode']; from: string }>;
  /** Rows that are added piece by piece, by state. */
  rows: Map<string, RowWrites>;
  /** Updates that are one pass over the memory of their states. */
  updates: AdamWUpdate[];
  /** Outputs that are the squared norm of a state: its name by that of the output. */
  hostNorms: Map<string, string>;
  /** Outputs that are what an update changes: the state that it changes by the name of the output. */
  hostChanges: Map<string, string>;
  /** What the program needs at each run, and its constants, by input name. */
  inputs: Map<string, Tensor>;
  fixed: Map<string, Tensor>;
}

/** How the graph of a program is lowered: what ONNX Runtime is given, and what a plan counts. */
export function loweringOf(
  forward: readonly string[],
  { packedAccuracy = 'float32', lean = false, recompute = lean ? 'cheap' : undefined }: CompileOptions,
): Pick<LowerOptions, 'packedAccuracy' | 'recast' | 'recompute'> {
  return { packedAccuracy, recast: lean, recompute: recompute && { forward, what: recompute } };
}

export function divideWork(outputs: Outputs, { constants = new Map(), writes = {} }: CompileOptions): DividedWork {
  const { updates, rest: other } = takeAdamW(writes);
  const { rows, rest: computed } = takeRowWrites(other);
  const { copies, rest } = takeCopies(computed, constants);
  const hostNorms = new Map<string, string>();
  const hostChanges = new Map<string, string>();
  const graph: Record<string, Tensor> = {};
  for (const [name, tensor] of Object.entries(outputs)) {
    const [normed, changed] = [hostNormOf(tensor), hostChangeOf(tensor, updates)];
    if (normed !== undefined) hostNorms.set(name, normed);
    else if (changed !== undefined) hostChanges.set(name, changed);
    else graph[name] = tensor;
  }
  const forward = Object.keys(graph);
  for (const [name, { tensor }] of Object.entries(rest)) graph[writeName(name)] = tensor;
  const operands = Object.assign({}, ...[...rows].map(([name, parts]) => rowOperands(writeName(name), parts))) as Outputs;
  Object.assign(graph, operands);

  const inputs = new Map<string, Tensor>();
  const fixed = new Map<string, Tensor>();
  const everything = [...Object.values(outputs), ...Object.values(writes).map(({ tensor }) => tensor)];
  for (const tensor of topologicalOrder(everything))
    if (tensor.op === 'input') (constants.has(inputName(tensor)) ? fixed : inputs).set(inputName(tensor), tensor);
  return { graph, forward, rest, operands, copies, rows, updates, hostNorms, hostChanges, inputs, fixed };
}

/** Takes the writes of inputs out of `writes`; what they read is written by nothing else. */
function takeCopies(
  writes: Readonly<Record<string, Write>>,
  constants: ReadonlyMap<string, unknown>,
): Pick<DividedWork, 'copies' | 'rest'> {
  const copies: DividedWork['copies'] = new Map();
  const rest = { ...writes };
  for (const [name, { mode, tensor }] of Object.entries(writes)) {
    if (tensor.op !== 'input' || constants.has(inputName(tensor)) || inputName(tensor) in writes) continue;
    copies.set(name, { mode, from: inputName(tensor) });
    delete rest[name];
  }
  return { copies, rest };
}
