// Models with a planted fault: a copy of a folder with changed weights.

import { cpSync } from 'node:fs';
import { join } from 'node:path';
import { openCheckpoint } from '../src/checkpoint/checkpoint.ts';
import { type TensorSource, writeSafetensors } from '../src/weights/safetensors.ts';

/**
 * Copies the model at `from` to `to`; `change` alters the values of a tensor, whose name is ours. Returns
 * `to`.
 */
export async function plantFault(from: string, to: string, change: (name: string, values: Float32Array) => void): Promise<string> {
  cpSync(from, to, { recursive: true });
  const checkpoint = await openCheckpoint(from);
  const tensors = new Map<string, TensorSource>();
  for (const name of checkpoint.names) {
    const values = (await checkpoint.float32(name)).slice();
    change(name, values);
    tensors.set(checkpoint.storedName(name), { dtype: 'F32', shape: checkpoint.shape(name), data: new Uint8Array(values.buffer) });
  }
  await checkpoint.close();
  await writeSafetensors(join(to, 'model.safetensors'), tensors, { format: 'pt' });
  return to;
}
