// Engines by the device that a recipe or a command names, in Node.

import { closeSync, openSync, readSync } from 'node:fs';
import { tmpdir } from 'node:os';
import * as ort from 'onnxruntime-node';
import { input, typedData } from '../graph/tensor.ts';
import { type DeviceName, type Engine, elementBytes, type StoredValue, sizeOf, type Value } from './engine.ts';
import { createOrtEngine, type OrtOptions } from './ort.ts';
import { layOutConstants } from './stored-constants.ts';
import type { DeviceOptions } from './webgpu/device.ts';
import { createWebgpuEngine } from './webgpu/engine.ts';
import type { Runtime } from './webgpu/runtime.ts';

/**
 * The engine of a device. UserError where webgpu is asked for and there is no adapter. `threads` is of the
 * CPU's.
 */
export async function openEngine(device: DeviceName = 'cpu', options: Pick<OrtOptions, 'threads'> = {}): Promise<Engine> {
  if (device === 'cpu') return createOrtEngine(options);
  const engine = createNodeWebgpuEngine();
  try {
    // a failure to open a device is told when the first session begins
    await (await engine.compile({ x: input('x', 'float32', []) })).dispose();
    return engine;
  } catch (error) {
    if (device === 'webgpu') throw error;
    return createOrtEngine(options);
  }
}

/** The engine on ONNX Runtime's WebGPU provider, whether there is an adapter or not. */
export function createNodeWebgpuEngine(options: DeviceOptions = {}): Engine {
  // loaders of Vulkan complain on stderr where this is not set
  if (process.platform === 'linux') process.env.XDG_RUNTIME_DIR ??= tmpdir();
  // what goes wrong is told by what is thrown
  ort.env.logLevel = 'fatal';
  return createWebgpuEngine(ort as unknown as Runtime, { ...options, stored: { read: readStored, layOut: layOutConstants } });
}

async function readStored({ dtype, dims, path, offset }: StoredValue): Promise<Value> {
  const bytes = new Uint8Array(sizeOf(dims) * elementBytes[dtype]);
  const file = openSync(path, 'r');
  try {
    for (let done = 0; done < bytes.length; ) {
      const count = readSync(file, bytes, done, Math.min(bytes.length - done, 2 ** 30), offset + done);
      if (count === 0) throw new Error(`${path} ends early`);
      done += count;
    }
  } finally {
    closeSync(file);
  }
  const kind = typedData([], dtype).constructor as new (buffer: ArrayBuffer) => Value['data'];
  return { dtype, dims, data: new kind(bytes.buffer) };
}
