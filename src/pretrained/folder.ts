// Model folders of any layout: config checked by its schema, tensors by name. Original LLaVA folders come in
// here too, with the vision tower from a folder of its own where they only name it.

import { existsSync } from 'node:fs';
import { join } from 'node:path';
import type { z } from 'zod';
import { type Checkpoint, openCheckpoint } from '../checkpoint/checkpoint.ts';
import { readTokenizerFiles } from '../checkpoint/tokenizer-files.ts';
import { UserError } from '../errors.ts';
import type { ForwardModel } from '../generate/forward.ts';
import { fromHubConfig, isNativeConfig, type NativeConfigParts } from '../models/hub-config.ts';
import { LANGUAGE_MODEL_TYPES, languageConfigSchema } from '../models/language.ts';
import { llavaConfigSchema } from '../models/llava.ts';
import { VISION_MODEL_TYPES, visionFolderSchema, visionPart } from '../models/vision.ts';
import { createTokenizer } from '../text/tokenizer.ts';
import { imageProcessorFor, PROCESSOR_FILE, readImageProcessor, requireImageProcessor, type StoredProcessor } from './processor.ts';

/** A value checked by a schema; the first problem as one sentence that names `file` and field. */
export function checkConfig<T extends z.ZodType>(schema: T, value: unknown, file: string): z.output<T> {
  const parsed = schema.safeParse(value);
  if (parsed.success) return parsed.data;
  const [{ path, message }] = parsed.error.issues;
  const found = path.reduce<unknown>((inner, key) => (inner as Record<PropertyKey, unknown> | null | undefined)?.[key], value);
  const it = found === undefined || typeof found === 'object' ? '' : ` (it is ${JSON.stringify(found)})`;
  throw new UserError(`${file}: ${path.join('.') || 'the file'}: ${message}${it}`);
}

/**
 * The model that a folder's config.json is of: a LLaVA, or one of its parts in a folder of its own.
 * UserError, naming `file`, for another.
 */
export function forwardModelOf(config: unknown, file: string): ForwardModel {
  const type = (config as { model_type?: unknown } | null)?.model_type;
  const languageTypes = LANGUAGE_MODEL_TYPES;
  // the encoder of a whole CLIP or SigLIP is taken
  const visionTypes = [...VISION_MODEL_TYPES, 'clip', 'siglip'];
  if (type === 'llava') return { kind: 'llava', config: checkConfig(llavaConfigSchema, config, file) };
  if (languageTypes.includes(String(type))) return { kind: 'language', config: checkConfig(languageConfigSchema, config, file) };
  if (visionTypes.includes(String(type))) return { kind: 'vision', config: checkConfig(visionFolderSchema, config, file) };
  const known = ['llava', ...languageTypes, ...visionTypes].join(', ');
  throw new UserError(`${file}: model_type: must be one of ${known} (it is ${type === undefined ? 'missing' : JSON.stringify(type)})`);
}

/** The folder of a model, its config in Hugging Face form. */
export interface ModelFolder extends Checkpoint {
  /**
   * The folder's own image processor or, in an original LLaVA folder without one, that of the vision tower.
   * UserError where there is none.
   */
  imageProcessor(): Promise<StoredProcessor>;
}

export interface ModelFolderOptions {
  /**
   * Folder of the vision tower, for an original LLaVA folder that does not hold it or names one that is not
   * known here.
   */
  visionTower?: string;
}

/**
 * Opens a folder of any layout. Throws UserError, naming the file, for what is damaged, contradictory or not
 * supported.
 */
export async function openModel(dir: string, { visionTower }: ModelFolderOptions = {}): Promise<ModelFolder> {
  const checkpoint = await openCheckpoint(dir);
  let tower: Checkpoint | undefined;
  try {
    if (visionTower !== undefined) tower = await openCheckpoint(visionTower);
    return await modelFolder(checkpoint, tower);
  } catch (error) {
    await checkpoint.close();
    await tower?.close();
    throw error;
  }
}

function hubConfigOf(dir: string, stored: unknown, parts?: NativeConfigParts): unknown {
  try {
    return fromHubConfig(stored, parts);
  } catch (error) {
    throw error instanceof UserError ? new UserError(`${join(dir, 'config.json')}: ${error.message}`) : error;
  }
}

