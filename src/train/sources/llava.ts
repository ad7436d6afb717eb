// Batches of LLaVA JSON: encoded, packed conversations with the features of their pictures, or with pixel
// values where the encoder is trained.

import { readTokenizerFiles } from '../../checkpoint/tokenizer-files.ts';
import { conversationBatches } from '../../data/conversations.ts';
import { type DataIndex, type DataSet, onePerGroup, openData } from '../../data/data-set.ts';
import { openFeatureCache, type PictureFile } from '../../data/feature-cache.ts';
import { mixFeatures } from '../../data/feature-mixing.ts';
import { packSamples } from '../../data/packing.ts';
import { float32, type Value } from '../../engine/engine.ts';
import type { ImageProcessorConfig } from '../../images/processor.ts';
import { pixelValuesOf } from '../../pretrained/processor.ts';
import { createRandom } from '../../random.ts';
import { createTokenizer } from '../../text/tokenizer.ts';
import { type BatchSource, packedBatch } from '../batch.ts';

/** Tokens in a packed row: long enough to balance rows well, short enough that attention stays cheap. */
const PACKED_ROW = 384;

/** Pictures that the encoder takes at a time. */
const ENCODED = 32;

/** Features of a frozen encoder. */
export interface FeatureSource {
  /** Of the cache, and who encodes: see `openFeatureCache`. */
  folder: string;
  fingerprint: string;
  /** Numbers in one row of features. */
  width: number;
  /** Largest share of another picture of the batch, 0 to 1. */
  mixup: number;
}

export interface LlavaSource {
  task: 'llava';
  seed: number;
  /** Keeps the orders of stages apart. */
  stage: string;
  /** Folder of the tokenizer. */
  tokenizer: string;
  data: DataIndex;
  template: 'gemma' | 'plain';
  /** Longest sequence in tokens. */
  maxLength: number;
  /** Positions that the language model has. */
  positions: number;
  /** Samples in a batch. */
  batchSize: number;
  /** Tokens that one picture takes. */
  imageTokens: number;
  processor: ImageProcessorConfig;
  /** Side of the pictures that the encoder takes, in pixels. */
  imageSize: number;
  /** Undefined where the encoder is trained: batches have pixel values. */
  features?: FeatureSource;
}

/** Every picture, those of the samples that come first in the files before others. */
function* picturesOf(data: DataSet): Generator<string, void> {
  for (const { images } of onePerGroup(data)) yield* images;
}

/**
 * UserError where a data file has changed since it was indexed; of a batch, one that names the sample or the
 * picture that is wrong.
 */
export async function llavaSource(description: LlavaSource): Promise<BatchSource> {
  const { seed, stage, positions, imageTokens, processor, imageSize, features } = description;
  const files = await readTokenizerFiles(description.tokenizer);
  const data = openData(description.data);
  const batches = conversationBatches({
    data,
    tokenizer: createTokenizer(files.tokenizerJson, files.tokenizerConfig),
    imageTokens,
    template: description.template,
    maxLength: Math.min(description.maxLength, positions),
    batchSize: description.batchSize,
    seed,
    stage,
  });
  const pixelsOf = async (paths: readonly string[], contents?: readonly Uint8Array[]): Promise<Value> =>
    float32(await pixelValuesOf(paths, processor, contents), [paths.length, 3, imageSize, imageSize]);
  const cache =
    features && openFeatureCache({ folder: features.folder, fingerprint: features.fingerprint, size: imageTokens * features.width });
  const missing = cache?.missing(picturesOf(data));
  /** Of batch number `index`. */
  const imageInputs = async (images: readonly string[], index: number): Promise<Record<string, Value>> => {
    if (!cache || !features) return { pixel_values: await pixelsOf(images) };
    const random = createRandom(seed, 'feature mixup', stage, index);
    const mixed = mixFeatures(cache.read(images), images.length, features.mixup, random);
    return { image_features: float32(mixed, [images.length, imageTokens, features.width]) };
  };
  return {
    async batch(index) {
      const packed = packSamples(batches.batch(index), PACKED_ROW, positions);
      const { inputs, ...rest } = packedBatch(packed);
      return { inputs: { ...inputs, ...(await imageInputs(packed.images, index)) }, ...rest };
    },
    async pictures() {
      const pictures: PictureFile[] = [];
      while (missing && pictures.length < ENCODED) {
        const { done, value } = missing.next();
        if (done) break;
        pictures.push(value);
      }
      if (pictures.length === 0) return undefined;
      const pixels = await pixelsOf(
        pictures.map(({ path }) => path),
        pictures.map(({ bytes }) => bytes),
      );
      return { keys: pictures.map(({ key }) => key), pixels };
    },
    async keep(keys, values) {
      if (!cache) throw new Error('there are no features to keep');
      cache.write(keys, values);
    },
    async close() {
      data.close();
      cache?.close();
    },
  };
}
