// Generation with a KV cache. One program serves prefill (empty past) and decoding; rows of a batch may have prompts of different
// lengths, with or without images: attention is decided by positions alone, so a batch gives what single prompts give.

import { type Constant, type Engine, float32, int32, type Program, type Value } from '../engine/engine.ts';
import { UserError } from '../errors.ts';
import { flattenLeading, gather } from '../graph/primitives.ts';
import { input, type Tensor } from '../graph/tensor.ts';
import type { LayerCache } from '../models/decoder.ts';
import { logits } from '../models/language.ts';
import {
  imageSize,
  imageTokenCount,
  type LlavaConfig,
  llavaText,
  projectFeatures,
  visionFeatureSize,
  visionFeatures,
} from '../models/llava.ts';
import { causalBias, HIDDEN_POSITION } from '../models/masks.ts';
import { type Parameters, packedFormats } from '../nn/parameters.ts';
import { createRandom } from '../random.ts';
import { compileGraph, modelGraph } from './model-graph.ts';
import { type Sampling, sampleToken } from './sampling.ts';

export interface Prompt {
  inputIds: readonly number[];
  /** [images * imageTokens, hidden] from `imageRows`, one row for each image token of the prompt. */
  imageRows?: Float32Array;
}

export interface GenerateOptions {
  maxNewTokens: number;
  /** Generation of a row ends at any of these, which are not part of the result, or where the model's context ends. */
  stopTokenIds: readonly number[];
  /** Greedy when absent. */
  sampling?: Sampling;
  /** Called with each new token of a row as it comes. */
  onToken?: (row: number, token: number) => void | Promise<void>;
}

export interface Generator {
  readonly config: LlavaConfig;
  /** Encoder features: pixels float32 [images * 3 * size * size] -> [images * imageTokens * width]. */
  imageFeatures(pixelValues: Float32Array): Promise<Float32Array>;
  /** Features -> rows for the language model, [images * imageTokens * hidden]. */
  imageRows(features: Float32Array): Promise<Float32Array>;
  /** The new tokens of each prompt. UserError for a prompt that leaves no room in the context or whose images do not fit its image tokens. */
  generate(prompts: readonly Prompt[], options: GenerateOptions): Promise<number[][]>;
  dispose(): Promise<void>;
}

/**
 * Compiles encoder, connector and decoder of a model whose parameters are `values`, by Hugging Face name. A packed weight is two values,
 * named by `packedName` and `scaleName` (nn/parameters.ts).
 */
export async function createGenerator(engine: Engine, config: LlavaConfig, values: ReadonlyMap<string, Constant>): Promise<Generator> {
  const size = imageSize(config);
  const tokensPerImage = imageTokenCount(config);
  const width = visionFeatureSize(config);

  const packed = packedFormats((name) => values.get(name)?.dims);
  const compile = (build: (p: Parameters) => Record<string, Tensor>) => compileGraph(engine, modelGraph(build, packed), values);
  const encoder = await compile((p) => ({
    features: visionFeatures(p, config, input('pixel_values', 'float32', ['images', 3, size, size])),
  }));
  const projector = await compile((p) => ({
    rows: projectFeatures(p, config, input('features', 'float32', ['images', tokensPerImage, width])),
  }));
  const decoder = await compile((p) => decoderGraph(p, config));

  return {
    config,
    async imageFeatures(pixelValues) {
      const images = pixelValues.length / (3 * size * size);
      return (await encoder.run({ pixel_values: float32(pixelValues, [images, 3, size, size]) })).features.data as Float32Array;
    },
    async imageRows(features) {
      const images = features.length / (tokensPerImage * width);
      return (await projector.run({ features: float32(features, [images, tokensPerImage, width]) })).rows.data as Float32Array;
    },
    generate: (prompts, options) => decode(decoder, config, prompts, options),
    async dispose() {
      for (const program of [encoder, projector, decoder]) await program.dispose();
    },
  };
}

function decoderGraph(p: Parameters, config: LlavaConfig): Record<string, Tensor> {
  const { num_hidden_layers: layers, num_key_value_heads: kvHeads, head_dim: headDim, hidden_size: hidden } = config.text_config;
  const past: LayerCache[] = Array.from({ length: layers }, (_, layer) => ({
    key: input(`past.${layer}.key`, 'float32', ['batch', kvHeads, 'past', headDim]),
    value: input(`past.${layer}.value`, 'float32', ['batch', kvHeads, 'past', headDim]),
  }));
  const positionIds = input('position_ids', 'int32', ['batch', 'tokens']);
  const outputs = llavaText(p, config, {
    inputIds: input('input_ids', 'int32', ['batch', 'tokens']),
    positionIds,
    attentionBias: causalBias(positionIds, input('key_positions', 'int32', ['batch', 'past+tokens'])),
    imageRows: input('image_rows', 'float32', ['image_rows', hidden]),
    past,
  });
  const last = gather(flattenLeading(outputs.lastHidden), input('logit_rows', 'int32', ['logit_rows']));
  const present = outputs.present.flatMap(({ key, value }, layer) => [
    [`present.${layer}.key`, key],
    [`present.${layer}.value`, value],
  ]);
  return { logits: p.module('language_model', (p) => logits(p, config.text_config, last)), ...Object.fromEntries(present) };
}

