// What `llava-gemma info --device` does.
import { describeWebgpu, type WebgpuDescription } from '../../engine/devices.ts';
import { formatBytes } from '../format.ts';

/** The description as lines of text. */
export function formatDevice({ gpus, float16, largestBuffer, flops }: WebgpuDescription): string {
  const names = gpus.map(({ name, isSoftware }) => (isSoftware ? `${name} (software: right numbers, slowly)` : name));
  const rows: [string, string][] = [
    ['WebGPU', "an adapter, by ONNX Runtime's provider"],
    ['GPUs of Vulkan', names.join(', ') || 'none'],
    ['float16', float16 ? 'yes' : 'no'],
    ['buffers', `${formatBytes(largestBuffer)} and less`],
    ['products', `${(flops / 1e9).toLocaleString('en', { maximumSignificantDigits: 3 })} GFLOP/s in float32`],
  ];
  const width = Math.max(...rows.map(([label]) => label.length));
  return rows.map(([label, value]) => `${label.padEnd(width)}  ${value}`).join('\n');
}

/** Runs the command. UserError where there is no adapter. */
export async function infoDevice({ json }: { json?: boolean }): Promise<void> {
  const description = await describeWebgpu();
  console.log(json ? JSON.stringify(description, null, 2) : formatDevice(description));
}