async function modelFolder(checkpoint: Checkpoint, tower: Checkpoint | undefined): Promise<ModelFolder> {
  const { dir, config: stored } = checkpoint;
  if (!isNativeConfig(stored)) {
    if (tower) throw new UserError(`${dir} is no original LLaVA folder: its vision tower cannot be taken from ${tower.dir}`);
    const config = hubConfigOf(dir, stored);
    const { model_type } = (config ?? {}) as { model_type?: unknown };
    return { ...checkpoint, config, imageProcessor: () => requireImageProcessor(dir, model_type) };
  }
  const holdsTower = checkpoint.names.some((name) => name.startsWith('vision_tower.'));
  if (!holdsTower && !tower) {
    const name = String(stored.mm_vision_tower);
    const source = /^[\w.-]+\/[\w.-]+$/.test(name) ? `get it with: llava-gemma pull ${name}` : 'find its folder';
    throw new UserError(
      `${dir}: the vision tower ${name} is not in this folder: ${source}, then join both with: llava-gemma convert ${dir} NEW --vision-tower FOLDER`,
    );
  }
  const tokenizer = existsSync(join(dir, 'tokenizer.json')) ? await readTokenizerFiles(dir) : undefined;
  const config = hubConfigOf(dir, stored, {
    visionConfig: tower && visionPart(tower.config),
    imageTokenId: tokenizer && createTokenizer(tokenizer.tokenizerJson, tokenizer.tokenizerConfig).imageTokenId,
  });
  const imageProcessor = async (): Promise<StoredProcessor> => {
    const { model_type, image_size } = (config as { vision_config: { model_type?: string; image_size: number } }).vision_config;
    const own = await readImageProcessor(dir, 'llava');
    if (own) return own;
    const ofTower = tower && (await readImageProcessor(tower.dir, model_type));
    const file = join(dir, PROCESSOR_FILE);
    if (!ofTower && model_type !== 'clip_vision_model')
      throw new UserError(`${file}: no such file; copy that of ${stored.mm_vision_tower} here`);
    const value = (ofTower?.value ?? imageProcessorFor(image_size)) as object;
    return {
      value: { ...value, processor_class: 'LlavaProcessor', do_pad: stored.image_aspect_ratio === 'pad' },
      file: ofTower?.file ?? file,
    };
  };
  const close = async () => {
    await checkpoint.close();
    await tower?.close();
  };
  return { ...(holdsTower || !tower ? checkpoint : withTower(checkpoint, tower)), config, imageProcessor, close };
}

/** A checkpoint without a vision tower and the tower's as one. */
function withTower(checkpoint: Checkpoint, tower: Checkpoint): Checkpoint {
  const prefix = 'vision_tower.';
  const isWhole = tower.names.some((name) => name.startsWith('text_model.'));
  const towerNames = tower.names.filter((name) => !isWhole || name.startsWith('vision_model.'));
  const from =
    <R>(use: (checkpoint: Checkpoint, name: string) => R) =>
    (name: string) =>
      name.startsWith(prefix) ? use(tower, name.slice(prefix.length)) : use(checkpoint, name);
  return {
    ...checkpoint,
    names: [...checkpoint.names, ...towerNames.map((name) => prefix + name)],
    has: from((owner, name) => owner.has(name)),
    shape: from((owner, name) => owner.shape(name)),
    info: from((owner, name) => owner.info(name)),
    place: from((owner, name) => owner.place(name)),
    bytes: from((owner, name) => owner.bytes(name)),
    storedName: from((owner, name) => owner.storedName(name)),
    float32: from((owner, name) => owner.float32(name)),
    float32Pieces: from((owner, name) => owner.float32Pieces(name)),
    files: [...checkpoint.files, ...tower.files],
  };
}

/** Opens `dir`, checks its config, and hands both to `body`; the files are closed afterwards. */
export async function withCheckpoint<T extends z.ZodType, R>(
  dir: string,
  schema: T,
  body: (config: z.output<T>, checkpoint: ModelFolder) => Promise<R>,
): Promise<R> {
  const checkpoint = await openModel(dir);
  try {
    return await body(checkConfig(schema, checkpoint.config, join(dir, 'config.json')), checkpoint);
  } finally {
    await checkpoint.close();
  }
}
