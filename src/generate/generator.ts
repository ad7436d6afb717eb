// Generation with a KV cache. One program serves prefill (empty past) and decoding; rows of a batch may have
// prompts of different lengths, with or without images: attention is decided by positions alone, so a batch
// gives what single prompts give.

import { concatFloat32 } from '../arrays.ts';
import { type Constant, type Engine, float32, int32 } from '../engine/engine.ts';
import { UserError } from '../errors.ts';
import { imageSize, imageTokenCount, type LlavaConfig, visionFeatureSize } from '../models/llava.ts';
import { HIDDEN_POSITION } from '../models/masks.ts';
import { compileGraph, connectorGraph, decoderGraph, encoderGraph } from '../models/programs.ts';
import { type AdapterOf, storageOfValues } from '../nn/parameters.ts';
import { createRandom } from '../random.ts';
import { createDecodeBatch, type DecodeBatch, type Decoder } from './decode-batch.ts';
import { KvCache } from './kv-cache.ts';
import { type Sampling, sampleToken } from './sampling.ts';

export interface Prompt {
  inputIds: readonly number[];
  /** [images * imageTokens, hidden] from `imageRows`, one row for each image token of the prompt. */
  imageRows?: Float32Array;
}

/** A prompt that was read, with what the model keeps of it. A new one is `{}`; it belongs to one model. */
export interface PrefixCache {
  inputIds?: number[];
  imageRows?: Float32Array;
  cache?: KvCache;
}

export interface GenerateOptions {
  maxNewTokens: number;
  /**
   * Generation of a row ends at any of these, which are not part of the result, or where the model's context
   * ends.
   */
  stopTokenIds: readonly number[];
  /** Greedy when absent. */
  sampling?: Sampling;
  /**
   * What was read for an earlier prompt: the part of this one that begins alike is not read again, such as
   * the same image with another question. Afterwards it holds this prompt and its answer. For one prompt at a
   * time.
   */
  prefix?: PrefixCache;
  /** Looked at before each token; generation ends by throwing its reason. */
  signal?: AbortSignal;
  /** Called with each new token of a row as it comes. */
  onToken?: (row: number, token: number) => void | Promise<void>;
}

export interface Generator {
  readonly config: LlavaConfig;
  /** Encoder features: pixels float32 [images * 3 * size * size] -> [images * imageTokens * width]. */
  imageFeatures(pixelValues: Float32Array): Promise<Float32Array>;
  /** Features -> rows for the language model, [images * imageTokens * hidden]. */
  imageRows(features: Float32Array): Promise<Float32Array>;
  /**
   * The new tokens of each prompt. UserError for a prompt that leaves no room in the context or whose images
   * do not fit its image tokens.
   */
  generate(prompts: readonly Prompt[], options: GenerateOptions): Promise<number[][]>;
  /** A batch that up to `slots` rows join and leave between tokens. */
  openBatch(slots: number): DecodeBatch;
  dispose(): Promise<void>;
}

/**
 * Compiles encoder, connector and decoder of a model whose parameters are `values`, by Hugging Face name. A
 * packed weight is two values, named by `packedName` and `scaleName` (nn/parameters.ts). Of a model whose
 * adapters are not merged, `adapters` says which layers have one.
 */
export async function createGenerator(
  engine: Engine,
  config: LlavaConfig,
  values: ReadonlyMap<string, Constant>,
  adapters?: AdapterOf,
): Promise<Generator> {
  const size = imageSize(config);
  const tokensPerImage = imageTokenCount(config);
  const width = visionFeatureSize(config);

  const options = { storage: storageOfValues(values), ...(adapters ? { adapters } : {}) };
  // packed weights are run as llama.cpp runs them: the other operand is rounded to 8 bits, three times as
  // fast
  const compiled = { packedAccuracy: 'int8' } as const;
  const encoder = await compileGraph(engine, encoderGraph(config, options), values, compiled);
  const connector = await compileGraph(engine, connectorGraph(config, options), values, compiled);
  const decoder = await compileGraph(engine, decoderGraph(config, options), values, compiled);

  return {
    config,
    async imageFeatures(pixelValues) {
      const images = pixelValues.length / (3 * size * size);
      return (await encoder.run({ pixel_values: float32(pixelValues, [images, 3, size, size]) })).features.data as Float32Array;
    },
    async imageRows(features) {
      const images = features.length / (tokensPerImage * width);
      return (await connector.run({ features: float32(features, [images, tokensPerImage, width]) })).rows.data as Float32Array;
    },
    generate: (prompts, options) => decode(engine, decoder, config, prompts, options),
    openBatch: (slots) => createDecodeBatch(engine, decoder, config, slots),
    async dispose() {
      for (const program of [encoder, connector, decoder]) await program.dispose();
    },
  };
}

/** UserError for a prompt of so many tokens that a context leaves no room for an answer. */
export function checkLength(tokens: number, contextLength: number): void {
  if (tokens >= contextLength)
    throw new UserError(`the prompt has ${tokens} tokens, but the model reads ${contextLength} in all, answer included: shorten it`);
}

