// Writes a checkpoint as a folder to keep or to share: in another float type, in shards, under Hugging Face
// names whatever software wrote it, in the form that transformers runs, and without optimizer state.

import { existsSync, realpathSync, statSync } from 'node:fs';
import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { saveCheckpoint } from '../checkpoint/checkpoint.ts';
import { readTokenizerFiles } from '../checkpoint/tokenizer-files.ts';
import type { Engine } from '../engine/engine.ts';
import { UserError } from '../errors.ts';
import { PULL_RECORD } from '../hub/download.ts';
import { imageProcessorConfig } from '../images/processor.ts';
import { llavaConfigSchema } from '../models/llava.ts';
import { packedName, scaleName } from '../nn/parameters.ts';
import { type FloatType, storedFloats } from '../weights/dtype.ts';
import { plannedFormat, type Quantization, quantizeRows } from '../weights/quantize.ts';
import { elementCount, type TensorSource } from '../weights/safetensors.ts';
import { checkConfig, type ModelFolder, openModel } from './folder.ts';
import { type FloatTensor, hubForm } from './hub-form.ts';
import { mergedTensors } from './merge.ts';
import { processorFilesOf, readImageProcessor } from './processor.ts';
import { hubTokenizerFiles, readGenerationConfig } from './tokenizer-form.ts';

/** Files that only the trainer needs, and the one in which `pull` records where a folder came from. */
const LEFT_OUT = ['trainer_state.json', 'optimizer.safetensors', PULL_RECORD];

export interface ConvertOptions {
  /** The type in which floats are written. Default: that of most of them. */
  dtype?: FloatType;
  /** Bytes of weights per file; more go into several files. */
  maxShardSize: number;
  /** Folder of the vision tower, for an original LLaVA folder that only names it. */
  visionTower?: string;
  /** Packs the matrices; the model can then be run but no longer trained. */
  quantize?: Quantization;
  /** A folder of peft whose adapter is put into the weights. */
  adapter?: { folder: string; engine: Engine };
  /** Further files, by name. */
  files?: Record<string, string>;
}

/**
 * Writes the checkpoint in `from` to `to`, replacing a checkpoint that is there. Tensors are read and written
 * piece by piece. UserError if `to` is something else, if `from` is damaged or contradictory, or if
 * `quantize` is given for weights that are packed already.
 */
export async function convertCheckpoint(
  from: string,
  to: string,
  { dtype: asked, maxShardSize, visionTower, quantize, adapter, files }: ConvertOptions,
): Promise<void> {
  await checkTarget(to, [from, visionTower ?? from]);
  const model = await openModel(from, { visionTower });
  try {
    const stored = storedPacked(model, quantize);
    const { config, floats } = await hubContents(model, { stored, adapter });
    const dtype = asked ?? usualType(model);
    const { packed, replaced } = packedTensors(floats, quantize);
    for (const name of replaced) floats.delete(name);
    await saveCheckpoint(to, {
      config: { ...config, dtype, ...(quantize ? { quantization_config: { quant_method: 'llava-gemma', weights: quantize } } : {}) },
      tensors: floats,
      dtype: storedFloats[dtype],
      stored: new Map([...stored, ...packed]),
      maxShardSize,
      files: { ...(await filesBeside(from, model)), ...files },
    });
  } finally {
    await model.close();
  }
}

/**
 * config.json and the float tensors of a model as it leaves this project (hub-form.ts), with an adapter in
 * its weights. `stored` are tensors that stay as they are. UserError for an output head of its own.
 */
export async function hubContents(
  model: ModelFolder,
  { stored, adapter }: { stored?: ReadonlyMap<string, unknown>; adapter?: ConvertOptions['adapter'] } = {},
): Promise<{ config: Record<string, unknown>; floats: Map<string, FloatTensor> }> {
  await model.checkHead();
  const floats = new Map<string, FloatTensor>();
  for (const name of model.names)
    if (!stored?.has(name)) floats.set(name, { shape: model.shape(name), data: () => model.float32Pieces(name) });
  if (adapter) for (const [name, tensor] of await mergedTensors(model, adapter.folder, adapter.engine)) floats.set(name, tensor);
  const form = hubForm(model.config, floats);
  for (const [name, tensor] of [...form.widened, ...form.folded]) floats.set(name, tensor);
  const { torch_dtype: _, ...config } = form.config;
  return { config, floats };
}

/** The type of most floats of a model. */
export function usualType(model: ModelFolder): FloatType {
  const types = Object.keys(storedFloats) as FloatType[];
  const numbers = (type: FloatType) =>
    model.names.reduce((sum, name) => (model.info(name).dtype === storedFloats[type] ? sum + elementCount(model.shape(name)) : sum), 0);
  return types.reduce((best, type) => (numbers(type) > numbers(best) ? type : best));
}

