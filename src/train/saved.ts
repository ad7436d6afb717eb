// What a checkpoint of a run holds of its model: the form that transformers runs (pretrained/hub-form.ts)
// and, of tensors whose own bits that form does not keep, a copy from which the run goes on.

import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { type Checkpoint, type CheckpointContents, type FloatDType, floatSource, storedToFloat32 } from '../checkpoint/checkpoint.ts';
import { EMBEDDING, type FloatTensor, hubForm } from '../pretrained/hub-form.ts';
import { readParameters } from '../pretrained/values.ts';
import { elementCount, openSafetensors, type TensorSource } from '../weights/safetensors.ts';
import type { Task } from './task.ts';
import type { NamedParameter } from './weights.ts';

/** Tensors as the trainer has them, where model.safetensors has them changed. */
const TRAINED_FILE = 'trained.safetensors';

const isFloat = (source: TensorSource): source is TensorSource & { dtype: FloatDType } => ['F32', 'F16', 'BF16'].includes(source.dtype);

function floatTensor(name: string, { shape, dtype, data }: TensorSource): FloatTensor {
  return {
    shape,
    async *data() {
      for await (const piece of data instanceof Uint8Array ? [data] : data()) yield storedToFloat32({ dtype, data: piece }, name);
    },
  };
}

/** The model of a task as it is now, ready to be saved with `saveCheckpoint`. */
export async function savedModel({
  saved: { config, files },
  weights,
}: Pick<Task, 'saved' | 'weights'>): Promise<Required<Pick<CheckpointContents, 'config' | 'files' | 'stored' | 'tensorFiles'>>> {
  const sources = await weights.sources();
  const floats = [...sources].filter(([, source]) => isFloat(source));
  const form = hubForm(config, new Map(floats.map(([name, source]) => [name, floatTensor(name, source)])));
  const stored = new Map(sources);
  const trained = new Map<string, TensorSource>();
  for (const [name, { shape, data }] of form.widened)
    stored.set(name, floatSource(shape, data, sources.get(name)!.dtype as FloatDType, name));
  for (const [name, { shape, data }] of form.folded) {
    stored.set(name, floatSource(shape, data, 'F32', name));
    trained.set(name, sources.get(name)!);
  }
  return { config: form.config, files, stored, tensorFiles: trained.size > 0 ? { [TRAINED_FILE]: trained } : {} };
}

/**
 * A parameter's values, float32, with the bits that the run had when it saved `checkpoint`. UserError as of
 * `readParameters`.
 */
export async function readTrained(checkpoint: Checkpoint, parameter: NamedParameter): Promise<Float32Array> {
  const { name, dims } = parameter;
  const path = join(checkpoint.dir, TRAINED_FILE);
  const file = existsSync(path) ? await openSafetensors(path) : undefined;
  try {
    if (file?.names.includes(name)) return storedToFloat32(await file.read(name), `${path}: ${name}`);
  } finally {
    await file?.close();
  }
  // the rows of a widened table come first
  const rows = name === EMBEDDING ? Math.max(dims[0], checkpoint.shape(name)[0]) : dims[0];
  const values = await readParameters(checkpoint, [{ name, dims: [rows, ...dims.slice(1)] }]);
  return values.get(name)!.subarray(0, elementCount(dims));
}