function checkPrompt({ inputIds, imageRows }: Prompt, { text_config: text, image_token_index: imageToken }: LlavaConfig): void {
  checkLength(inputIds.length, text.max_position_embeddings);
  const places = inputIds.filter((id) => id === imageToken).length;
  const rows = (imageRows?.length ?? 0) / text.hidden_size;
  if (places !== rows) throw new UserError(`the prompt has places for ${places} image rows, but its images give ${rows}`);
}

/**
 * How many of a prompt's first tokens a cache has read, with the same image rows. The last token is always
 * read anew: it gives the logits.
 */
function knownTokens(
  { inputIds, imageRows }: Prompt,
  prefix: PrefixCache,
  { image_token_index: imageToken, text_config }: LlavaConfig,
): number {
  const { inputIds: read = [], imageRows: readRows } = prefix;
  const hidden = text_config.hidden_size;
  const limit = Math.min(inputIds.length - 1, read.length, prefix.cache?.length ?? 0);
  let rows = 0;
  for (let t = 0; t < limit; t++) {
    if (inputIds[t] !== read[t]) return t;
    if (inputIds[t] !== imageToken) continue;
    if (imageRows !== readRows) for (let i = rows * hidden; i < (rows + 1) * hidden; i++) if (imageRows![i] !== readRows![i]) return t;
    rows++;
  }
  return limit;
}

async function decode(
  engine: Engine,
  program: Decoder,
  config: LlavaConfig,
  prompts: readonly Prompt[],
  options: GenerateOptions,
): Promise<number[][]> {
  const batch = prompts.length;
  if (batch === 0) return [];
  if (options.prefix && batch > 1) throw new Error('a prefix cache serves one prompt at a time');
  for (const prompt of prompts) checkPrompt(prompt, config);
  const { image_token_index: imageToken, text_config: text } = config;
  const { hidden_size: hidden, max_position_embeddings: contextLength } = text;
  const longest = Math.max(...prompts.map(({ inputIds }) => inputIds.length));
  const capacity = Math.min(contextLength, longest + options.maxNewTokens);
  const known = options.prefix ? knownTokens(prompts[0], options.prefix, config) : 0;
  if (known === 0) options.prefix?.cache?.clear();
  const cache = (known > 0 && options.prefix?.cache) || new KvCache(engine, text, batch);
  cache.truncate(known);
  cache.reserve(capacity);
  const random = createRandom(options.sampling?.seed ?? 0);
  const unread = longest - known;
  const inputIds = new Int32Array(batch * unread);
  const positions = new Int32Array(batch * unread);
  // where each key of a row stands; padding stands where no query looks
  const keyPositions: number[][] = prompts.map(({ inputIds: ids }) =>
    Array.from({ length: longest }, (_, t) => (t < ids.length ? t : HIDDEN_POSITION)),
  );
  prompts.forEach((prompt, row) => {
    inputIds.set(prompt.inputIds.slice(known), row * unread);
    for (let t = 0; t < unread; t++) positions[row * unread + t] = Math.min(known + t, prompt.inputIds.length - 1);
  });
  const rowsRead = prompts[0].inputIds.slice(0, known).filter((id) => id === imageToken).length;
  const imageRows = concatFloat32(prompts.map((prompt) => prompt.imageRows ?? new Float32Array(0))).subarray(rowsRead * hidden);
  const noRows = float32(new Float32Array(0), [0, hidden]);

  // of 256,000 logits, one number is read back where that is all that is asked
  const outputs = [options.sampling ? 'logits' : 'likeliest'];
  let feeds = {
    input_ids: int32(inputIds, [batch, unread]),
    position_ids: int32(positions, [batch, unread]),
    key_positions: int32(keyPositions.flat(), [batch, longest]),
    image_rows: float32(imageRows, [imageRows.length / hidden, hidden]),
    logit_rows: int32(
      prompts.map(({ inputIds: ids }, row) => row * unread + ids.length - known - 1),
      [batch],
    ),
  };
  // nobody can go on from a cache whose contents are not said, should this be broken off
  if (options.prefix) Object.assign(options.prefix, { inputIds: undefined, imageRows: undefined, cache: undefined });

  const generated: number[][] = prompts.map(() => []);
  const active = new Set(prompts.keys());
  for (let step = 0; step < options.maxNewTokens; step++) {
    options.signal?.throwIfAborted();
    const results = await program.run(feeds, { state: cache.state, outputs });
    const next = new Int32Array(batch);
    for (const row of [...active]) {
      const logits = results.logits?.data.subarray(row * text.vocab_size, (row + 1) * text.vocab_size) as Float32Array;
      const token = options.sampling
        ? sampleToken(logits, options.sampling, random, [...prompts[row].inputIds, ...generated[row]])
        : (results.likeliest.data[row] as number);
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
  }
  if (!options.prefix) cache.clear();
  else {
    const [{ inputIds: ids, imageRows: rows }] = prompts;
    Object.assign(options.prefix, { inputIds: [...ids, ...generated[0]].slice(0, cache.length), imageRows: rows, cache });
  }
  return generated;
}
