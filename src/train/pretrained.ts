// Loading and saving models as Hugging Face folders: config checked by its schema, tensors by name and shape.

import { join } from 'node:path';
import type { z } from 'zod';
import type { Engine } from '../engine/engine.ts';
import { createOrtEngine } from '../engine/ort.ts';
import { UserError } from '../errors.ts';
import { createGenerator, type Generator } from '../generate/generator.ts';
import { decodeImage } from '../images/decode.ts';
import { type ImageProcessorConfig, imageProcessorConfig, processImage } from '../images/processor.ts';
import { type LlavaConfig, llavaConfigSchema, llavaParameters } from '../models/llava.ts';
import type { Parameter } from '../nn/parameters.ts';
import { createTokenizer, type Tokenizer } from '../text/tokenizer.ts';
import { type Checkpoint, openCheckpoint, readJsonFile } from '../weights/checkpoint.ts';
import { readTokenizerFiles, type TokenizerFiles } from '../weights/tokenizer-files.ts';

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

/** Loads the LLaVA in Hugging Face folder `dir`. What is missing, misshapen or contradictory is a UserError that names file and tensor. */
export function loadModel(dir: string, engine: Engine = createOrtEngine()): Promise<LoadedModel> {
  return withCheckpoint(dir, llavaConfigSchema, async (config, checkpoint) => {
    const { tokenizerJson, tokenizerConfig } = await readTokenizerFiles(dir);
    const tokenizer = createTokenizer(tokenizerJson, tokenizerConfig);
    if (tokenizer.imageTokenId !== config.image_token_index)
      throw new UserError(`${dir}: <image> is ${config.image_token_index} in config.json and ${tokenizer.imageTokenId} in the tokenizer`);
    checkVocabulary(tokenizer, config.text_config.vocab_size, dir);
    const processorFile = join(dir, 'preprocessor_config.json');
    const processor = checkConfig(imageProcessorConfig, await readJsonFile(processorFile), processorFile);
    const generator = await createGenerator(engine, config, await readParameters(checkpoint, llavaParameters(config)));
    return { config, generator, tokenizer, processor };
  });
}

/** Every token but <image>, which is never looked up, needs a row of the language model's embedding. */
export function checkVocabulary(tokenizer: Tokenizer, vocabSize: number, dir: string): void {
  const { imageTokenId, vocabSize: tokens } = tokenizer;
  const rows = imageTokenId === tokens - 1 ? tokens - 1 : tokens;
  if (rows > vocabSize) throw new UserError(`${dir}: the language model has ${vocabSize} tokens, but the tokenizer has ${rows}`);
}

/** Picture files as one batch for the encoder: float32 [pictures * 3 * size * size]. All are of one size once processed. */
export async function pixelValuesOf(paths: readonly string[], processor: ImageProcessorConfig): Promise<Float32Array> {
  const pictures = await Promise.all(paths.map(async (path) => processImage(await decodeImage(path), processor)));
  const joined = new Float32Array(pictures.reduce((sum, { length }) => sum + length, 0));
  let offset = 0;
  for (const values of pictures) {
    joined.set(values, offset);
    offset += values.length;
  }
  return joined;
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
  throw new UserError(`${file}: ${path.join('.') || 'the file'}: ${message}`);
}

/**
 * Values of `parameters` from a checkpoint. `rename` gives the name in the file, where it differs. A missing tensor or another shape
 * is a UserError that names folder and tensor.
 */
export async function readParameters(
  checkpoint: Checkpoint,
  parameters: readonly Parameter[],
  rename: (name: string) => string = (name) => name,
): Promise<Map<string, Float32Array>> {
  const values = new Map<string, Float32Array>();
  for (const { name, dims } of parameters) {
    const stored = storedName(checkpoint, rename(name));
    const shape = checkpoint.shape(stored);
    if (shape.join() !== dims.join())
      throw new UserError(`${checkpoint.dir}: ${stored} has shape [${shape.join(', ')}], but config.json asks for [${dims.join(', ')}]`);
    const data = await checkpoint.float32(stored);
    if (!allFinite(data))
      throw new UserError(`${checkpoint.dir}: ${stored} holds NaN or infinity: the file is damaged, or its training went wrong`);
    values.set(name, data);
  }
  return values;
}

function allFinite(values: Float32Array): boolean {
  let sum = 0;
  for (let i = 0; i < values.length; i++) sum += values[i] * 0;
  return sum === 0;
}

/** transformers 5 leaves `vision_model.` out of the names it saves for CLIP inside LLaVA; hub files have it. Both are read. */
function storedName(checkpoint: Checkpoint, name: string): string {
  const short = name.replace('vision_tower.vision_model.', 'vision_tower.');
  return !checkpoint.has(name) && checkpoint.has(short) ? short : name;
}

/** Opens `dir`, checks its config, and hands both to `body`; the files are closed afterwards. */
export async function withCheckpoint<T extends z.ZodType, R>(
  dir: string,
  schema: T,
  body: (config: z.output<T>, checkpoint: Checkpoint) => Promise<R>,
): Promise<R> {
  const checkpoint = await openCheckpoint(dir);
  try {
    return await body(checkConfig(schema, checkpoint.config, join(dir, 'config.json')), checkpoint);
  } finally {
    await checkpoint.close();
  }
}
