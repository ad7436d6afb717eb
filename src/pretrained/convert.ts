// Writes a checkpoint as a folder to keep or to share: in another float type, in shards, under Hugging Face
// names whatever software wrote it, and without optimizer state.

import { existsSync, statSync } from 'node:fs';
import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { saveCheckpoint } from '../checkpoint/checkpoint.ts';
import { UserError } from '../errors.ts';
import { PULL_RECORD } from '../hub/download.ts';
import { llavaConfigSchema } from '../models/llava.ts';
import { packedName, scaleName } from '../nn/parameters.ts';
import { type FloatType, storedFloats } from '../weights/dtype.ts';
import { plannedFormat, type Quantization, quantizeRows } from '../weights/quantize.ts';
import type { TensorSource } from '../weights/safetensors.ts';
import { checkConfig, type ModelFolder, openModel } from './folder.ts';
import { processorFilesOf } from './processor.ts';

/** Files that only the trainer needs, and the one in which `pull` records where a folder came from. */
const LEFT_OUT = ['trainer_state.json', 'optimizer.safetensors', PULL_RECORD];

export interface ConvertOptions {
  /** The type in which floats are written. */
  dtype: FloatType;
  /** Bytes of weights per file; more go into several files. */
  maxShardSize: number;
  /** Folder of the vision tower, for an original LLaVA folder that only names it. */
  visionTower?: string;
  /** Packs the matrices; the model can then be run but no longer trained. */
  quantize?: Quantization;
}

/**
 * Writes the checkpoint in `from` to `to`, replacing a checkpoint that is there. Tensors are read and written
 * piece by piece. UserError if `to` is something else, if `from` is damaged or contradictory, or if
 * `quantize` is given for weights that are packed already.
 */
export async function convertCheckpoint(
  from: string,
  to: string,
  { dtype, maxShardSize, visionTower, quantize }: ConvertOptions,
): Promise<void> {
  await checkTarget(to);
  const model = await openModel(from, { visionTower });
  try {
    await model.checkHead();
    const { torch_dtype: _, ...config } = model.config as Record<string, unknown>;
    // original LLaVA folders lack these files
    const processorFiles =
      model.layout === 'native'
        ? processorFilesOf(checkConfig(llavaConfigSchema, config, join(from, 'config.json')), (await model.imageProcessor()).value)
        : {};
    const { packed, replaced } = packedTensors(model, quantize);
    const floats = model.names.filter((name) => !replaced.has(name));
    await saveCheckpoint(to, {
      config: { ...config, dtype, ...(quantize ? { quantization_config: { quant_method: 'llava-gemma', weights: quantize } } : {}) },
      tensors: new Map(floats.map((name) => [name, { shape: model.shape(name), data: () => model.float32Pieces(name) }])),
      dtype: storedFloats[dtype],
      stored: packed,
      maxShardSize,
      files: { ...processorFiles, ...(await furtherFiles(from)) },
    });
  } finally {
    await model.close();
  }
}

/** Only a checkpoint may be replaced. */
async function checkTarget(to: string): Promise<void> {
  if (!existsSync(to)) return;
  if (!statSync(to).isDirectory()) throw new UserError(`${to} is a file; give a folder`);
  const inTheWay = await readdir(to);
  if (inTheWay.length > 0 && !inTheWay.includes('config.json'))
    throw new UserError(`${to} holds ${inTheWay[0]} and is no checkpoint; give another folder`);
}

/** Tokenizer, image processor and whatever else describes the model. */
async function furtherFiles(from: string): Promise<Record<string, Uint8Array>> {
  const kept = (await readdir(from)).filter(
    (name) => name !== 'config.json' && /\.(json|jinja)$/.test(name) && !name.startsWith('model.safetensors') && !LEFT_OUT.includes(name),
  );
  return Object.fromEntries(await Promise.all(kept.map(async (name) => [name, await readFile(join(from, name))] as const)));
}

/**
 * The packed tensors to write: those of the folder as they are, and those that are packed now, which are read
 * once for each of their two tensors. `replaced` are the names that are not written as floats.
 */
function packedTensors(
  model: ModelFolder,
  quantize: Quantization | undefined,
): { packed: Map<string, TensorSource>; replaced: Set<string> } {
  const packed = new Map<string, TensorSource>();
  const replaced = new Set<string>();
  for (const name of model.names.filter((name) => name.endsWith(packedName('')))) {
    if (quantize) throw new UserError(`${model.dir}: its weights are quantized already: --quantize needs those that they were made from`);
    const weight = name.slice(0, -packedName('').length);
    for (const part of [packedName(weight), scaleName(weight)]) {
      replaced.add(part);
      packed.set(part, {
        ...model.info(part),
        async *data() {
          yield await model.bytes(part);
        },
      });
    }
  }
  if (!quantize) return { packed, replaced };
  for (const name of model.names) {
    const format = plannedFormat(name, model.shape(name), quantize);
    if (!format) continue;
    const [rows, columns] = model.shape(name);
    const pieces = async function* (part: 'packed' | 'scale') {
      for await (const values of model.float32Pieces(name)) {
        const { buffer, byteOffset, byteLength } = quantizeRows(values, format)[part];
        yield new Uint8Array(buffer, byteOffset, byteLength);
      }
    };
    replaced.add(name);
    packed.set(packedName(name), { dtype: 'U8', shape: [rows, (columns * format.bits) / 8], data: () => pieces('packed') });
    packed.set(scaleName(name), { dtype: 'F32', shape: [rows, columns / format.blockSize], data: () => pieces('scale') });
  }
  return { packed, replaced };
}
