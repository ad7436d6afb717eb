// Where the runtime finds the constants of a program that lie in memory: handed over beside the model, or
// written into it.

import { type Outputs, rewrite } from '../../graph/passes.ts';
import { constant, inputName, type TypedData } from '../../graph/tensor.ts';
import type { Constant, StoredValue, Value } from '../engine.ts';
import type { ExternalData } from './packed.ts';

/** Where each constant of a program is. */
export interface ConstantLayout {
  /** Those that the model names as external data. */
  externalInputs: Map<string, ExternalData>;
  /** Those that are written into the model. */
  inlineInputs: Map<string, Value>;
  /** Those that are given at each run. */
  fed: Map<string, Value>;
  /** What is handed over beside the model, by the locations that `externalInputs` names. */
  buffers: { path: string; data: Uint8Array }[];
  /** The folder that all files of constants are below, where there are any. */
  folder?: string;
}

export const isStored = (value: Constant): value is StoredValue => 'path' in value;

const PADDING = 64;

/**
 * Constants in memory, handed over beside the model in one buffer each: packed weights in one, so that
 * neighbors can be multiplied as one.
 */
export function layOutInMemory(constants: ReadonlyMap<string, Value>): ConstantLayout {
  const externalInputs = new Map<string, ExternalData>();
  const buffers: ConstantLayout['buffers'] = [];
  const packed = [...constants].filter(([name]) => isPacked(name, constants));
  const joined = joinBuffers(packed, externalInputs);
  if (joined) buffers.push(joined);
  for (const [name, { data }] of constants) {
    if (externalInputs.has(name)) continue;
    const path = `memory/${buffers.length}`;
    externalInputs.set(name, { location: path, offset: 0, length: data.byteLength });
    buffers.push({ path, data: bytesOf(data) });
  }
  return { externalInputs, inlineInputs: new Map(), fed: new Map(), buffers };
}

/** The graph with these inputs as constants of its own. */
export function inline(graph: Outputs, values: ReadonlyMap<string, Value>): Outputs {
  return rewrite(graph, (node) => {
    const value = node.op === 'input' ? values.get(inputName(node)) : undefined;
    return value ? constant(value.data, value.dims, value.dtype) : node;
  });
}

const bytesOf = (data: TypedData) => new Uint8Array(data.buffer, data.byteOffset, data.byteLength);

/** Whether a constant is a packed weight or the scale of one, as nn/parameters.ts names them. */
function isPacked(name: string, constants: ReadonlyMap<string, Value>): boolean {
  return constants.get(name)!.dtype === 'uint8' || constants.has(name.replace(/_scale$/, '_packed'));
}

/** Lays constants one behind the other, aligned, in one buffer. */
function joinBuffers(constants: readonly (readonly [string, Value])[], externalInputs: Map<string, ExternalData>) {
  const location = 'memory/packed';
  let total = 0;
  for (const [name, { data }] of constants) {
    externalInputs.set(name, { location, offset: total, length: data.byteLength });
    total += Math.ceil(data.byteLength / PADDING) * PADDING;
  }
  if (total === 0) return undefined;
  const bytes = new Uint8Array(total);
  for (const [name, { data }] of constants) bytes.set(bytesOf(data), externalInputs.get(name)!.offset);
  return { path: location, data: bytes };
}
