// Engines by the device that a recipe or a command names, in Node.

import { closeSync, fstatSync, openSync, readSync } from 'node:fs';
import { tmpdir } from 'node:os';
import * as ort from 'onnxruntime-node';
import { checkStamp } from '../file-stamp.ts';
import { typedData } from '../graph/tensor.ts';
import { checkDevice, type DeviceName, type Engine, elementBytes, type StoredValue, sizeOf, type Value } from './engine.ts';
import { createOrtEngine, type OrtOptions } from './ort.ts';
import { layOutConstants } from './stored-constants.ts';
import { type VulkanGpu, vulkanGpus } from './vulkan.ts';
import { Device } from './webgpu/device.ts';
import { createWebgpuEngine, usable, type WebgpuOptions } from './webgpu/engine.ts';
import { type DeviceFacts, probeDevice } from './webgpu/probe.ts';
import type { Runtime } from './webgpu/runtime.ts';

/**
 * The engine of a device. UserError where webgpu is asked for and there is no adapter; `auto` takes the CPU
 * then, and where all there is is software. `threads` and
 * `spin` are of the CPU's.
 */
export async function openEngine(device: DeviceName = 'cpu', options: Pick<OrtOptions, 'threads' | 'spin'> = {}): Promise<Engine> {
  checkDevice(device);
  if (device === 'cpu') return createOrtEngine(options);
  prepareVulkan();
  // an adapter that is software is slower than the CPU by far
  if (device === 'auto' && (await isSoftwareAlone())) return createOrtEngine(options);
  return usable(createNodeWebgpuEngine(), device === 'auto' ? () => createOrtEngine(options) : undefined);
}

/** Whether Vulkan lists GPUs and each of them is software. */
async function isSoftwareAlone(): Promise<boolean> {
  // on Windows and Macs, adapters are of Direct3D and Metal
  const gpus = process.platform === 'linux' ? await vulkanGpus() : [];
  return gpus.length > 0 && gpus.every(({ isSoftware }) => isSoftware);
}

/** The engine on ONNX Runtime's WebGPU provider, whether there is an adapter or not. */
export function createNodeWebgpuEngine(options: Omit<WebgpuOptions, 'stored'> = {}): Engine {
  return createWebgpuEngine(nodeRuntime(), { ...options, stored: { read: readStored, layOut: layOutConstants } });
}

/** Loaders of Vulkan complain on stderr where this is not set. */
function prepareVulkan(): void {
  if (process.platform === 'linux') process.env.XDG_RUNTIME_DIR ??= tmpdir();
}

function nodeRuntime(): Runtime {
  prepareVulkan();
  // what goes wrong is told by what is thrown
  ort.env.logLevel = 'fatal';
  return ort as unknown as Runtime;
}

/** Whether the WebGPU device computes in float16. UserError where there is none. */
export const hasWebgpuFloat16 = (): Promise<boolean> => new Device(nodeRuntime()).hasFloat16();

/** What this machine has for `--device webgpu`. */
export interface WebgpuDescription extends DeviceFacts {
  /** The GPUs that Vulkan lists, which name the adapter; on a Mac, where there is no Vulkan, none. */
  gpus: VulkanGpu[];
}

/** Describes the WebGPU device. UserError where there is no adapter. */
export async function describeWebgpu(): Promise<WebgpuDescription> {
  const facts = await probeDevice(nodeRuntime());
  return { gpus: await vulkanGpus(), ...facts };
}

async function readStored({ dtype, dims, path, offset, stamp }: StoredValue): Promise<Value> {
  const bytes = new Uint8Array(sizeOf(dims) * elementBytes[dtype]);
  const file = openSync(path, 'r');
  try {
    checkStamp(path, fstatSync(file), stamp);
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
