// Loading and saving models as Hugging Face folders: config checked by its schema, tensors by name and shape. Original LLaVA folders come
// in here too, with the vision tower from a folder of its own where they only name it.

import { existsSync } from 'node:fs';
import { join } from 'node:path';
import type { z } from 'zod';
import { concatFloat32 } from '../arrays.ts';
import type { Engine } from '../engine/engine.ts';
import { createOrtEngine } from '../engine/ort.ts';
import { UserError } from '../errors.ts';
import type { ForwardModel } from '../generate/forward.ts';
import { createGenerator, type Generator } from '../generate/generator.ts';
import { decodeImage } from '../images/decode.ts';
import { type ImageProcessorConfig, imageProcessorConfig, processedSize, processImage } from '../images/processor.ts';
import { fromHubConfig, isNativeConfig } from '../models/hub-config.ts';
import { LANGUAGE_ARCHITECTURES, languageConfigSchema } from '../models/language.ts';
import { imageSize, type LlavaConfig, llavaConfigSchema, llavaParameters } from '../models/llava.ts';
import { prefixTokens, VISION_MODEL_TYPES, visionFolderSchema, visionPart } from '../models/vision.ts';
import { type Parameter, packedName } from '../nn/parameters.ts';
import { createTokenizer, type Tokenizer } from '../text/tokenizer.ts';
import { type Checkpoint, openCheckpoint, readJsonFile } from '../weights/checkpoint.ts';
import type { Quantisation } from '../weights/quantise.ts';
import { readTokenizerFiles, type TokenizerFiles } from '../weights/tokenizer-files.ts';
import { readRunWeights } from './run-weights.ts';

const PROCESSOR_FILE = 'preprocessor_config.json';

/** preprocessor_config.json of LLaVA-1.5 at another size: pad to a square in the mean colour, resize, CLIP's mean and deviation. */
export function imageProcessorFor(size: number) {
  return {
    image_processor_type: 'CLIPImageProcessor',
    processor_class: 'LlavaProcessor',
    do_pad: true,
    do_resize: true,
    size: { shortest_edge: size },
    resample: 3,
    do_center_crop: true,
    crop_size: { height: size, width: size },
    do_rescale: true,
    rescale_factor: 1 / 255,
    do_normalize: true,
    image_mean: [0.48145466, 0.4578275, 0.40821073],
    image_std: [0.26862954, 0.26130258, 0.27577711],
    do_convert_rgb: true,
  } satisfies Partial<ImageProcessorConfig> & Record<string, unknown>;
}

/** What a LLaVA's folder says of the way from a picture to image rows, as further files of a saved folder. */
export function processorFilesOf(config: LlavaConfig, imageProcessor: unknown): Record<string, string> {
  const { vision_config: vision, vision_feature_select_strategy } = config;
  const files = {
    [PROCESSOR_FILE]: imageProcessor,
    'processor_config.json': {
      processor_class: 'LlavaProcessor',
      image_token: '<image>',
      patch_size: vision.patch_size,
      num_additional_image_tokens: prefixTokens(vision),
      vision_feature_select_strategy,
    },
  };
  return Object.fromEntries(Object.entries(files).map(([name, value]) => [name, `${JSON.stringify(value, null, 2)}\n`]));
}

/** Tokenizer files as further files of a saved folder. */
export function tokenizerFilesOf({ tokenizerJson, tokenizerConfig }: TokenizerFiles): Record<string, string> {
  return {
    'tokenizer.json': JSON.stringify(tokenizerJson),
    'tokenizer_config.json': `${JSON.stringify(tokenizerConfig, null, 2)}\n`,
  };
}

/** A LLaVA ready to answer. */
export interface LoadedModel {
  config: LlavaConfig;
  generator: Generator;
  tokenizer: Tokenizer;
  processor: ImageProcessorConfig;
}

export interface LoadOptions {
  engine?: Engine;
  /** Runs the model on weights of few bits; `int4` keeps 8 bits for vision tower and connector. */
  quantise?: Quantisation;
}

/** Loads the LLaVA in Hugging Face folder `dir`. What is missing, misshapen or contradictory is a UserError that names file and tensor. */
export function loadModel(dir: string, options: LoadOptions = {}): Promise<LoadedModel> {
  return withCheckpoint(dir, llavaConfigSchema, async (config, checkpoint) => {
    const { tokenizerJson, tokenizerConfig } = await readTokenizerFiles(dir);
    const tokenizer = createTokenizer(tokenizerJson, tokenizerConfig);
    if (tokenizer.imageTokenId !== config.image_token_index)
      throw new UserError(`${dir}: <image> is ${config.image_token_index} in config.json and ${tokenizer.imageTokenId} in the tokenizer`);
    checkVocabulary(tokenizer, config.text_config.vocab_size, dir);
    return { ...(await openGenerator(config, checkpoint, options)), tokenizer };
  });
}

