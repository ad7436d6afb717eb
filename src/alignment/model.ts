// A LLaVA as alignment looks at it: encoder, connector and language model one by one, with what comes out
// of each.

import { concatFloat32 } from '../arrays.ts';
import { readTokenizerFiles } from '../checkpoint/tokenizer-files.ts';
import { type EncodedSample, packSamples } from '../data/packing.ts';
import { type Engine, float32 } from '../engine/engine.ts';
import { createOrtEngine } from '../engine/ort.ts';
import { type ImageProcessorConfig, imageProcessorConfig } from '../images/processor.ts';
import { imageSize, imageTokenCount, type LlavaConfig, llavaConfigSchema, llavaParameters, visionFeatureSize } from '../models/llava.ts';
import { compileGraph, connectorGraph, encoderGraph, headGraph, scoringGraph } from '../models/programs.ts';
import { storageOfValues } from '../nn/parameters.ts';
import { checkConfig, withCheckpoint } from '../pretrained/folder.ts';
import { checkTokenizer } from '../pretrained/load.ts';
import { withImageSize } from '../pretrained/processor.ts';
import { readRunWeights } from '../pretrained/run-weights.ts';
import { ignoreIndex } from '../text/labels.ts';
import { createTokenizer, type Tokenizer } from '../text/tokenizer.ts';
import type { Quantization } from '../weights/quantize.ts';
import { type Rows, stackRows } from './matrices.ts';

/** A text about a picture, tokenized. */
export type EncodedText = Pick<EncodedSample, 'inputIds' | 'labels' | 'prefixLength'>;

/** What comes of reading one. */
export interface Reading {
  /** Cross entropy of each label, in nats. */
  losses: Float32Array;
  /** Those that were asked for, of the first layer's input (0) to the last one's output, [tokens, hidden]. */
  states: Map<number, Rows>;
}

/** All that can be seen of one text. */
export interface Inspection extends Reading {
  /** Before each label, [vocab]. */
  logits: Float32Array[];
  /**
   * By layer, where the tokens look, [tokens] each, mean over heads: those of the text behind the picture,
   * and those of them that say the labels.
   */
  attention: { text: Float32Array; answer: Float32Array }[];
}

export interface AlignmentModel {
  readonly config: LlavaConfig;
  readonly tokenizer: Tokenizer;
  readonly processor: ImageProcessorConfig;
  readonly layers: number;
  /** Pixel values [3, size, size] of each picture -> [imageTokens, width]. */
  features(pixels: readonly Float32Array[]): Promise<Rows[]>;
  /** Features -> rows as they enter the language model, [imageTokens, hidden]. */
  imageRows(features: readonly Rows[]): Promise<Rows[]>;
  /**
   * Reads texts about the picture whose rows these are, which is itself read once if they all begin with it.
   * `states` names the hidden states that are kept.
   */
  read(imageRows: Rows, texts: readonly EncodedText[], states?: readonly number[]): Promise<Reading[]>;
  /** Reads one text with all that can be seen of it; of a model that was opened with `inspect`. */
  inspect(imageRows: Rows, text: EncodedText): Promise<Inspection>;
  dispose(): Promise<void>;
}

export interface OpenOptions {
  engine?: Engine;
  quantize?: Quantization;
  /** Whether texts will be inspected: attention is then computed in full. Default: false. */
  inspect?: boolean;
}

/** Pictures that go through the encoder at a time. */
const TOGETHER = 16;

/**
 * Opens the LLaVA in the Hugging Face folder `dir`. UserError, naming the file, for what is wrong with it.
 */
export function openAlignmentModel(
  dir: string,
  { engine = createOrtEngine(), quantize, inspect = false }: OpenOptions = {},
): Promise<AlignmentModel> {
  return withCheckpoint(dir, llavaConfigSchema, async (stored, checkpoint) => {
    const { tokenizerJson, tokenizerConfig } = await readTokenizerFiles(dir);
    const tokenizer = createTokenizer(tokenizerJson, tokenizerConfig);
    checkTokenizer(tokenizer, stored, dir);
    const { value, file } = await checkpoint.imageProcessor();
    const processor = checkConfig(imageProcessorConfig, value, file);
    const config = withImageSize(stored, processor, file);
    const weights = await readRunWeights(checkpoint, llavaParameters(config), { quantize });
    const options = { storage: storageOfValues(weights.values) };
    const compile = async () => ({
      encoder: await compileGraph(engine, encoderGraph(config, options), weights.values),
      connector: await compileGraph(engine, connectorGraph(config, options), weights.values),
      scoring: await compileGraph(engine, scoringGraph(config, { ...options, attention: inspect }), weights.values),
      ...(inspect
        ? { head: await compileGraph(engine, headGraph({ kind: 'llava', config, hasImages: true }, options), weights.values) }
        : {}),
    });
    return alignmentModel({ config, tokenizer, processor }, await compile().finally(weights.release));
  });
}

