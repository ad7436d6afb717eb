// Our files of a shape: a Hugging Face folder with packed weights, as `llava-gemma convert --quantize int4`
// writes it.

import { saveCheckpoint } from '../../src/checkpoint/checkpoint.ts';
import { llavaConfigSchema } from '../../src/models/llava.ts';
import { modelParameters } from '../../src/models/model-parameters.ts';
import { packedName, scaleName } from '../../src/nn/parameters.ts';
import { imageProcessorFor } from '../../src/pretrained/processor.ts';
import { plannedFormat } from '../../src/weights/quantize.ts';
import { elementCount, type TensorSource } from '../../src/weights/safetensors.ts';
import type { BenchConfig } from './shapes.ts';
import { floatsOf, nibblePool, piecesOf, WEIGHT_STD } from './weights.ts';

/**
 * Standard deviation of whole numbers that are evenly distributed over 4 bits; over 8 it is sixteen times
 * that.
 */
const NIBBLE_STD = 4.6;

/** Writes `dir`, whole or not at all. */
export async function writeOurFolder(dir: string, config: BenchConfig): Promise<void> {
  const tensors = new Map<string, { shape: number[]; data: Float32Array }>();
  const packed = new Map<string, TensorSource>();
  for (const { name, dims, initializer } of modelParameters(config)) {
    const format = plannedFormat(name, dims, 'int4');
    if (!format) {
      const size = elementCount(dims);
      const data = initializer.kind === 'normal' ? floatsOf(size, name) : new Float32Array(size).fill(initializer.kind === 'ones' ? 1 : 0);
      tensors.set(name, { shape: [...dims], data });
      continue;
    }
    const { bits, blockSize } = format;
    const [rows, columns] = dims;
    const bytes = (columns * bits) / 8;
    const scale = WEIGHT_STD / (bits === 4 ? NIBBLE_STD : 16 * NIBBLE_STD);
    packed.set(packedName(name), { dtype: 'U8', shape: [rows, bytes], data: () => piecesOf(nibblePool(), rows * bytes, 1, name) });
    packed.set(scaleName(name), {
      dtype: 'F32',
      shape: [rows, columns / blockSize],
      data: () => [new Uint8Array(new Float32Array((rows * columns) / blockSize).fill(scale).buffer)],
    });
  }
  const size = llavaConfigSchema.parse(config).vision_config.image_size;
  const files = { 'preprocessor_config.json': JSON.stringify(imageProcessorFor(size)) };
  await saveCheckpoint(dir, { config, tensors, dtype: 'F32', stored: packed, files });
}
