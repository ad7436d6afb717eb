// What `llava-gemma convert` does.
import { convertCheckpoint } from '../../pretrained/convert.ts';
import type { Quantization } from '../../weights/quantize.ts';
import { floatTypeOf } from '../options.ts';

export interface ConvertFlags {
  dtype: string;
  maxShardSize: number;
  visionTower?: string;
  quantize?: Quantization;
}

/** Runs the command. */
export async function convert(from: string, to: string, { dtype, ...options }: ConvertFlags): Promise<void> {
  await convertCheckpoint(from, to, { ...options, dtype: floatTypeOf(dtype) });
  console.log(`wrote ${to}`);
}