interface Programs {
  encoder: Awaited<ReturnType<typeof compileGraph<keyof ReturnType<typeof encoderGraph>['inputs'], 'features'>>>;
  connector: Awaited<ReturnType<typeof compileGraph<keyof ReturnType<typeof connectorGraph>['inputs'], 'rows'>>>;
  scoring: Awaited<ReturnType<typeof compileGraph<string, string>>>;
  /** Of a model that is inspected. */
  head?: Awaited<ReturnType<typeof compileGraph<'hidden', 'logits'>>>;
}

function alignmentModel(
  parts: Pick<AlignmentModel, 'config' | 'tokenizer' | 'processor'>,
  { encoder, connector, scoring, head }: Programs,
): AlignmentModel {
  const { config } = parts;
  const [size, count] = [imageSize(config), imageTokenCount(config)];
  const [width, hidden] = [visionFeatureSize(config), config.text_config.hidden_size];
  /** Runs `work` on some of the list at a time. */
  const inBatches = async <T>(list: readonly T[], rowWidth: number, work: (some: readonly T[]) => Promise<Float32Array>) => {
    const results: Rows[] = [];
    for (let at = 0; at < list.length; at += TOGETHER) {
      const data = await work(list.slice(at, at + TOGETHER));
      const length = count * rowWidth;
      for (let from = 0; from < data.length; from += length)
        results.push({ data: data.slice(from, from + length), count, width: rowWidth });
    }
    return results;
  };
  const layers = config.text_config.num_hidden_layers;
  const rowsOf = (imageRows: Rows) => float32(stackRows([imageRows]).data, [count, hidden]);
  return {
    ...parts,
    layers,
    features: (pixels) =>
      inBatches(pixels, width, async (some) => {
        const { features } = await encoder.run({ pixel_values: float32(concatFloat32(some), [some.length, 3, size, size]) });
        return features.data as Float32Array;
      }),
    imageRows: (features) =>
      inBatches(features, hidden, async (some) => {
        const input = float32(stackRows(some).data, [some.length, count, width]);
        return (await connector.run({ features: input })).rows.data as Float32Array;
      }),
    async read(imageRows, texts, states = []) {
      const parts = shareBeginning(texts) ? fittingParts(texts, config.text_config.max_position_embeddings) : texts.map((text) => [text]);
      if (parts.length > 1) return (await Promise.all(parts.map((part) => this.read(imageRows, part, states)))).flat();
      const { inputs, places } = packedRow(texts);
      const outputs = await scoring.run(
        { ...inputs, image_rows: rowsOf(imageRows), ...(head ? { queries: nobody(inputs.input_ids.dims[1]) } : {}) },
        { outputs: ['losses', ...states.map(stateName)] },
      );
      const losses = cutByLabels(outputs.losses.data as Float32Array, texts);
      const stateOf = (layer: number, text: number) => gatherRows(outputs[stateName(layer)].data as Float32Array, hidden, places[text]);
      return texts.map((_, i) => ({ losses: losses[i], states: new Map(states.map((layer) => [layer, stateOf(layer, i)])) }));
    },
    async inspect(imageRows, text) {
      if (!head) throw new Error('the model was not opened to be inspected');
      const { inputs } = packedRow([text]);
      const tokens = text.inputIds.length;
      const states = Array.from({ length: layers + 1 }, (_, layer) => layer);
      const wanted = ['losses', 'attention', ...states.map(stateName)];
      const queries = float32(lookers(text, config.image_token_index), [1, 1, 2, tokens]);
      const outputs = await scoring.run({ ...inputs, image_rows: rowsOf(imageRows), queries }, { outputs: wanted });
      const dataOf = (name: string) => outputs[name].data as Float32Array;
      const last = gatherRows(dataOf(stateName(layers)), hidden, labelPlaces(text));
      const { logits } = await head.run({ hidden: float32(last.data as Float32Array, [last.count, hidden]) });
      const looked = rowsIn(dataOf('attention'), tokens);
      return {
        losses: dataOf('losses'),
        states: new Map(states.map((layer) => [layer, { data: dataOf(stateName(layer)), count: tokens, width: hidden }])),
        logits: rowsIn(logits.data as Float32Array, config.text_config.vocab_size),
        attention: Array.from({ length: layers }, (_, layer) => ({ text: looked[2 * layer], answer: looked[2 * layer + 1] })),
      };
    },
    async dispose() {
      for (const program of [encoder, connector, scoring, head]) await program?.dispose();
    },
  };
}

