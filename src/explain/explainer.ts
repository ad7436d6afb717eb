// Answers explained: what each token of an answer rests on in the picture and in the prompt. The model's own
// graphs are run again over prompt and answer, with attention as outputs (models/relevancy.ts).

import { concatFloat32 } from '../arrays.ts';
import { type Constant, type Engine, float32, int32 } from '../engine/engine.ts';
import { createOrtEngine } from '../engine/ort.ts';
import { createPlanningEngine } from '../engine/planning.ts';
import { UserError } from '../errors.ts';
import { greedySampling } from '../generate/defaults.ts';
import { checkLength } from '../generate/generator.ts';
import { readPixelValues } from '../images/processor.ts';
import { memoryBytes } from '../memory.ts';
import { imageSize, imageTokenCount, type LlavaConfig, llavaConfigSchema, llavaParameters } from '../models/llava.ts';
import { HIDDEN_POSITION } from '../models/masks.ts';
import { compileGraph, type Graph, type GraphProgram } from '../models/programs.ts';
import { answerGraph, encoderRelevancyGraph, lensGraph, relevancyGraph, statesGraph } from '../models/relevancy.ts';
import { storageOfValues } from '../nn/parameters.ts';
import { withCheckpoint } from '../pretrained/folder.ts';
import { type LoadedModel, loadModel } from '../pretrained/load.ts';
import { type RunWeights, readRunWeights } from '../pretrained/run-weights.ts';
import { encodePrompt, imagePlaces, type Turn, withImages } from '../text/chat.ts';
import { shortAnswerPrompt } from '../text/short-answer.ts';
import { imageToken } from '../text/tokenizer.ts';
import type { Quantization } from '../weights/quantize.ts';
import type { AnsweredQuestion, ExplainRequest, Explanation, MapOptions, Removal } from './explanation.ts';
import { byPatch, normalizedRow, type PatchLayout, patchLayout, rowsByPatch } from './maps.ts';
import { pieces, wordsOf } from './words.ts';

export interface Explainer {
  readonly config: LlavaConfig;
  readonly layout: PatchLayout;
  /** Answers greedily, or takes the answer that is given. UserError for what cannot be asked. */
  answer(request: ExplainRequest): Promise<AnsweredQuestion>;
  /** UserError where a pass takes more memory than there may be. */
  maps(question: AnsweredQuestion, options?: MapOptions): Promise<Explanation>;
  /** Both. */
  explain(request: ExplainRequest & MapOptions): Promise<Explanation>;
  /**
   * log P of each answer token, in nats, with image tokens taken away: for each `kept` [imageTokens] of 0 and
   * 1 an array [tokens].
   */
  logProbabilities(
    question: AnsweredQuestion,
    kept: readonly Uint8Array[],
    options?: { removal?: Removal; signal?: AbortSignal },
  ): Promise<Float32Array[]>;
  /**
   * Memory of a pass over prompt and answer of so many `tokens`, of which so many are `asked` about at once
   * (default 1), in bytes: activations, without weights.
   */
  passBytes(tokens: number, asked?: number): number;
  dispose(): Promise<void>;
}

export interface ExplainerOptions {
  engine?: Engine;
  quantize?: Quantization;
  /** Most that a pass may hold beside the weights, in bytes. Default: half of the machine's memory. */
  memoryLimit?: number;
}

const MAX_NEW_TOKENS = 32;
/** Memory up to which passes are joined, in bytes: more at a time is no faster. */
const JOINED_BYTES = 2 ** 29;
/** Memory of a layer's attention up to which tokens are followed through the encoder together, in bytes. */
const ENCODED_BYTES = 2 ** 28;
/** Hidden states read by the lens at a time. */
const LENS_ROWS = 64;

/** Loads the LLaVA in a folder, to be asked and explained. UserError as of `loadModel`. */
export async function loadExplainer(dir: string, options: ExplainerOptions & { model?: LoadedModel } = {}): Promise<Explainer> {
  const { engine = createOrtEngine(), quantize } = options;
  const model = options.model ?? (await loadModel(dir, { engine, quantize }));
  const weights = await withCheckpoint(dir, llavaConfigSchema, (_config, checkpoint) =>
    readRunWeights(checkpoint, llavaParameters(model.config), { quantize }),
  );
  return createExplainer(engine, model, weights, options);
}