/** What a folder written here consists of. */
const OURS = /\.(json|jinja|safetensors)$/;

/** Only a checkpoint may be replaced, and nothing else may be lost with it. */
async function checkTarget(to: string, sources: readonly string[]): Promise<void> {
  if (!existsSync(to)) return;
  for (const source of sources.filter((path) => existsSync(path)))
    if (realpathSync(source) === realpathSync(to)) throw new UserError(`${to}: it would replace what it is made from; give another folder`);
  if (!statSync(to).isDirectory()) throw new UserError(`${to} is a file; give a folder`);
  const inTheWay = await readdir(to, { withFileTypes: true });
  if (inTheWay.length > 0 && !inTheWay.some(({ name }) => name === 'config.json'))
    throw new UserError(`${to} holds ${inTheWay[0].name} and is no checkpoint; give another folder`);
  const other = inTheWay.find((entry) => entry.isDirectory() || !OURS.test(entry.name));
  if (other) throw new UserError(`${to} holds ${other.name}, which no checkpoint has and which would be lost; give another folder`);
}

/** The files of a folder but config.json and the weights, in the form in which they leave. */
export async function filesBeside(from: string, model: ModelFolder): Promise<Record<string, string | Uint8Array>> {
  const kept = await furtherFiles(from);
  const written = await llavaFiles(from, model);
  // transformers would take it instead of the template that is written
  if ('chat_template.jinja' in written) delete kept['chat_template.json'];
  return { ...kept, ...written };
}

/** Tokenizer, image processor and whatever else describes the model. */
async function furtherFiles(from: string): Promise<Record<string, Uint8Array>> {
  const kept = (await readdir(from)).filter(
    (name) => name !== 'config.json' && /\.(json|jinja)$/.test(name) && !name.startsWith('model.safetensors') && !LEFT_OUT.includes(name),
  );
  return Object.fromEntries(await Promise.all(kept.map(async (name) => [name, await readFile(join(from, name))] as const)));
}

/** The files of a LLaVA folder as transformers 5 reads them, of those that the folder has something for. */
async function llavaFiles(from: string, model: ModelFolder): Promise<Record<string, string>> {
  const parsed = llavaConfigSchema.safeParse(model.config);
  if (!parsed.success) return {};
  const has = (name: string) => existsSync(join(from, name));
  const files: Record<string, string> = {};
  if (has('tokenizer.json')) Object.assign(files, hubTokenizerFiles(await readTokenizerFiles(from), await readGenerationConfig(from)));
  // original LLaVA folders lack it: it is that of the vision tower
  const processor = model.layout === 'native' ? await model.imageProcessor() : await readImageProcessor(from, 'llava');
  if (processor) Object.assign(files, processorFilesOf(parsed.data, checkConfig(imageProcessorConfig, processor.value, processor.file)));
  return files;
}

/** Tensors that are packed already, as they are. UserError if `quantize` asks to pack them. */
function storedPacked(model: ModelFolder, quantize: Quantization | undefined): Map<string, TensorSource> {
  const packed = new Map<string, TensorSource>();
  for (const name of model.names.filter((name) => name.endsWith(packedName('')))) {
    if (quantize) throw new UserError(`${model.dir}: its weights are quantized already: --quantize needs those that they were made from`);
    const weight = name.slice(0, -packedName('').length);
    for (const part of [packedName(weight), scaleName(weight)]) {
      packed.set(part, {
        ...model.info(part),
        async *data() {
          yield await model.bytes(part);
        },
      });
    }
  }
  return packed;
}

/**
 * The tensors that are packed now, which are read once for each of their two tensors. `replaced` are the
 * names that are not written as floats.
 */
function packedTensors(
  floats: ReadonlyMap<string, FloatTensor>,
  quantize: Quantization | undefined,
): { packed: Map<string, TensorSource>; replaced: string[] } {
  const packed = new Map<string, TensorSource>();
  const replaced: string[] = [];
  if (!quantize) return { packed, replaced };
  for (const [name, { shape, data }] of floats) {
    const format = plannedFormat(name, shape, quantize);
    if (!format) continue;
    const [rows, columns] = shape;
    const pieces = async function* (part: 'packed' | 'scale') {
      for await (const values of data()) {
        const { buffer, byteOffset, byteLength } = quantizeRows(values, format)[part];
        yield new Uint8Array(buffer, byteOffset, byteLength);
      }
    };
    replaced.push(name);
    packed.set(packedName(name), { dtype: 'U8', shape: [rows, (columns * format.bits) / 8], data: () => pieces('packed') });
    packed.set(scaleName(name), { dtype: 'F32', shape: [rows, columns / format.blockSize], data: () => pieces('scale') });
  }
  return { packed, replaced };
}