const stateName = (layer: number) => `hidden_states.${layer}`;

/** A matrix of so many columns as its rows. */
const rowsIn = (data: Float32Array, width: number): Float32Array[] =>
  Array.from({ length: data.length / width }, (_, row) => data.subarray(row * width, (row + 1) * width));

/** Places of the tokens that say the labels: the ones before them. */
const labelPlaces = ({ labels }: EncodedText) => labels.flatMap((label, t) => (label !== ignoreIndex && t > 0 ? [t - 1] : []));

/** Queries of a text whose attention nobody asks for. */
const nobody = (tokens: number) => float32(new Float32Array(tokens), [1, 1, 1, tokens]);

/**
 * Weights of the tokens behind the picture, and of those that say the labels: the mean over each, [2,
 * tokens].
 */
function lookers(text: EncodedText, imageToken: number): Float32Array {
  const tokens = text.inputIds.length;
  const first = text.inputIds.lastIndexOf(imageToken) + 1;
  const behind = Array.from({ length: tokens - first }, (_, i) => first + i);
  const weights = new Float32Array(2 * tokens);
  for (const [row, places] of [behind, labelPlaces(text)].entries())
    for (const place of places) weights[row * tokens + place] = 1 / places.length;
  return weights;
}

/** Whether texts can be read as branches of one beginning, which is the picture. */
const shareBeginning = (texts: readonly EncodedText[]) =>
  texts.length === 1 ||
  (new Set(texts.map(({ inputIds, prefixLength }) => `${inputIds.slice(0, prefixLength)}`)).size === 1 && texts[0].prefixLength > 0);

/**
 * Texts that share their beginning in parts that are no longer than `most` tokens in one row, each with one
 * text at least: the runtime's tables of positions take no longer rows, whatever the positions in them.
 */
export function fittingParts<T extends Pick<EncodedText, 'inputIds' | 'prefixLength'>>(texts: readonly T[], most: number): T[][] {
  const parts: T[][] = [];
  let tokens = 0;
  for (const text of texts) {
    const own = text.inputIds.length - text.prefixLength;
    if (parts.length === 0 || tokens + own > most) {
      parts.push([text]);
      tokens = text.inputIds.length;
    } else {
      parts.at(-1)!.push(text);
      tokens += own;
    }
  }
  return parts;
}

/** Texts that share their beginning as one packed row, and where their tokens stand in it. */
function packedRow(texts: readonly EncodedText[]) {
  const total = texts.reduce((sum, { inputIds }) => sum + inputIds.length, 0);
  // one beginning makes one group, which keeps its order
  const { inputs, rows } = packSamples(
    texts.map((text) => ({ ...text, id: '', images: ['picture'] })),
    total,
  );
  if (rows !== 1) throw new Error(`the texts about a picture were packed into ${rows} rows`);
  let end = 0;
  const places = texts.map(({ inputIds, prefixLength }, i) => {
    const shared = i === 0 ? 0 : prefixLength;
    const start = end - shared;
    end = start + inputIds.length;
    return Array.from(inputIds, (_, t) => (t < shared ? t : start + t));
  });
  return { inputs, places };
}

/** The rows of a matrix of so many columns that stand at `places`. */
export function gatherRows(data: Float32Array | Float64Array, width: number, places: readonly number[]): Rows {
  const rows = new Float32Array(places.length * width);
  for (const [i, place] of places.entries()) rows.set(data.subarray(place * width, (place + 1) * width), i * width);
  return { data: rows, count: places.length, width };
}

/** Losses in the order of the labels, as lists for each text. */
function cutByLabels(losses: Float32Array, texts: readonly EncodedText[]): Float32Array[] {
  let end = 0;
  return texts.map(({ labels }) => {
    const start = end;
    end += labels.filter((label, t) => label !== ignoreIndex && t > 0).length;
    return losses.slice(start, end);
  });
}
