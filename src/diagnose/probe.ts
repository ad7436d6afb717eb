// What a model does with pictures, from single passes: its loss with the picture, a blank one and another
// one, the rows that the connector makes, their norms beside those of the text at each layer.

import { effectiveRank } from '../alignment/effective-rank.ts';
import { readTokenizerFiles } from '../checkpoint/tokenizer-files.ts';
import type { Sample } from '../data/llava-json.ts';
import { type Engine, float32, int32, type Value } from '../engine/engine.ts';
import { type ImageProcessorConfig, imageProcessorConfig, readPixelValues } from '../images/processor.ts';
import { imageSize, type LlavaConfig, llavaConfigSchema, llavaParameters } from '../models/llava.ts';
import { compileGraph, headGraph, imageFeaturesGraph, type PassModel, passGraph } from '../models/programs.ts';
import { storageOfValues } from '../nn/parameters.ts';
import { checkConfig, withCheckpoint } from '../pretrained/folder.ts';
import { withImageSize } from '../pretrained/processor.ts';
import { readRunWeights } from '../pretrained/run-weights.ts';
import { createRandom } from '../random.ts';
import { meanOf } from '../statistics/proportion.ts';
import { type EncodedConversation, encodeConversation, ignoreIndex } from '../text/labels.ts';
import { createTokenizer, type Tokenizer } from '../text/tokenizer.ts';
import type { DiagnosisData } from './data.ts';
import { divergence, logSoftmax, meanCosine, meanNorm, type Rows, someRows } from './measures.ts';

/** Pictures whose hidden states are looked at. */
const LAYERED = 8;
/** Rows of which the effective rank is taken. */
const RANKED = 256;

export interface ModelMeasures {
  pictures: number;
  /** Nats a label with its own picture; how much more with a blank one, and with that of another sample. */
  loss: number;
  blankGain: number;
  exchangedGain: number;
  /** Nats for the token before the one that should come, and for the one after it. */
  shiftedLoss: { before: number; after: number };
  /** Mean norm of image rows over that of text rows: at the input, and after each layer. */
  normRatio: number;
  layerNormRatios: number[];
  imageNorm: number;
  /**
   * How far the layers but the last one move image rows, as a share of their norm; undefined for a single
   * layer.
   */
  movement: number | undefined;
  /** Of the connector's rows; width is the most that it can be. */
  effectiveRank: number;
  rowsRanked: number;
  cosineBetweenPictures: number;
  /** Whether the connector's biases are all 0, as they are before training; undefined where it has none. */
  untouchedBiases: boolean | undefined;
  /** Mean divergence of the first token of an answer when the picture is drowned in noise, in nats. */
  noiseEffect: number;
  /** Trained tokens of each caption. */
  labels: { least: number; mean: number; first: string; last: string };
}

interface Opened {
  config: LlavaConfig;
  tokenizer: Tokenizer;
  processor: ImageProcessorConfig;
  /** Pixel values [3, size, size] -> [imageTokens, hidden], before scaling. */
  rows(pixels: Float32Array): Promise<Float32Array>;
  /** Logits at the positions before labels; hidden states if asked for. */
  pass(sample: EncodedConversation, rows: Float32Array, withStates: boolean): Promise<{ logits: Float32Array[]; states: Rows[] }>;
  untouchedBiases: boolean | undefined;
  dispose(): Promise<void>;
}

