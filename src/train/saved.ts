// What a checkpoint of a run holds of its model: the form that transformers runs (pretrained/hub-form.ts)
// and, of tensors whose own bits that form does not keep, a copy from which the run goes on.

import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { type Checkpoint, type CheckpointContents, type FloatDType, floatSource, storedToFloat32 } from '../checkpoint/checkpoint.ts';
import { upName, weightName } from '../nn/lora.ts';
import { ADAPTER_CONFIG, ADAPTER_WEIGHTS, adapterFiles } from '../pretrained/adapter.ts';
import { EMBEDDING, type FloatTensor, type HubForm, hubForm, multiplied } from '../pretrained/hub-form.ts';
import { readParameters } from '../pretrained/values.ts';
import { elementCount, openSafetensors, type TensorSource } from '../weights/safetensors.ts';
import type { StageAdapters } from './adapters.ts';
import type { Task } from './task.ts';
import type { NamedParameter } from './weights.ts';

/** Tensors as the trainer has them, where model.safetensors has them changed. */
const TRAINED_FILE = 'trained.safetensors';

/** Folder of a finished stage's adapters, in its checkpoint. */
const ADAPTER_FOLDER = 'adapter';

const isFloat = (source: TensorSource): source is TensorSource & { dtype: FloatDType } => ['F32', 'F16', 'BF16'].includes(source.dtype);

function floatTensor(name: string, { shape, dtype, data }: TensorSource): FloatTensor {
  return {
    shape,
    async *data() {
      for await (const piece of data instanceof Uint8Array ? [data] : data()) yield storedToFloat32({ dtype, data: piece }, name);
    },
  };
}

export type SavedContents = Required<Pick<CheckpointContents, 'config' | 'files' | 'stored' | 'tensorFiles'>>;

/**
 * The model of a task as it is now, ready to be saved with `saveCheckpoint`. Adapters are merged into their
 * weights. Of a stage that has not ended, they are also kept apart, for the run to go on from; of one that has,
 * as a folder of peft.
 */
export async function savedModel(
  { saved: { config, files }, weights, moduleOf }: Pick<Task, 'saved' | 'weights' | 'moduleOf'>,
  stage: { adapters?: StageAdapters; isFinished: boolean },
): Promise<SavedContents> {
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
  const contents: SavedContents = { config: form.config, files: { ...files }, stored, tensorFiles: {} };
  if (stage.adapters) {
    const own = await weights.adapterSources();
    if (stage.isFinished) addAdapterFolder(contents, stage.adapters, own, form.foldedBy, moduleOf);
    else for (const [name, source] of own) trained.set(name, source);
  }
  if (trained.size > 0) contents.tensorFiles[TRAINED_FILE] = trained;
  return contents;
}

/** Adds the adapters, and the modules that were trained whole beside them, as a folder in peft's format. */
function addAdapterFolder(
  { files, stored, tensorFiles }: SavedContents,
  adapters: StageAdapters,
  own: ReadonlyMap<string, TensorSource>,
  folded: HubForm['foldedBy'],
  moduleOf: Task['moduleOf'],
): void {
  const tensors = new Map<string, TensorSource>();
  for (const [name, source] of own) {
    // the layer before which transformers does not multiply: its B is what carries the factor
    const factor = [...adapters.layers.keys()].some((module) => upName(module) === name && folded.names.includes(weightName(module)))
      ? folded.factor
      : 1;
    const { shape, data } = multiplied(floatTensor(name, source), factor);
    tensors.set(name, factor === 1 ? source : floatSource(shape, data, 'F32', name));
  }
  for (const [name, source] of stored) if (adapters.wholeModules.includes(moduleOf(name))) tensors.set(name, source);
  const { config, tensors: named } = adapterFiles({ ...adapters, tensors });
  files[`${ADAPTER_FOLDER}/${ADAPTER_CONFIG}`] = config;
  tensorFiles[`${ADAPTER_FOLDER}/${ADAPTER_WEIGHTS}`] = named;
}

/**
 * Ends the adapters of a finished stage: the weights are from now on those of its checkpoint, into which they
 * were merged.
 */
export async function endAdapters({ weights }: Pick<Task, 'weights'>, { layers }: StageAdapters, checkpoint: Checkpoint): Promise<void> {
  await weights.takeMerged(checkpoint);
  // where the checkpoint has another form, the run goes on from its own
  const names = new Set([...layers.keys()].map(weightName));
  for (const parameter of weights.parameters)
    if (names.has(parameter.name) && (await isApart(checkpoint, parameter.name)))
      await weights.restore(parameter.name, await readTrained(checkpoint, parameter));
}

async function isApart({ dir }: Checkpoint, name: string): Promise<boolean> {
  const path = join(dir, TRAINED_FILE);
  if (!existsSync(path)) return false;
  const file = await openSafetensors(path);
  await file.close();
  return file.names.includes(name);
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
