// A LLaVA as alignment looks at it: encoder, connector and language model one by one, with what comes out
// of each.

import { concatFloat32 } from '../arrays.ts';
import { readTokenizerFiles } from '../checkpoint/tokenizer-files.ts';
import { type EncodedSample, packSamples } from '../data/packing.ts';
import { type Engine, float32 } from '../engine/engine.ts';
import { createOrtEngine } from '../engine/ort.ts';
import { type ImageProcessorConfig, imageProcessorConfig } from '../images/processor.ts';
import { imageSize, imageTokenCount, type LlavaConfig, llavaConfigSchema, llavaParameters, visionFeatureSize } from '../models/llava.ts';
import { compileGraph, connectorGraph, encoderGraph, scoringGraph } from '../models/programs.ts';
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
  dispose(): Promise<void>;
}

export interface OpenOptions {
  engine?: Engine;
  quantize?: Quantization;
}

/** Pictures that go through the encoder at a time. */
const TOGETHER = 16;

/**
 * Opens the LLaVA in the Hugging Face folder `dir`. UserError, naming the file, for what is wrong with it.
 */
export function openAlignmentModel(dir: string, { engine = createOrtEngine(), quantize }: OpenOptions = {}): Promise<AlignmentModel> {
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
      scoring: await compileGraph(engine, scoringGraph(config, options), weights.values),
    });
    return alignmentModel({ config, tokenizer, processor }, await compile().finally(weights.release));
  });
}

interface Programs {
  encoder: Awaited<ReturnType<typeof compileGraph<keyof ReturnType<typeof encoderGraph>['inputs'], 'features'>>>;
  connector: Awaited<ReturnType<typeof compileGraph<keyof ReturnType<typeof connectorGraph>['inputs'], 'rows'>>>;
  scoring: Awaited<ReturnType<typeof compileGraph<string, string>>>;
}

function alignmentModel(
  parts: Pick<AlignmentModel, 'config' | 'tokenizer' | 'processor'>,
  { encoder, connector, scoring }: Programs,
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
  return {
    ...parts,
    layers: config.text_config.num_hidden_layers,
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
      if (!shareBeginning(texts)) return (await Promise.all(texts.map((text) => this.read(imageRows, [text], states)))).flat();
      const { inputs, places } = packedRow(texts);
      const wanted = ['losses', ...states.map((layer) => `hidden_states.${layer}`)];
      const rows = float32(stackRows([imageRows]).data, [count, hidden]);
      const outputs = await scoring.run({ ...inputs, image_rows: rows }, { outputs: wanted });
      const losses = cutByLabels(outputs.losses.data as Float32Array, texts);
      const stateOf = (layer: number, text: number) =>
        gatherRows(outputs[`hidden_states.${layer}`].data as Float32Array, hidden, places[text]);
      return texts.map((_, i) => ({ losses: losses[i], states: new Map(states.map((layer) => [layer, stateOf(layer, i)])) }));
    },
    async dispose() {
      for (const program of [encoder, connector, scoring]) await program.dispose();
    },
  };
}

/** Whether texts can be read as branches of one beginning, which is the picture. */
const shareBeginning = (texts: readonly EncodedText[]) =>
  texts.length === 1 ||
  (new Set(texts.map(({ inputIds, prefixLength }) => `${inputIds.slice(0, prefixLength)}`)).size === 1 && texts[0].prefixLength > 0);

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