/** Explains what `model` answers; `weights` are its own, and are released with it. */
export async function createExplainer(
  engine: Engine,
  model: Pick<LoadedModel, 'config' | 'generator' | 'processor' | 'tokenizer'> & Partial<Pick<LoadedModel, 'generation'>>,
  { values, release }: RunWeights,
  { memoryLimit = memoryBytes() / 2 }: ExplainerOptions = {},
): Promise<Explainer> {
  const { config, generator, tokenizer } = model;
  const { hidden_size: hidden, num_hidden_layers: layers, num_attention_heads: heads } = config.text_config;
  const layout = patchLayout(config);
  const imageTokens = imageTokenCount(config);
  const programs = programsOf(engine, config, layout, values);
  const passBytes = await plannedBytes(config, values);

  async function answer({
    picture,
    prompt,
    answer,
    short,
    maxNewTokens = MAX_NEW_TOKENS,
    signal,
  }: ExplainRequest): Promise<AnsweredQuestion> {
    const asked: readonly Turn[] = typeof prompt === 'string' ? [{ from: 'human', value: prompt }] : prompt;
    const turns = short ? asked.with(-1, { from: 'human', value: asked.at(-1)!.value + shortAnswerPrompt }) : asked;
    const places = imagePlaces(turns);
    if (places > 1) throw new UserError(`the prompt has ${places} pictures: an explanation is about one`);
    const promptIds = encodePrompt(tokenizer, places === 0 ? withImages(turns, 1) : turns, imageTokens);
    const pixelValues = await readPixelValues([picture], model.processor);
    const imageRows = await generator.imageRows(await generator.imageFeatures(pixelValues));
    const stopTokenIds = [tokenizer.endOfTurnTokenId, tokenizer.eosTokenId, ...(model.generation?.stopTokenIds ?? [])];
    const sampling = greedySampling(model.generation?.repetitionPenalty);
    const answerIds =
      answer === undefined
        ? (await generator.generate([{ inputIds: promptIds, imageRows }], { maxNewTokens, stopTokenIds, sampling, signal }))[0]
        : tokenizer.encodeWithoutImages(answer);
    if (answerIds.length === 0) throw new UserError('the answer is empty: there is nothing to explain; give one');
    checkLength(promptIds.length + answerIds.length - 1, config.text_config.max_position_embeddings);
    const text = asked.at(-1)!.value.replaceAll(imageToken, '').trim();
    return { prompt: text, answer: tokenizer.decode(answerIds).trim(), promptIds, answerIds, pixelValues, imageRows };
  }

  /** Places of the image tokens in a prompt. */
  const imagePositions = (question: AnsweredQuestion) => placesOf(question.promptIds, (id) => id === config.image_token_index);

  /**
   * What a pass over `batch` copies of a question reads. The last token of the answer is predicted, not read.
   */
  function passFeeds({ promptIds, answerIds, imageRows }: AnsweredQuestion, batch: number) {
    const ids = [...promptIds, ...answerIds.slice(0, -1)];
    const tokens = ids.length;
    const positions = ids.map((_, t) => t);
    const repeated = (row: readonly number[]) => int32(Array.from({ length: batch }, () => row).flat(), [batch, tokens]);
    return {
      input_ids: repeated(ids),
      position_ids: repeated(positions),
      key_positions: repeated(positions),
      image_rows: float32(concatFloat32(Array.from({ length: batch }, () => imageRows)), [batch * imageTokens, hidden]),
    };
  }

  /** How many of the answer's tokens are asked about in one pass. UserError where one is too many. */
  function askedTogether(tokens: number, answer: number): number {
    const bytes = passBytes(tokens);
    const budget = Math.min(memoryLimit, Math.max(JOINED_BYTES, 1.25 * bytes));
    if (bytes <= memoryLimit) {
      // a further token takes less than the first, whose forward pass it shares, but not always the same
      let together = answer;
      while (together > 1 && passBytes(tokens, together) > budget) together = Math.ceil(together / 2);
      return together;
    }
    const attention = 2 * layers * heads * tokens ** 2 * 4;
    const size = (count: number) => (count < 1e9 ? `${Math.ceil(count / 1e6)} MB` : `${(count / 1e9).toFixed(1)} GB`);
    throw new UserError(
      `explaining an answer of ${tokens} tokens, its prompt included, takes ${size(bytes)} beside the weights ` +
        `(${size(attention)} for attention and its gradients), and ${size(memoryLimit)} are allowed: ` +
        'shorten the prompt, take a model with fewer image tokens, or raise --memory-limit',
    );
  }

  /** The rows of one token's query: what relevancyGraph gives, taken apart. */
  async function queries(question: AnsweredQuestion, signal: AbortSignal | undefined): Promise<QueryRows[]> {
    const { promptIds, answerIds } = question;
    const tokens = promptIds.length + answerIds.length - 1;
    const together = askedTogether(tokens, answerIds.length);
    const program = await programs.relevancy();
    const places = imagePositions(question);
    const found: QueryRows[] = [];
    for (let from = 0; from < answerIds.length; from += together) {
      signal?.throwIfAborted();
      const batch = Math.min(together, answerIds.length - from);
      const query = new Float32Array(batch * tokens);
      for (let i = 0; i < batch; i++) query[i * tokens + promptIds.length - 1 + from + i] = 1;
      const results = await program.run({
        ...passFeeds(question, 1),
        query: float32(query, [batch, 1, tokens]),
        query_positions: int32(
          Array.from({ length: batch }, (_, i) => promptIds.length - 1 + from + i),
          [batch, 1],
        ),
        targets: int32(answerIds.slice(from, from + batch), [batch]),
        gradient_rows: int32(Array.from({ length: batch }, (_, i) => places.map((place) => i * tokens + place)).flat(), [
          batch * places.length,
        ]),
      });
      for (let i = 0; i < batch; i++) {
        const part = (name: 'logits' | 'probabilities' | 'relevancy' | 'rollout' | 'attention' | 'image_gradients') => {
          const data = results[name].data as Float32Array;
          return data.subarray((i * data.length) / batch, ((i + 1) * data.length) / batch);
        };
        found.push({
          logit: part('logits')[0],
          probability: part('probabilities')[0],
          shares: normalizedRow(part('relevancy'), promptIds.length - 1 + from + i),
          rollout: part('rollout'),
          attention: part('attention'),
          imageGradients: part('image_gradients'),
        });
      }
    }
    return found;
  }

  /** The relevancy of each token at the image rows, followed through the encoder. */
  async function throughEncoder({ pixelValues }: AnsweredQuestion, rows: readonly QueryRows[], places: readonly number[]) {
    const program = await programs.encoder();
    const size = imageSize(config);
    const { encoderRows, rowOf } = layout;
    const maps: Float32Array[] = [];
    const together = Math.max(1, Math.floor(ENCODED_BYTES / (config.vision_config.num_attention_heads * encoderRows ** 2 * 4)));
    for (let from = 0; from < rows.length; from += together) {
      const some = rows.slice(from, from + together);
      const start = new Float32Array(some.length * encoderRows);
      some.forEach(({ shares }, i) => {
        places.forEach((place, j) => {
          start[i * encoderRows + rowOf(j)] = shares[place];
        });
      });
      const results = await program.run({
        pixel_values: float32(pixelValues, [1, 3, size, size]),
        row_gradients: float32(concatFloat32(some.map(({ imageGradients }) => imageGradients)), [some.length, imageTokens, hidden]),
        start: float32(start, [some.length, 1, encoderRows]),
      });
      const data = results.relevancy.data as Float32Array;
      some.forEach((_, i) => {
        maps.push(rowsByPatch(data.subarray(i * encoderRows, (i + 1) * encoderRows), layout));
      });
    }
    return maps;
  }

  async function lens(question: AnsweredQuestion) {
    const [statesProgram, program] = [await programs.states(), await programs.lens()];
    const places = imagePositions(question);
    const { states } = await statesProgram.run({ ...passFeeds(question, 1), state_rows: int32(places, [places.length]) });
    const all = states.data as Float32Array;
    const size = imageTokens * hidden;
    const read: NonNullable<Explanation['lens']> = [];
    for (let layer = 0; layer <= layers; layer++) {
      const texts: string[] = [];
      const probabilities = new Float32Array(imageTokens);
      for (let from = 0; from < imageTokens; from += LENS_ROWS) {
        const count = Math.min(LENS_ROWS, imageTokens - from);
        const rows = all.slice(layer * size + from * hidden, layer * size + (from + count) * hidden);
        const results = await program.run({ hidden: float32(rows, [count, hidden]), normed: int32([Number(layer === layers)], []) });
        for (const id of results.likeliest.data as Int32Array) texts.push(tokenizer.token(id).replaceAll('▁', ' '));
        probabilities.set(results.probability.data as Float32Array, from);
      }
      read.push({ texts, probabilities });
    }
    return read;
  }

  async function maps(question: AnsweredQuestion, options: MapOptions = {}): Promise<Explanation> {
    const { prompt, answer, promptIds, answerIds, imageRows } = question;
    const { throughEncoder: followed = true, lens: withLens = false, signal } = options;
    const places = imagePositions(question);
    const found = await queries(question, signal);
    const length = promptIds.length + answerIds.length - 1;
    const atImage = (row: ArrayLike<number>) =>
      byPatch(
        Float32Array.from(places, (place) => row[place]),
        layout,
      );
    const textPlaces = placesOf(promptIds, (id) => id !== config.image_token_index);
    const shares = found.map(({ shares }) => shares);
    const patches = layout.grid.rows * layout.grid.columns;
    const toPatches = found.map(({ attention }) => {
      const all = new Float32Array(layers * heads * patches);
      for (let head = 0; head < layers * heads; head++)
        all.set(atImage(attention.subarray(head * length, (head + 1) * length)), head * patches);
      return all;
    });
    const answerTexts = pieces(tokenizer, answerIds);
    const promptTexts = pieces(
      tokenizer,
      textPlaces.map((place) => promptIds[place]),
    );
    const isSpecial = (i: number) => i >= 0 && tokenizer.isSpecial(promptIds[textPlaces[i]]);
    return {
      prompt,
      answer,
      layout,
      tokens: answerIds.map((id, t) => ({ id, text: answerTexts[t], logit: found[t].logit, probability: found[t].probability })),
      words: wordsOf(answerTexts),
      promptTokens: textPlaces.map((place, i) => ({ id: promptIds[place], text: promptTexts[i] })),
      promptWords: wordsOf(promptTexts, isSpecial),
      maps: {
        relevancy: shares.map(atImage),
        ...(followed ? { encoder: await throughEncoder(question, found, places) } : {}),
        attention: toPatches.map((all) => meanOfHeads(all.subarray((layers - 1) * heads * patches), heads)),
        rollout: found.map(({ rollout }) => atImage(rollout)),
        gradientInput: found.map(({ imageGradients }) => byPatch(rowProducts(imageGradients, imageRows, hidden), layout)),
      },
      onImage: Float32Array.from(shares, (row) => places.reduce((sum, place) => sum + row[place], 0)),
      onPrompt: shares.map((row) => Float32Array.from(textPlaces, (place) => row[place])),
      onAnswer: shares.map((row, t) => row.slice(promptIds.length, promptIds.length + t)),
      heads: { layers, heads, toPatches },
      ...(withLens ? { lens: await lens(question) } : {}),
    };
  }

  async function logProbabilities(
    question: AnsweredQuestion,
    kept: readonly Uint8Array[],
    { removal = 'mean', signal }: { removal?: Removal; signal?: AbortSignal } = {},
  ) {
    const { promptIds, answerIds, imageRows } = question;
    const program = await programs.answer();
    const places = imagePositions(question);
    const tokens = promptIds.length + answerIds.length - 1;
    const together = Math.max(1, Math.floor(JOINED_BYTES / passBytes(tokens)));
    const mean = meanRow(imageRows, hidden);
    const scores: Float32Array[] = [];
    for (let from = 0; from < kept.length; from += together) {
      signal?.throwIfAborted();
      const masks = kept.slice(from, from + together);
      const feeds = passFeeds(question, masks.length);
      masks.forEach((mask, i) => {
        places.forEach((place, j) => {
          if (mask[j]) return;
          if (removal === 'drop') (feeds.key_positions.data as Int32Array)[i * tokens + place] = HIDDEN_POSITION;
          else (feeds.image_rows.data as Float32Array).set(mean, (i * imageTokens + j) * hidden);
        });
      });
      const labelRows = masks.flatMap((_, i) => answerIds.map((_, t) => i * tokens + promptIds.length - 1 + t));
      const { losses } = await program.run({
        ...feeds,
        label_rows: int32(labelRows, [labelRows.length]),
        labels: int32(
          masks.flatMap(() => [...answerIds]),
          [labelRows.length],
        ),
      });
      masks.forEach((_, i) => {
        const own = (losses.data as Float32Array).subarray(i * answerIds.length, (i + 1) * answerIds.length);
        scores.push(own.map((loss) => -loss));
      });
    }
    return scores;
  }

  return {
    config,
    layout,
    answer,
    maps,
    explain: async ({ throughEncoder, lens, signal, ...request }) =>
      maps(await answer({ ...request, signal }), { throughEncoder, lens, signal }),
    logProbabilities,
    passBytes,
    async dispose() {
      await programs.dispose();
      await generator.dispose();
      await release();
    },
  };
}