async function openProbe(engine: Engine, dir: string): Promise<Opened> {
  return withCheckpoint(dir, llavaConfigSchema, async (stored, checkpoint) => {
    const { tokenizerJson, tokenizerConfig } = await readTokenizerFiles(dir);
    const { value, file } = await checkpoint.imageProcessor();
    const processor = checkConfig(imageProcessorConfig, value, file);
    const config = withImageSize(stored, processor, file);
    const weights = await readRunWeights(checkpoint, llavaParameters(config));
    const options = { storage: storageOfValues(weights.values) };
    const model: PassModel = { kind: 'llava', config, hasImages: true };
    const side = imageSize(config);
    const compile = async () =>
      [
        await compileGraph(engine, imageFeaturesGraph(config, [side, side], options), weights.values),
        await compileGraph(engine, passGraph(model, { ...options, states: true }), weights.values),
        await compileGraph(engine, headGraph(model, options), weights.values),
      ] as const;
    const [encoder, pass, head] = await compile().finally(weights.release);
    const hidden = config.text_config.hidden_size;
    const biases = checkpoint.names.filter((name) => name.startsWith('multi_modal_projector.') && name.endsWith('.bias'));
    const areZero = await Promise.all(biases.map(async (name) => (await checkpoint.float32(name)).every((bias) => bias === 0)));
    return {
      config,
      processor,
      tokenizer: createTokenizer(tokenizerJson, tokenizerConfig),
      untouchedBiases: biases.length > 0 ? areZero.every(Boolean) : undefined,
      async rows(pixels) {
        return (await encoder.run({ pixel_values: float32(pixels, [1, 3, side, side]) })).image_features.data as Float32Array;
      },
      async pass({ inputIds, labels }, rows, withStates) {
        const dims = [1, inputIds.length];
        const positions = int32(
          Int32Array.from(inputIds, (_, i) => i),
          dims,
        );
        const feeds = {
          input_ids: int32(Int32Array.from(inputIds), dims),
          position_ids: positions,
          key_positions: positions,
          image_features: float32(rows, [rows.length / hidden, hidden]),
        };
        const layers = withStates ? Array.from({ length: config.text_config.num_hidden_layers + 1 }, (_, i) => `hidden_states.${i}`) : [];
        const results: Record<string, Value> = await pass.run(feeds, {
          outputs: ['last_hidden', ...layers] as never,
        });
        const last = results.last_hidden.data as Float32Array;
        const places = labels.flatMap((label, i) => (label !== ignoreIndex && i > 0 ? [i - 1] : []));
        const asked = new Float32Array(places.length * hidden);
        for (const [i, place] of places.entries()) asked.set(last.subarray(place * hidden, (place + 1) * hidden), i * hidden);
        const { logits } = await head.run({ hidden: float32(asked, [places.length, hidden]) });
        const vocabulary = config.text_config.vocab_size;
        return {
          logits: places.map((_, i) => (logits.data as Float32Array).subarray(i * vocabulary, (i + 1) * vocabulary)),
          states: layers.map((name) => ({ data: results[name].data as Float32Array, width: hidden })),
        };
      },
      async dispose() {
        for (const program of [encoder, pass, head]) await program.dispose();
      },
    };
  });
}

/**
 * The share of a picture that is left at step 500 of the noise of VCD (Leng et al. 2023, arXiv 2311.16922).
 */
function pictureLeft(): number {
  let left = 1;
  for (let step = 0; step <= 500; step++) left *= 1 - (5e-3 - 1e-5) / (1 + Math.exp(6 - (12 * step) / 999)) - 1e-5;
  return left;
}

function noised(pixels: Float32Array, index: number): Float32Array {
  const random = createRandom(0, 'noise', index);
  const left = pictureLeft();
  return pixels.map((value) => Math.sqrt(left) * value + Math.sqrt(1 - left) * random.normal());
}

/** Looks at a model with the samples. `onProgress` is told how far it is. Throws the signal's reason. */
export async function probeModel(
  engine: Engine,
  dir: string,
  { captions, questions }: Pick<DiagnosisData, 'captions' | 'questions'>,
  { signal, onProgress }: { signal: AbortSignal; onProgress: (text: string) => void },
): Promise<ModelMeasures> {
  const model = await openProbe(engine, dir);
  try {
    return await probe(model, captions, questions, (text) => {
      signal.throwIfAborted();
      onProgress(text);
    });
  } finally {
    await model.dispose();
  }
}

