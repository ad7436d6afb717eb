// An engine on the WebGPU provider of an ONNX Runtime package. State lives in buffers of the device, and no
// node of a program runs on the CPU (webgpu-rules.ts).

import { bfloat16ToFloat32, float16ToFloat32 } from '../../floats.ts';
import { type Outputs, rewrite } from '../../graph/passes.ts';
import { input, inputName, type Tensor, topologicalOrder } from '../../graph/tensor.ts';
import {
  type CompileOptions,
  type Constant,
  checkInputs,
  type Engine,
  float32,
  type Program,
  type StoredValue,
  type Value,
} from '../engine.ts';
import { type ConstantLayout, isStored, layOutInMemory } from '../onnx/constants.ts';
import { isStoredCast } from '../onnx/packed.ts';
import { Device, type DeviceOptions } from './device.ts';
import { DeviceSlots } from './device-slots.ts';
import { DeviceSequence, DeviceState } from './device-state.ts';
import { DeviceError } from './failure.ts';
import { inParts } from './parts.ts';
import { compileProgram } from './program.ts';
import type { Runtime } from './runtime.ts';

/** What a platform can do with constants in files. */
export interface StoredConstants {
  read(value: StoredValue): Promise<Value>;
  layOut(constants: ReadonlyMap<string, Constant>): ConstantLayout;
}

export interface WebgpuOptions extends DeviceOptions {
  /** Bytes of a constant above which it is split by its rows into several buffers. Default: BUFFER_BYTES. */
  bufferBytes?: number;
  /** Default: constants are in memory. */
  stored?: StoredConstants;
}

/**
 * What every adapter gives that we have met, Chromium's software one included. Real ones give up to 2 or 4
 * GB, less four bytes: tables of 256,000 words, 2.1 GB at the width of Gemma 2B, must be split for many.
 */
export const BUFFER_BYTES = 2 ** 29;

/**
 * `engine`, once its device has done something: whether there is one is known when the first session begins.
 * Where there is none, what `other` gives; DeviceError without it.
 */
export async function usable(engine: Engine, other?: () => Engine | Promise<Engine>): Promise<Engine> {
  try {
    const program = await engine.compile({ x: input('x', 'float32', []) });
    await program.run({ x: float32([0], []) });
    await program.dispose();
    return engine;
  } catch (error) {
    if (other && error instanceof DeviceError) return other();
    throw error;
  }
}

const inMemoryAlone: StoredConstants = {
  read: ({ path }) => Promise.reject(new Error(`${path}: constants must be in memory here`)),
  layOut: (constants) => layOutInMemory(constants as ReadonlyMap<string, Value>),
};

/** An engine on the WebGPU provider of `runtime`. */
export function createWebgpuEngine(runtime: Runtime, options: WebgpuOptions = {}): Engine {
  const { stored = inMemoryAlone, bufferBytes = BUFFER_BYTES, ...deviceOptions } = options;
  const device = new Device(runtime, deviceOptions);
  return {
    name: 'ort-webgpu',
    compile: (outputs, compileOptions = {}) => compile(device, { stored, bufferBytes }, outputs, compileOptions),
    state: (initial) => new DeviceState(device, initial.dtype, initial.dims, initial),
    zeros: (dtype, dims) => new DeviceState(device, dtype, dims),
    sequence: (dtype, dims, axis) => new DeviceSequence(device, dtype, dims, axis),
    slots: (dtype, dims, axis) => new DeviceSlots(device, dtype, dims, axis),
  };
}

async function compile(
  device: Device,
  { stored, bufferBytes }: Required<Pick<WebgpuOptions, 'stored' | 'bufferBytes'>>,
  outputs: Outputs,
  { constants = new Map(), writes = {}, ...options }: CompileOptions,
): Promise<Program> {
  const everything = { ...outputs, ...Object.fromEntries(Object.entries(writes).map(([name, { tensor }]) => [`write ${name}`, tensor])) };
  const fixed = new Map<string, Tensor>();
  for (const tensor of topologicalOrder(Object.values(everything)))
    if (tensor.op === 'input' && constants.has(inputName(tensor))) fixed.set(inputName(tensor), tensor);
  checkInputs(fixed, (name) => constants.get(name));
  const values = new Map<string, Constant>();
  for (const [name, { dtype }] of fixed) values.set(name, await inFloat32(constants.get(name)!, dtype, stored));
  const { graph, constants: parts } = inParts(widenStored(everything, fixed), values, bufferBytes);
  return compileProgram(device, Object.fromEntries(Object.keys(outputs).map((name) => [name, graph[name]])), {
    writes: Object.fromEntries(Object.entries(writes).map(([name, { mode }]) => [name, { mode, tensor: graph[`write ${name}`] }])),
    packedAccuracy: options.packedAccuracy ?? 'float32',
    recompute: options.recompute ?? (options.lean ? 'cheap' : undefined),
    layout: parts.size > 0 ? stored.layOut(parts) : undefined,
    fixed: new Set(parts.keys()),
  });
}

// === 16-bit constants ===

const isHalf = (dtype: string) => dtype === 'float16' || dtype === 'bfloat16';

/** The graph over constants in float32 where they are stored in 16 bits, which not every adapter computes. */
function widenStored(graph: Outputs, fixed: ReadonlyMap<string, Tensor>): Outputs {
  const wide = new Map<string, Tensor>();
  for (const [name, { dtype, dims }] of fixed) if (isHalf(dtype)) wide.set(name, input(name, 'float32', dims));
  return rewrite(graph, (node) => {
    const [stored] = isStoredCast(node) ? node.inputs : [];
    return (stored?.op === 'input' && wide.get(inputName(stored))) || node;
  });
}

async function inFloat32(constant: Constant, dtype: string, { read }: StoredConstants): Promise<Constant> {
  if (!isHalf(dtype)) return constant;
  const { dims, data } = isStored(constant) ? await read(constant) : constant;
  const bits = data as Uint16Array;
  return { dtype: 'float32', dims, data: dtype === 'float16' ? float16ToFloat32(bits) : bfloat16ToFloat32(bits) };
}