interface QueryRows {
  logit: number;
  probability: number;
  /** [tokens]: relevancy by equations (5) to (9). */
  shares: Float32Array;
  rollout: Float32Array;
  /** [layers * heads * tokens]. */
  attention: Float32Array;
  /** [imageTokens * hidden]. */
  imageGradients: Float32Array;
}

/** Programs, each compiled when it is first asked for: a map needs not all of them. */
function programsOf(engine: Engine, config: LlavaConfig, { encoderRows }: PatchLayout, values: ReadonlyMap<string, Constant>) {
  const options = { storage: storageOfValues(values) };
  const compiled: Promise<{ dispose(): Promise<void> }>[] = [];
  const once = <I extends string, O extends string>(graph: () => Graph<I, O>) => {
    let program: Promise<GraphProgram<I, O>> | undefined;
    return () => {
      if (!program) {
        program = compileGraph(engine, graph(), values);
        compiled.push(program);
      }
      return program;
    };
  };
  return {
    relevancy: once(() => relevancyGraph(config, options)),
    encoder: once(() => encoderRelevancyGraph(config, encoderRows, options)),
    states: once(() => statesGraph(config, options)),
    lens: once(() => lensGraph(config, options)),
    answer: once(() => answerGraph(config, options)),
    async dispose() {
      for (const program of compiled) await (await program).dispose();
    },
  };
}