async function probe(
  model: Opened,
  captions: readonly Sample[],
  questions: readonly Sample[],
  tell: (text: string) => void,
): Promise<ModelMeasures> {
  const { tokenizer, config } = model;
  const pixels: Float32Array[] = [];
  const rows: Float32Array[] = [];
  for (const { images } of captions) {
    tell(`reading pictures: ${rows.length} of ${captions.length}`);
    pixels.push(await readPixelValues(images, model.processor));
    rows.push(await model.rows(pixels.at(-1)!));
  }
  const hidden = config.text_config.hidden_size;
  const imageTokens = rows[0].length / hidden;
  const encode = ({ conversations, id }: Sample) => encodeConversation(tokenizer, conversations, { imageTokens, sampleId: id });
  const encoded = captions.map(encode);
  const blank = await model.rows(new Float32Array(pixels[0].length));

  const sums = { own: 0, blank: 0, exchanged: 0, before: 0, after: 0, labels: 0, shifted: 0 };
  const ratios: number[][] = [];
  const moved: number[] = [];
  for (const [i, sample] of encoded.entries()) {
    tell(`reading captions: ${i} of ${encoded.length}`);
    const targets = sample.labels.flatMap((label, t) => (label !== ignoreIndex && t > 0 ? [t] : []));
    const own = await model.pass(sample, rows[i], i < LAYERED);
    const other = await model.pass(sample, rows[(i + Math.ceil(rows.length / 2)) % rows.length], false);
    const empty = await model.pass(sample, blank, false);
    for (const [k, t] of targets.entries()) {
      const scores = logSoftmax(own.logits[k]);
      sums.own -= scores[sample.inputIds[t]];
      sums.exchanged -= logSoftmax(other.logits[k])[sample.inputIds[t]];
      sums.blank -= logSoftmax(empty.logits[k])[sample.inputIds[t]];
      sums.labels++;
      if (k === 0 || k + 1 >= targets.length) continue;
      sums.before -= scores[sample.inputIds[t - 1]];
      sums.after -= scores[sample.inputIds[t + 1]];
      sums.shifted++;
    }
    if (i >= LAYERED) continue;
    ratios.push(own.states.map((state) => normRatioOf(state, sample.inputIds, tokenizer.imageTokenId)));
    // the last state is normed
    if (own.states.length > 2 && meanNorm({ data: rows[i], width: hidden }) > 0)
      moved.push(movementOf(own.states[0], own.states.at(-2)!, sample.inputIds, tokenizer.imageTokenId));
  }

  const matrices = rows.map((data): Rows => ({ data, width: hidden }));
  const ranked = someRows(matrices, RANKED);
  const layerNormRatios = ratios[0].map((_, layer) => meanOf(ratios.map((ofSample) => ofSample[layer])));
  const loss = sums.own / sums.labels;
  const trained = encoded.map(({ labels }) => labels.filter((label) => label !== ignoreIndex));
  return {
    pictures: captions.length,
    loss,
    blankGain: sums.blank / sums.labels - loss,
    exchangedGain: sums.exchanged / sums.labels - loss,
    shiftedLoss: { before: sums.before / sums.shifted, after: sums.after / sums.shifted },
    normRatio: layerNormRatios[0],
    layerNormRatios,
    imageNorm: meanNorm({ data: rows[0], width: hidden }),
    movement: moved.length > 0 ? meanOf(moved) : undefined,
    effectiveRank: effectiveRank({ ...ranked, count: ranked.data.length / hidden }),
    rowsRanked: ranked.data.length / hidden,
    cosineBetweenPictures: meanCosine(matrices),
    untouchedBiases: model.untouchedBiases,
    noiseEffect: await noiseEffect(model, questions, encode, tell),
    labels: {
      least: Math.min(...trained.map(({ length }) => length)),
      mean: meanOf(trained.map(({ length }) => length)),
      first: tokenizer.decode([trained[0][0]]),
      last: tokenizer.decode([trained[0].at(-1)!]),
    },
  };
}

/** Norm of image rows over that of the text after them. */
function normRatioOf({ data, width }: Rows, inputIds: readonly number[], imageToken: number): number {
  const first = inputIds.indexOf(imageToken);
  const end = inputIds.lastIndexOf(imageToken) + 1;
  const norm = (from: number, to: number) => meanNorm({ data: data.subarray(from * width, to * width), width });
  return norm(first, end) / norm(end, inputIds.length);
}

/** Norm of the change of image rows over that of the rows. */
function movementOf({ data: before, width }: Rows, { data: after }: Rows, inputIds: readonly number[], imageToken: number): number {
  const [from, to] = [inputIds.indexOf(imageToken) * width, (inputIds.lastIndexOf(imageToken) + 1) * width];
  const change = after.slice(from, to).map((value, i) => value - before[from + i]);
  return meanNorm({ data: change, width }) / meanNorm({ data: before.subarray(from, to), width });
}

async function noiseEffect(
  model: Opened,
  questions: readonly Sample[],
  encode: (sample: Sample) => EncodedConversation,
  tell: (text: string) => void,
) {
  let sum = 0;
  for (const [i, question] of questions.entries()) {
    tell(`reading questions: ${i} of ${questions.length}`);
    const sample = encode(question);
    const seen = await readPixelValues(question.images, model.processor);
    const [clear, drowned] = [
      await model.pass(sample, await model.rows(seen), false),
      await model.pass(sample, await model.rows(noised(seen, i)), false),
    ];
    sum += divergence(clear.logits[0], drowned.logits[0]);
  }
  return sum / questions.length;
}
