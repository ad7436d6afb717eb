// What `llava-gemma merge` does.
import { createOrtEngine } from '../../engine/ort.ts';
import { convertCheckpoint } from '../../pretrained/convert.ts';
import { floatTypeOf } from '../options.ts';

export interface MergeFlags {
  dtype?: string;
  maxShardSize: number;
}

/** Runs the command. */
export async function merge(model: string, adapter: string, to: string, { dtype, maxShardSize }: MergeFlags): Promise<void> {
  await convertCheckpoint(model, to, {
    dtype: dtype === undefined ? undefined : floatTypeOf(dtype),
    maxShardSize,
    adapter: { folder: adapter, engine: createOrtEngine() },
  });
  console.log(`wrote ${to}`);
}