function checkPrompt({ inputIds, imageRows }: Prompt, { text_config: text, image_token_index: imageToken }: LlavaConfig): void {
  if (inputIds.length >= text.max_position_embeddings)
    throw new UserError(
      `the prompt has ${inputIds.length} tokens, but the model reads ${text.max_position_embeddings} in all, answer included: shorten it`,
    );
  const places = inputIds.filter((id) => id === imageToken).length;
  const rows = (imageRows?.length ?? 0) / text.hidden_size;
  if (places !== rows) throw new UserError(`the prompt has places for ${places} image rows, but its images give ${rows}`);
}

async function decode(program: Program, config: LlavaConfig, prompts: readonly Prompt[], options: GenerateOptions): Promise<number[][]> {
  const batch = prompts.length;
  if (batch === 0) return [];
  for (const prompt of prompts) checkPrompt(prompt, config);
  const { num_hidden_layers: layers, num_key_value_heads: kvHeads, head_dim: headDim, hidden_size: hidden } = config.text_config;
  const contextLength = config.text_config.max_position_embeddings;
  const longest = Math.max(...prompts.map(({ inputIds }) => inputIds.length));
  const random = createRandom(options.sampling?.seed ?? 0);
  const inputIds = new Int32Array(batch * longest);
  const positions = new Int32Array(batch * longest);
  // where each key of a row stands; padding stands where no query looks
  const keyPositions: number[][] = prompts.map(({ inputIds: ids }) =>
    Array.from({ length: longest }, (_, t) => (t < ids.length ? t : HIDDEN_POSITION)),
  );
  prompts.forEach((prompt, row) => {
    inputIds.set(prompt.inputIds, row * longest);
    for (let t = 0; t < longest; t++) positions[row * longest + t] = Math.min(t, prompt.inputIds.length - 1);
  });
  const imageRows = concatRows(prompts.map((prompt) => prompt.imageRows ?? new Float32Array(0)));
  const noRows = float32(new Float32Array(0), [0, hidden]);

  let feeds: Record<string, Value> = {
    input_ids: int32(inputIds, [batch, longest]),
    position_ids: int32(positions, [batch, longest]),
    key_positions: int32(keyPositions.flat(), [batch, longest]),
    image_rows: float32(imageRows, [imageRows.length / hidden, hidden]),
    logit_rows: int32(
      prompts.map(({ inputIds: ids }, row) => row * longest + ids.length - 1),
      [batch],
    ),
  };
  for (let layer = 0; layer < layers; layer++)
    for (const kind of ['key', 'value']) feeds[`past.${layer}.${kind}`] = float32(new Float32Array(0), [batch, kvHeads, 0, headDim]);

  const generated: number[][] = prompts.map(() => []);
  const active = new Set(prompts.keys());
  for (let step = 0; step < options.maxNewTokens; step++) {
    const results = await program.run(feeds);
    const logits = results.logits.data as Float32Array;
    const vocabulary = logits.length / batch;
    const next = new Int32Array(batch);
    for (const row of [...active]) {
      const rowLogits = logits.subarray(row * vocabulary, (row + 1) * vocabulary);
      // a place for an image is never an answer; padded embedding tables have a row for it
      if (config.image_token_index < vocabulary) rowLogits[config.image_token_index] = Number.NEGATIVE_INFINITY;
      const token = sampleToken(rowLogits, options.sampling, random, generated[row]);
      if (options.stopTokenIds.includes(token)) {
        active.delete(row);
        continue;
      }
      generated[row].push(token);
      next[row] = token;
      if (prompts[row].inputIds.length + generated[row].length === contextLength) active.delete(row);
      await options.onToken?.(row, token);
    }
    if (active.size === 0 || step === options.maxNewTokens - 1) break;
    // rows that have ended go on beside the others, unread, and must stay inside the context
    const position = prompts.map(({ inputIds: ids }) => Math.min(ids.length + step, contextLength - 1));
    keyPositions.forEach((row, i) => {
      row.push(position[i]);
    });
    feeds = {
      input_ids: int32(next, [batch, 1]),
      position_ids: int32(position, [batch, 1]),
      key_positions: int32(keyPositions.flat(), [batch, longest + step + 1]),
      image_rows: noRows,
      logit_rows: int32([...prompts.keys()], [batch]),
    };
    for (const [name, value] of Object.entries(results)) if (name.startsWith('present.')) feeds[name.replace('present', 'past')] = value;
  }
  return generated;
}

function concatRows(parts: readonly Float32Array[]): Float32Array {
  const result = new Float32Array(parts.reduce((sum, part) => sum + part.length, 0));
  let offset = 0;
  for (const part of parts) {
    result.set(part, offset);
    offset += part.length;
  }
  return result;
}
