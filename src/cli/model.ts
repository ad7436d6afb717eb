// A LLaVA model from its Hugging Face folder: weights checked against the config, compiled, with its tokenizer and image processor.
import { join } from 'node:path';
import type { z } from 'zod';
import { createOrtEngine } from '../engine/ort.ts';
import { UserError } from '../errors.ts';
import { createGenerator, type Generator } from '../generate/generator.ts';
import { input } from '../graph/tensor.ts';
import { decodeImage } from '../images/decode.ts';
import { type ImageProcessorConfig, imageProcessorConfig, processImage } from '../images/processor.ts';
import { type LlavaConfig, llavaConfigSchema, visionFeatures } from '../models/llava.ts';
import { type Parameter, Parameters } from '../nn/parameters.ts';
import { createTokenizer, type Tokenizer } from '../text/tokenizer.ts';
import { llavaObjective } from '../train/objectives.ts';
import { type Checkpoint, openCheckpoint, readJsonFile } from '../weights/checkpoint.ts';
import { readTokenizerFiles } from '../weights/tokenizer-files.ts';

export interface LoadedModel {
  config: LlavaConfig;
  generator: Generator;
  tokenizer: Tokenizer;
  processor: ImageProcessorConfig;
}

/** Every parameter of a LLaVA: the part of the encoder that is used, the connector and the language model. */
export function parametersOf(config: LlavaConfig): Parameter[] {
  const encoder = new Parameters();
  const side = config.vision_config.image_size;
  visionFeatures(encoder, config, input('pixel_values', 'float32', ['images', 3, side, side]));
  return [...encoder.list(), ...llavaObjective(config).parameters.list()];
}

async function readParameters(checkpoint: Checkpoint, config: LlavaConfig): Promise<Map<string, Float32Array>> {
  const values = new Map<string, Float32Array>();
  for (const { name, dims } of parametersOf(config)) {
    const shape = checkpoint.shape(name);
    if (shape.join() !== dims.join()) {
      throw new UserError(`${checkpoint.dir}: ${name} has shape [${shape.join(', ')}], but config.json asks for [${dims.join(', ')}]`);
    }
    values.set(name, await checkpoint.float32(name));
  }
  return values;
}

function check<T extends z.ZodType>(schema: T, value: unknown, file: string): z.output<T> {
  const parsed = schema.safeParse(value);
  if (parsed.success) return parsed.data;
  const [{ path, message }] = parsed.error.issues;
  throw new UserError(`${file}: ${path.join('.') || 'the file'}: ${message}`);
}

/** Loads the model in folder `dir`. Whatever is missing, misshapen or contradictory is a `UserError` that names file and tensor. */
export async function loadModel(dir: string): Promise<LoadedModel> {
  const checkpoint = await openCheckpoint(dir);
  try {
    const config = check(llavaConfigSchema, checkpoint.config, join(dir, 'config.json'));
    const { tokenizerJson, tokenizerConfig } = await readTokenizerFiles(dir);
    const tokenizer = createTokenizer(tokenizerJson, tokenizerConfig);
    if (tokenizer.imageTokenId !== config.image_token_index) {
      throw new UserError(`${dir}: <image> is ${config.image_token_index} in config.json and ${tokenizer.imageTokenId} in the tokenizer`);
    }
    const processorFile = join(dir, 'preprocessor_config.json');
    const processor = check(imageProcessorConfig, await readJsonFile(processorFile), processorFile);
    const generator = await createGenerator(createOrtEngine(), config, await readParameters(checkpoint, config));
    return { config, generator, tokenizer, processor };
  } finally {
    await checkpoint.close();
  }
}

/** A picture file as rows for the language model, `[imageTokens * hidden]`. */
export async function imageRowsOf({ generator, processor }: LoadedModel, path: string): Promise<Float32Array> {
  const pixelValues = processImage(await decodeImage(path), processor);
  return generator.imageRows(await generator.imageFeatures(pixelValues));
}
