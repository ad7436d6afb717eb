// What a checkpoint of a run holds of its model: the form that transformers runs (pretrained/hub-form.ts)
// and what the run alone goes on from: a copy of tensors whose own bits that form does not keep, and those
// that are no part of the model.

import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { type Checkpoint, type CheckpointContents, type FloatDType, floatSource, storedToFloat32 } from '../checkpoint/checkpoint.ts';
import { UserError } from '../errors.ts';
import { upName, weightName } from '../nn/lora.ts';
import { ADAPTER_CONFIG, ADAPTER_WEIGHTS, adapterFiles } from '../pretrained/adapter.ts';
import { EMBEDDING, type FloatTensor, type HubForm, hubForm, multiplied } from '../pretrained/hub-form.ts';
import { readParameters } from '../pretrained/values.ts';
import { elementCount, openSafetensors, type TensorSource } from '../weights/safetensors.ts';
import type { StageAdapters } from './adapters.ts';
import type { Task } from './task.ts';
import type { NamedParameter } from './weights.ts';

/** Tensors as the trainer has them, where model.safetensors has them changed or not at all. */
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

export type SavedFiles = Required<Pick<CheckpointContents, 'files' | 'tensorFiles'>>;
export type SavedContents = SavedFiles & Required<Pick<CheckpointContents, 'config' | 'stored'>>;

/**
 * The model of a task as it is now, ready to be saved with `saveCheckpoint`. Adapters are merged into their
 * weights, and kept beside them as a folder of peft.
 */
export async function savedModel(
  { saved: { config, files, isApart = () => false }, weights, moduleOf }: Pick<Task, 'saved' | 'weights' | 'moduleOf'>,
  adapters?: StageAdapters,
): Promise<SavedContents> {
  const sources = await weights.sources();
  const floats = [...sources].filter(([, source]) => isFloat(source));
  const form = hubForm(config, new Map(floats.map(([name, source]) => [name, floatTensor(name, source)])));
  const stored = new Map([...sources].filter(([name]) => !isApart(name)));
  const trained = new Map([...sources].filter(([name]) => isApart(name)));
  for (const [name, { shape, data }] of form.widened)
    stored.set(name, floatSource(shape, data, sources.get(name)!.dtype as FloatDType, name));
  for (const [name, { shape, data }] of form.folded) {
    stored.set(name, floatSource(shape, data, 'F32', name));
    trained.set(name, sources.get(name)!);
  }
  const contents: SavedContents = { config: form.config, files: { ...files }, stored, tensorFiles: {} };
  if (adapters) addAdapterFolder(contents, adapters, await weights.adapterSources(), form.foldedBy, moduleOf);
  if (trained.size > 0) contents.tensorFiles[TRAINED_FILE] = trained;
  return contents;
}

/**
 * What a stage with adapters has trained so far, for the run to go on from. The model itself is written when
 * they are merged into it, at the end of the stage.
 */
export async function savedAdapters({ weights }: Pick<Task, 'weights'>, isTrained: (name: string) => boolean): Promise<SavedFiles> {
  const trained = await weights.adapterSources();
  for (const [name, source] of await weights.sources()) if (isTrained(name)) trained.set(name, source);
  return { files: {}, tensorFiles: { [TRAINED_FILE]: trained } };
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

/** Reads what a checkpoint of a run holds of its weights. */
export interface TrainedReader {
  /** Whether it holds a parameter apart from the model. */
  isApart(name: string): boolean;
  /**
   * A parameter's values, float32, with the bits that the run had when it saved the checkpoint. UserError
   * as of `readParameters`.
   */
  read(parameter: NamedParameter): Promise<Float32Array>;
}

/** Opens what a run saved in `dir`; `checkpoint` is the model there, if there is one. */
export async function withTrained<T>(
  dir: string,
  checkpoint: Checkpoint | undefined,
  body: (reader: TrainedReader) => Promise<T>,
): Promise<T> {
  const path = join(dir, TRAINED_FILE);
  const file = existsSync(path) ? await openSafetensors(path) : undefined;
  const isApart = (name: string) => file?.names.includes(name) ?? false;
  try {
    return await body({
      isApart,
      async read({ name, dims }) {
        if (isApart(name)) return storedToFloat32(await file!.read(name), `${path}: ${name}`);
        if (!checkpoint) throw new UserError(`${path}: it has no ${name}: another version wrote it; start the run anew`);
        // the rows of a widened table come first
        const rows = name === EMBEDDING ? Math.max(dims[0], checkpoint.shape(name)[0]) : dims[0];
        const values = await readParameters(checkpoint, [{ name, dims: [rows, ...dims.slice(1)] }]);
        return values.get(name)!.subarray(0, elementCount(dims));
      },
    });
  } finally {
    await file?.close();
  }
}

/**
 * Ends the adapters of a finished stage: the weights are from now on those of its checkpoint, into which they
 * were merged.
 */
export async function endAdapters({ weights }: Pick<Task, 'weights'>, { layers }: StageAdapters, checkpoint: Checkpoint): Promise<void> {
  await weights.takeMerged(checkpoint);
  const names = new Set([...layers.keys()].map(weightName));
  // where the checkpoint has another form, the run goes on from its own
  await withTrained(checkpoint.dir, checkpoint, async (reader) => {
    for (const parameter of weights.parameters)
      if (names.has(parameter.name) && reader.isApart(parameter.name)) await weights.restore(parameter.name, await reader.read(parameter));
  });
}
