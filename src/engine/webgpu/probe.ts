// What a device can do, by trying: ONNX Runtime tells no features and no limits.

import { expand, matmul } from '../../graph/primitives.ts';
import { input } from '../../graph/tensor.ts';
import { Device } from './device.ts';
import { DeviceError } from './failure.ts';
import type { Runtime } from './runtime.ts';

export interface DeviceFacts {
  /** Whether shaders compute in float16. */
  float16: boolean;
  /** Bytes of the largest buffer that was given, a power of two, at most `LARGEST`. */
  largestBuffer: number;
  /** Floating-point operations a second, in products of square matrices of float32. */
  flops: number;
}

const SMALLEST = 2 ** 26;
const LARGEST = 2 ** 33;
/** Rows and columns of the matrices that are multiplied. */
const FIRST_SIZE = 128;
const LAST_SIZE = 4096;
/** Seconds after which no larger ones are. */
const LONG = 0.1;

/** Tries out the device of `runtime`. UserError where there is none. */
export async function probeDevice(runtime: Runtime): Promise<DeviceFacts> {
  const device = new Device(runtime);
  return { flops: await speed(device), float16: await device.hasFloat16(), largestBuffer: await largestBuffer(device) };
}

async function largestBuffer(device: Device): Promise<number> {
  const columns = 2 ** 16;
  const graph = await device.open({ y: expand(input('x', 'float32', ['rows', 1]), ['rows', columns]) });
  let largest = 0;
  try {
    for (let bytes = SMALLEST; bytes <= LARGEST; bytes *= 2) {
      const rows = bytes / 4 / columns;
      const x = device.fromHost({ dtype: 'float32', dims: [rows, 1], data: new Float32Array(rows) });
      (await graph.run(() => x)).y.dispose();
      largest = bytes;
    }
  } catch (error) {
    if (!(error instanceof DeviceError)) throw error;
  } finally {
    await graph.dispose();
  }
  return largest;
}

/** Products of larger matrices until one takes its time. */
async function speed(device: Device): Promise<number> {
  const square = expand(input('x', 'float32', ['rows', 1]), ['rows', 'rows']);
  const graph = await device.open({ y: matmul(square, square) });
  const run = async (size: number) => {
    const x = device.fromHost({ dtype: 'float32', dims: [size, 1], data: new Float32Array(size).fill(1) });
    const began = performance.now();
    const { y } = await graph.run(() => x);
    // waits until it is there
    await device.download(device.view(y, [1]));
    y.dispose();
    return (performance.now() - began) / 1000;
  };
  let best = 0;
  for (let size = FIRST_SIZE; size <= LAST_SIZE; size *= 2) {
    // the first time, the shader is compiled
    await run(size);
    const seconds = await run(size);
    best = Math.max(best, (2 * size ** 3) / seconds);
    if (seconds > LONG) break;
  }
  await graph.dispose();
  return best;
}