/** Loads as `loadModel` does, but for the tokenizer: prompts are ids. */
export function loadGenerator(dir: string, options: LoadOptions = {}): Promise<Omit<LoadedModel, 'tokenizer'>> {
  return withCheckpoint(dir, llavaConfigSchema, (config, checkpoint) => openGenerator(config, checkpoint, options));
}

async function openGenerator(config: LlavaConfig, checkpoint: ModelFolder, { engine = createOrtEngine(), quantise }: LoadOptions) {
  const processorFile = join(checkpoint.dir, PROCESSOR_FILE);
  const processor = checkConfig(imageProcessorConfig, await checkpoint.imageProcessor(), processorFile);
  const sized = withImageSize(config, processor, processorFile);
  const weights = await readRunWeights(checkpoint, llavaParameters(sized), { quantise });
  const generator = await createGenerator(engine, sized, weights.values).finally(weights.release);
  return { config: sized, generator, processor };
}

/**
 * The config with the side of the pictures that `processor` makes: it alone decides which size an encoder that takes any is shown.
 * UserError, naming the processor's `file`, where the pictures are not squares of one size that the encoder takes.
 */
export function withImageSize(config: LlavaConfig, processor: ImageProcessorConfig, file: string): LlavaConfig {
  const made = processedSize(processor);
  if (!made) throw new UserError(`${file}: pictures come out in different sizes: set do_center_crop, or a size of height and width`);
  if (made.width !== made.height)
    throw new UserError(`${file}: pictures come out ${made.width} x ${made.height} pixels, but the encoder takes squares`);
  const { image_size: _, ...rest } = config;
  const sized: LlavaConfig = made.width === config.vision_config.image_size ? rest : { ...rest, image_size: made.width };
  try {
    imageSize(sized);
  } catch (error) {
    throw error instanceof UserError ? new UserError(`${file}: ${error.message}`) : error;
  }
  return sized;
}

/** Every token but <image>, which is never looked up, needs a row of the language model's embedding. */
export function checkVocabulary(tokenizer: Tokenizer, vocabSize: number, dir: string): void {
  const { imageTokenId, vocabSize: tokens } = tokenizer;
  const rows = imageTokenId === tokens - 1 ? tokens - 1 : tokens;
  if (rows > vocabSize) throw new UserError(`${dir}: the language model has ${vocabSize} tokens, but the tokenizer has ${rows}`);
}

/** Picture files as one batch for the encoder: float32 [pictures * 3 * size * size]. All are of one size once processed. */
export async function pixelValuesOf(paths: readonly string[], processor: ImageProcessorConfig): Promise<Float32Array> {
  return concatFloat32(await Promise.all(paths.map(async (path) => processImage(await decodeImage(path), processor))));
}

/** A picture file as rows for the language model, [imageTokens * hidden]. */
export async function imageRowsOf(
  { generator, processor }: Pick<LoadedModel, 'generator' | 'processor'>,
  path: string,
): Promise<Float32Array> {
  return generator.imageRows(await generator.imageFeatures(await pixelValuesOf([path], processor)));
}

/** A value checked by a schema; the first problem as one sentence that names `file` and field. */
export function checkConfig<T extends z.ZodType>(schema: T, value: unknown, file: string): z.output<T> {
  const parsed = schema.safeParse(value);
  if (parsed.success) return parsed.data;
  const [{ path, message }] = parsed.error.issues;
  const found = path.reduce<unknown>((inner, key) => (inner as Record<PropertyKey, unknown> | null | undefined)?.[key], value);
  const it = found === undefined || typeof found === 'object' ? '' : ` (it is ${JSON.stringify(found)})`;
  throw new UserError(`${file}: ${path.join('.') || 'the file'}: ${message}${it}`);
}

/** The model that a folder's config.json is of: a LLaVA, or one of its parts in a folder of its own. UserError, naming `file`, for another. */
export function forwardModelOf(config: unknown, file: string): ForwardModel {
  const type = (config as { model_type?: unknown } | null)?.model_type;
  const languageTypes = Object.keys(LANGUAGE_ARCHITECTURES);
  // the encoder of a whole CLIP or SigLIP is taken
  const visionTypes = [...VISION_MODEL_TYPES, 'clip', 'siglip'];
  if (type === 'llava') return { kind: 'llava', config: checkConfig(llavaConfigSchema, config, file) };
  if (languageTypes.includes(String(type))) return { kind: 'language', config: checkConfig(languageConfigSchema, config, file) };
  if (visionTypes.includes(String(type))) return { kind: 'vision', config: checkConfig(visionFolderSchema, config, file) };
  const known = ['llava', ...languageTypes, ...visionTypes].join(', ');
  throw new UserError(`${file}: model_type: must be one of ${known} (it is ${type === undefined ? 'missing' : JSON.stringify(type)})`);
}

