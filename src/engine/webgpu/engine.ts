// An engine on the WebGPU provider of an ONNX Runtime package. State lives in buffers of the device, and no
// node of a program runs on the CPU (webgpu-rules.ts).

import { bfloat16ToFloat32, float16ToFloat32, float32ToFloat16 } from '../../floats.ts';
import { type Outputs, rewrite } from '../../graph/passes.ts';
import { cast } from '../../graph/primitives.ts';
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
  // casting a weight at each use costs its memory's time, and saves half of its memory
  const half = options.lean && [...fixed.values()].some(({ dtype }) => isHalf(dtype)) && (await device.hasFloat16());
  const values = new Map<string, Constant>();
  for (const name of fixed.keys()) values.set(name, await onDevice(constants.get(name)!, half ? 'float16' : 'float32', stored));
  const { graph, constants: parts } = inParts(storedAs(everything, values), values, bufferBytes);
  return compileProgram(device, Object.fromEntries(Object.keys(outputs).map((name) => [name, graph[name]])), {
    writes: Object.fromEntries(Object.entries(writes).map(([name, { mode }]) => [name, { mode, tensor: graph[`write ${name}`] }])),
    packedAccuracy: options.packedAccuracy ?? 'float32',
    recast: half,
    recompute: options.recompute ?? (options.lean ? 'cheap' : undefined),
    layout: parts.size > 0 ? stored.layOut(parts) : undefined,
    fixed: new Set(parts.keys()),
  });
}

// === 16-bit constants ===

const isHalf = (dtype: string) => dtype === 'float16' || dtype === 'bfloat16';

/** The graph over constants of the types that they have on the device. */
function storedAs(graph: Outputs, values: ReadonlyMap<string, Constant>): Outputs {
  return rewrite(graph, (node) => {
    const [stored] = isStoredCast(node) ? node.inputs : [];
    if (stored?.op !== 'input') return node;
    const { dtype, dims } = values.get(inputName(stored)) ?? stored;
    const given = dtype === stored.dtype ? stored : input(inputName(stored), dtype, dims);
    return dtype === 'float32' ? given : cast(given, 'float32');
  });
}

/** The largest number of float16. */
const LARGEST_HALF = 65504;

/**
 * A constant as the device has it: of those in 16 bits, what is in float16 as it is where `type` is that, and
 * what is in bfloat16, which no adapter computes, in float16 if none of its numbers is too large.
 */
async function onDevice(constant: Constant, type: 'float16' | 'float32', { read }: StoredConstants): Promise<Constant> {
  const { dtype, dims } = constant;
  if (!isHalf(dtype) || dtype === type) return constant;
  const bits = (isStored(constant) ? await read(constant) : constant).data as Uint16Array;
  const data = dtype === 'float16' ? float16ToFloat32(bits) : bfloat16ToFloat32(bits);
  const fits = type === 'float16' && data.every((value) => Math.abs(value) <= LARGEST_HALF);
  return fits ? { dtype: 'float16', dims, data: float32ToFloat16(data) } : { dtype: 'float32', dims, data };
}
