// The adapter that tests of the WebGPU engine run on: Chromium's SwiftShader, a software Vulkan, unless
// VK_ICD_FILENAMES names another one. Importing this file sets it, before ONNX Runtime is asked for a device.

import { existsSync } from 'node:fs';
import { openEngine } from '../src/engine/devices.ts';

const SWIFTSHADER = '/usr/lib/chromium/vk_swiftshader_icd.json';
if (existsSync(SWIFTSHADER)) process.env.VK_ICD_FILENAMES ??= SWIFTSHADER;

/** The engine, or nothing where there is no adapter, with a word about it. */
export const webgpu = await openWebgpu();

async function openWebgpu() {
  try {
    return await openEngine('webgpu');
  } catch (error) {
    console.error(`tests of WebGPU are skipped: ${(error as Error).message}`);
    return undefined;
  }
}
