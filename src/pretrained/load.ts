// Loads a LLaVA from a Hugging Face folder, ready to answer.

import { join } from 'node:path';
import { readTokenizerFiles } from '../checkpoint/tokenizer-files.ts';
import { openEngine } from '../engine/devices.ts';
import type { DeviceName, Engine } from '../engine/engine.ts';
import { UserError } from '../errors.ts';
import { type GenerationDefaults, generationConfigSchema, generationDefaultsOf, notFollowed } from '../generate/defaults.ts';
import { createGenerator } from '../generate/generator.ts';
import type { AnsweringModel } from '../generate/session.ts';
import { type ImageProcessorConfig, imageProcessorConfig } from '../images/processor.ts';
import { type LlavaConfig, llavaConfigSchema, llavaParameters } from '../models/llava.ts';
import { createTokenizer, type Tokenizer } from '../text/tokenizer.ts';
import { type Quantization, quantizations } from '../weights/quantize.ts';
import { checkConfig, type ModelFolder, withCheckpoint } from './folder.ts';
import { pictureReader } from './pictures.ts';
import { withImageSize } from './processor.ts';
import { readRunWeights } from './run-weights.ts';
import { GENERATION_FILE, readGenerationConfig } from './tokenizer-form.ts';

/** A LLaVA ready to answer: see `createSession`. */
export interface LoadedModel extends AnsweringModel {
  generation: GenerationDefaults;
  config: LlavaConfig;
  processor: ImageProcessorConfig;
}

export interface LoadOptions {
  /** Default: that of `device`. */
  engine?: Engine;
  /** Default: cpu. */
  device?: DeviceName;
  /** Runs the model on quantized weights; `int4` keeps 8 bits for vision tower and connector. */
  quantize?: Quantization;
}

/**
 * Loads the LLaVA in the Hugging Face folder `dir`. UserError, naming file and tensor, for anything missing,
 * misshapen or contradictory.
 */
export function loadModel(dir: string, options: LoadOptions = {}): Promise<LoadedModel> {
  return withCheckpoint(dir, llavaConfigSchema, async (config, checkpoint) => {
    const { tokenizerJson, tokenizerConfig } = await readTokenizerFiles(dir);
    const tokenizer = createTokenizer(tokenizerJson, tokenizerConfig);
    warnOfMissingTemplate(dir, tokenizerConfig);
    checkTokenizer(tokenizer, config, dir);
    const generation = await readGenerationDefaults(dir, config);
    const opened = await openGenerator(config, checkpoint, options);
    return { ...opened, ...pictureReader(opened), tokenizer, generation };
  });
}

/** What generation_config.json of the folder `dir` says, or config.json where there is none. */
async function readGenerationDefaults(dir: string, { text_config }: LlavaConfig): Promise<GenerationDefaults> {
  const config = checkConfig(generationConfigSchema, await readGenerationConfig(dir), join(dir, GENERATION_FILE));
  const ignored = notFollowed(config);
  if (ignored.length > 0)
    console.error(
      `warning: ${join(dir, GENERATION_FILE)}: ${ignored.join(', ')}: not followed here, so that other software may answer otherwise`,
    );
  const { eos_token_id } = generationConfigSchema.safeParse({ eos_token_id: text_config.eos_token_id }).data ?? {};
  return generationDefaultsOf(config, eos_token_id);
}

/** Says on stderr that prompts will be laid out by Gemma's template, where the folder `dir` brings none. */
export function warnOfMissingTemplate(
  dir: string,
  { chat_template }: Record<string, unknown>,
  warn: (text: string) => void = console.error,
): void {
  if (chat_template !== undefined && chat_template !== null) return;
  warn(`warning: ${dir}: none of its files has a chat template: Gemma's is used`);
}

/** Loads as `loadModel` does, but without the tokenizer: prompts are ids. */
export function loadGenerator(dir: string, options: LoadOptions = {}): Promise<Pick<LoadedModel, 'config' | 'generator' | 'processor'>> {
  return withCheckpoint(dir, llavaConfigSchema, (config, checkpoint) => openGenerator(config, checkpoint, options));
}

async function openGenerator(config: LlavaConfig, checkpoint: ModelFolder, { device, engine, quantize }: LoadOptions) {
  if (quantize !== undefined && !quantizations.includes(quantize))
    throw new UserError(`quantize ${quantize}: there are ${quantizations.join(', ')}`);
  const { value, file } = await checkpoint.imageProcessor();
  const processor = checkConfig(imageProcessorConfig, value, file);
  const sized = withImageSize(config, processor, file);
  const weights = await readRunWeights(checkpoint, llavaParameters(sized), { quantize });
  const generator = await createGenerator(engine ?? (await openEngine(device)), sized, weights.values).finally(weights.release);
  return { config: sized, generator, processor };
}

/** Throws a UserError unless the tokenizer in `dir` is that of the LLaVA there. */
export function checkTokenizer(tokenizer: Tokenizer, config: LlavaConfig, dir: string): void {
  if (tokenizer.imageTokenId !== config.image_token_index)
    throw new UserError(`${dir}: <image> is ${config.image_token_index} in config.json and ${tokenizer.imageTokenId} in the tokenizer`);
  checkVocabulary(tokenizer, config.text_config.vocab_size, dir);
}

/**
 * Throws a UserError unless every token but <image>, which is never looked up, has a row in the language
 * model's embedding.
 */
export function checkVocabulary(tokenizer: Tokenizer, vocabSize: number, dir: string): void {
  const { imageTokenId, vocabSize: tokens } = tokenizer;
  const rows = imageTokenId === tokens - 1 ? tokens - 1 : tokens;
  if (rows > vocabSize) throw new UserError(`${dir}: the language model has ${vocabSize} tokens, but the tokenizer has ${rows}`);
}