/**
 * Values of `parameters` from a checkpoint, optional ones where it has them. `rename` gives the name in the checkpoint, where it differs.
 * A missing tensor or another shape is a UserError that names folder and tensor, and so is NaN or infinity.
 */
export async function readParameters(
  checkpoint: Checkpoint,
  parameters: readonly Parameter[],
  rename: (name: string) => string = (name) => name,
): Promise<Map<string, Float32Array>> {
  if (parameters.some(({ name }) => rename(name) === checkpoint.head?.embedding)) await checkpoint.checkHead();
  const values = new Map<string, Float32Array>();
  for (const { name, dims, optional } of parameters) {
    if (optional && !checkpoint.has(rename(name))) continue;
    checkShape(checkpoint, rename(name), dims);
    const data = await checkpoint.float32(rename(name));
    if (!allFinite(data)) throw new UserError(`${checkpoint.dir}: ${notFiniteText([checkpoint.storedName(rename(name))])}`);
    values.set(name, data);
  }
  return values;
}

/** UserError, naming folder and tensor, where a tensor is missing or has another shape than `dims`. */
export function checkShape(checkpoint: Checkpoint, name: string, dims: readonly number[]): void {
  if (!checkpoint.has(name) && checkpoint.has(packedName(name)))
    throw new UserError(
      `${checkpoint.dir}: ${name} is quantised: such a model answers and is scored, but it cannot be trained or converted`,
    );
  const shape = checkpoint.shape(name);
  if (shape.join() !== dims.join())
    throw new UserError(
      `${checkpoint.dir}: ${checkpoint.storedName(name)} has shape [${shape.join(', ')}], but config.json asks for [${dims.join(', ')}]`,
    );
}

/** What is said of tensors that hold NaN or infinity, by their names in the file. */
export function notFiniteText([first, ...others]: readonly string[]): string {
  const subject = others.length === 0 ? `${first} holds` : `${first} and ${others.length} more hold`;
  return `${subject} NaN or infinity: the file is damaged, or its training went wrong`;
}

export function allFinite(values: Float32Array): boolean {
  let sum = 0;
  for (let i = 0; i < values.length; i++) sum += values[i] * 0;
  return sum === 0;
}

/** The folder of a model, its config in Hugging Face form. */
export interface ModelFolder extends Checkpoint {
  /** preprocessor_config.json: the folder's own or, in an original LLaVA folder without one, that of the vision tower. */
  imageProcessor(): Promise<unknown>;
}

export interface ModelFolderOptions {
  /** Folder of the vision tower, for an original LLaVA folder that does not hold it or names one that is not known here. */
  visionTower?: string;
}

/** Opens a folder of any layout. Throws UserError, naming the file, for what is damaged, contradictory or not supported. */
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

async function modelFolder(checkpoint: Checkpoint, tower: Checkpoint | undefined): Promise<ModelFolder> {
  const { dir, config: stored } = checkpoint;
  const processorFile = join(dir, PROCESSOR_FILE);
  if (!isNativeConfig(stored)) {
    if (tower) throw new UserError(`${dir} is no original LLaVA folder: its vision tower cannot be taken from ${tower.dir}`);
    return { ...checkpoint, config: fromHubConfig(stored), imageProcessor: () => readJsonFile(processorFile) };
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
  let config: unknown;
  try {
    config = fromHubConfig(stored, {
      visionConfig: tower && visionPart(tower.config),
      imageTokenId: tokenizer && createTokenizer(tokenizer.tokenizerJson, tokenizer.tokenizerConfig).imageTokenId,
    });
  } catch (error) {
    throw error instanceof UserError ? new UserError(`${join(dir, 'config.json')}: ${error.message}`) : error;
  }
  const imageProcessor = async () => {
    if (existsSync(processorFile)) return readJsonFile(processorFile);
    const ofTower = tower && join(tower.dir, PROCESSOR_FILE);
    const { model_type, image_size } = (config as { vision_config: { model_type?: string; image_size: number } }).vision_config;
    let processor: unknown;
    if (ofTower !== undefined && existsSync(ofTower)) processor = await readJsonFile(ofTower);
    else if (model_type === 'clip_vision_model') processor = imageProcessorFor(image_size);
    else throw new UserError(`${processorFile}: no such file; copy that of ${stored.mm_vision_tower} here`);
    return { ...(processor as object), processor_class: 'LlavaProcessor', do_pad: stored.image_aspect_ratio === 'pad' };
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