/** What a pass of relevancyGraph holds at once, by the length of the prompt and the answer. */
async function plannedBytes(config: LlavaConfig, values: ReadonlyMap<string, Constant>): Promise<Explainer['passBytes']> {
  const planning = createPlanningEngine();
  await compileGraph(planning, relevancyGraph(config, { storage: storageOfValues(values) }), values);
  const rows = imageTokenCount(config);
  return (tokens, asked = 1) => planning.memory.activationBytes({ batch: asked, tokens, image_rows: rows, gradient_rows: asked * rows });
}

const placesOf = (ids: readonly number[], isWanted: (id: number) => boolean): number[] =>
  ids.flatMap((id, place) => (isWanted(id) ? [place] : []));

/** The mean over heads of [heads * patches]. */
function meanOfHeads(maps: Float32Array, heads: number): Float32Array {
  const patches = maps.length / heads;
  return Float32Array.from({ length: patches }, (_, i) => {
    let sum = 0;
    for (let head = 0; head < heads; head++) sum += maps[head * patches + i];
    return sum / heads;
  });
}

/** |a row . b row| for each row of two matrices [rows * width]. */
function rowProducts(a: Float32Array, b: Float32Array, width: number): Float32Array {
  return Float32Array.from({ length: a.length / width }, (_, row) => {
    let sum = 0;
    for (let i = row * width; i < (row + 1) * width; i++) sum += a[i] * b[i];
    return Math.abs(sum);
  });
}

/** The mean of the rows of a matrix [rows * width]. */
function meanRow(rows: Float32Array, width: number): Float32Array {
  const mean = new Float32Array(width);
  const count = rows.length / width;
  for (let i = 0; i < rows.length; i++) mean[i % width] += rows[i] / count;
  return mean;
}
