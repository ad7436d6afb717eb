// The adapter that tests of the WebGPU engine run on: Chromium's or Chrome's SwiftShader, a software Vulkan,
// unless VK_ICD_FILENAMES names another one. Importing this file sets it, before ONNX Runtime is asked for a
// device.

import { existsSync } from 'node:fs';
import * as ort from 'onnxruntime-node';
import { openEngine } from '../src/engine/devices.ts';
import { Device } from '../src/engine/webgpu/device.ts';
import type { Runtime } from '../src/engine/webgpu/runtime.ts';
import { skipped } from './required.ts';

const SWIFTSHADERS = ['/usr/lib/chromium/vk_swiftshader_icd.json', '/opt/google/chrome/vk_swiftshader_icd.json'];
const found = SWIFTSHADERS.find((path) => existsSync(path));
if (found !== undefined) process.env.VK_ICD_FILENAMES ??= found;

/** The GPU that Vulkan is told of has float16. */
export const hasFloat16 = async () => webgpu !== undefined && new Device(ort as unknown as Runtime).hasFloat16();

/** The engine, or nothing where there is no adapter, with a word about it. */
export const webgpu = await openWebgpu();

async function openWebgpu() {
  try {
    return await openEngine('webgpu');
  } catch (error) {
    skipped('webgpu', (error as Error).message);
    return undefined;
  }
}
