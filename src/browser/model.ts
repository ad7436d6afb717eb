// A model in a tab: loaded as in Node, and its connector trained where it is.

import { saveCheckpoint } from '../checkpoint/checkpoint.ts';
import type { DeviceName, Engine } from '../engine/engine.ts';
import { openEngine, type WebEngineOptions } from '../engine/web.ts';
import { UserError } from '../errors.ts';
import type { Generator } from '../generate/generator.ts';
import { type LoadedModel, loadModel as loadFrom } from '../pretrained/load.ts';
import { pictureReader } from '../pretrained/pictures.ts';
import { type ConnectorExample, type ConnectorTrainer, type ConnectorTraining, createConnectorTrainer } from '../train/connector.ts';
import type { Quantization } from '../weights/quantize.ts';
import { removeAt } from './files.ts';
import { type Folder, writtenFiles } from './folder.ts';
import { zipOf } from './zip.ts';

export interface LoadOptions extends WebEngineOptions {
  /** Default: auto, WebGPU where there is an adapter. */
  device?: DeviceName;
  /** Runs the model on quantized weights; `int4` keeps 8 bits for vision tower and connector. */
  quantize?: Quantization;
}

/** A model ready to answer (`createSession`) and to be trained (`trainConnector`). */
export interface TabModel extends LoadedModel {
  /** What it runs on. */
  readonly engine: Engine;
  readonly folder: Folder;
  /** Gives its memory back. */
  dispose(): Promise<void>;
}

/** What engines of browsers say where memory is short. */
const NO_MEMORY =
  /allocation failed|invalid (typed )?array (buffer )?length|bad_alloc|out of memory|failed to allocate|memory access out of bounds/i;

/** Does `work`. UserError where the tab has not enough memory for it. */
async function inMemory<T>(work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    if (error instanceof UserError || !(error instanceof Error) || !NO_MEMORY.test(error.message)) throw error;
    throw new UserError(`this tab has not enough memory for the model (${error.message}): take a smaller one, or quantize it to int4`, {
      cause: error,
    });
  }
}

/** The trainer of each model that was trained, and how often its connector has changed. */
const training = new WeakMap<TabModel, { trainer?: ConnectorTrainer; version: number }>();

/** Loads the model of an opened folder. UserError, naming file and tensor, as in Node. */
export async function loadModel(folder: Folder, { device = 'auto', quantize, ...options }: LoadOptions = {}): Promise<TabModel> {
  const engine = await openEngine(device, options);
  const loaded = await inMemory(() => loadFrom(folder.path, { engine, quantize }));
  const state: { trainer?: ConnectorTrainer; version: number } = { version: 0 };
  const generator: Generator = {
    ...loaded.generator,
    imageRows: (features) => (state.trainer ?? loaded.generator).imageRows(features),
  };
  const { imageRows, pictureKey } = pictureReader({ generator, processor: loaded.processor });
  const model: TabModel = {
    ...loaded,
    generator,
    engine,
    folder,
    imageRows,
    // sessions keep what the connector has made of a picture
    pictureKey: async (picture) => `${state.version} ${await pictureKey(picture)}`,
    async dispose() {
      await state.trainer?.dispose();
      await loaded.generator.dispose();
    },
  };
  training.set(model, state);
  return model;
}

export interface TrainOptions extends ConnectorTraining {
  /** Begin with a new connector, whose numbers follow from this seed, instead of the model's own. */
  fresh?: number;
}

/**
 * Trains the connector of `model` on pictures with texts, everything else frozen: stage 1 of LLaVA. The model
 * answers with what it has learnt from the first step on; what is trained later goes on from there. UserError
 * for what cannot be trained on.
 */
export async function trainConnector(
  model: TabModel,
  examples: readonly ConnectorExample[],
  { fresh, onStep, ...options }: TrainOptions,
): Promise<void> {
  const state = training.get(model)!;
  if (fresh !== undefined) {
    await state.trainer?.dispose();
    state.trainer = undefined;
  }
  await inMemory(async () => {
    state.trainer ??= await createConnectorTrainer(model.engine, model, model.folder.path, { fresh });
    await state.trainer.train(examples, {
      ...options,
      async onStep(step) {
        state.version++;
        await onStep?.(step);
      },
    });
  });
}

/** The model as it is now, as the files of a Hugging Face folder: what a run in Node would have saved. */
export async function modelFiles(model: TabModel): Promise<Map<string, Blob>> {
  const state = training.get(model)!;
  state.trainer ??= await createConnectorTrainer(model.engine, model, model.folder.path);
  const path = `${model.folder.path}.download`;
  await saveCheckpoint(path, await state.trainer.contents());
  const files = await writtenFiles(path);
  removeAt(path);
  return files;
}

/** The same as one zip file, with a folder of that name in it. */
export const modelZip = async (model: TabModel, name = model.folder.name): Promise<Blob> => zipOf(await modelFiles(model), name);
