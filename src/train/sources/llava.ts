// Batches of LLaVA JSON: encoded, packed conversations with the features of their pictures, or with pixel
// values where the encoder is trained.

import { concatFloat32 } from '../../arrays.ts';
import { readTokenizerFiles } from '../../checkpoint/tokenizer-files.ts';
import { conversationBatches } from '../../data/conversations.ts';
import { type DataIndex, type DataSet, onePerGroup, openData } from '../../data/data-set.ts';
import { type FeatureType, openFeatureCache, type PictureFile } from '../../data/feature-cache.ts';
import { mixFeatures } from '../../data/feature-mixing.ts';
import { SampleError, type SampleFault } from '../../data/llava-json.ts';
import { type EncodedSample, packSamples } from '../../data/packing.ts';
import { float32, type Value } from '../../engine/engine.ts';
import { UserError } from '../../errors.ts';
import type { ImageProcessorConfig } from '../../images/processor.ts';
import { createRandom } from '../../random.ts';
import { createTokenizer } from '../../text/tokenizer.ts';
import { type BatchSource, packedBatch } from '../batch.ts';
import { openPictureReader } from '../picture-threads.ts';
import { ThreadDied } from '../thread.ts';

/** Pictures that the encoder takes at a time. */
export const ENCODED = 32;

/** Features of a frozen encoder. */
export interface FeatureSource {
  /** Of the cache, and who encodes: see `openFeatureCache`. */
  folder: string;
  fingerprint: string;
  dtype: FeatureType;
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
  /** Tokens in a packed row; a longer sample has a row of its own. */
  rowLength: number;
  /** Positions that the language model has. */
  positions: number;
  /** Samples in a batch. */
  batchSize: number;
  /** See `SampleOrder`. */
  groupByModality?: { accumulation: number };
  /** Tokens that one picture takes. */
  imageTokens: number;
  processor: ImageProcessorConfig;
  /** Side of the pictures that the encoder takes, in pixels. */
  imageSize: number;
  /** Threads that decode pictures: see `openPictureReader`. */
  pictureThreads: number;
  /** Undefined where the encoder runs at each step: batches have pixel values. */
  features?: FeatureSource;
  /** Of the pictures without features, which this process encodes: one share of `size`. */
  encodes: { rank: number; size: number };
  /** Whether a bad sample is an error, or left out. */
  onBadSample: 'error' | 'skip';
  /** Pictures that are known to be bad, by path, and why: they are not opened again. */
  badPictures: ReadonlyMap<string, string>;
}

/** What is wrong with single pictures, by path. */
type BadPictures = Map<string, string>;

/**
 * Every picture of this process's share, those of the samples that come first in the files before others; of
 * bad samples none. `tell` gets the number of the sample that is looked at.
 */
function* picturesOf(
  data: DataSet,
  bad: BadPictures,
  { rank, size }: LlavaSource['encodes'],
  tell: (number: number) => void,
): Generator<string, void> {
  let group = 0;
  for (const { images, number } of onePerGroup(data)) {
    tell(number);
    if (group++ % size === rank && !images.some((path) => bad.has(path))) yield* images;
  }
}

/** Runs `use` on each picture by itself; of those that are bad, what is wrong is added to `bad`. */
async function eachPicture<T>(paths: readonly string[], bad: BadPictures, use: (path: string, i: number) => T | Promise<T>): Promise<T[]> {
  const results = await Promise.allSettled(paths.map(async (path, i) => use(path, i)));
  return results.flatMap((result, i) => {
    if (result.status === 'fulfilled') return [result.value];
    if (!(result.reason instanceof UserError) || result.reason instanceof ThreadDied) throw result.reason;
    bad.set(paths[i], result.reason.message.replace(/\.$/, ''));
    return [];
  });
}

/** The error of a sample that has a bad picture or that `encode` refuses; its file is named. */
function encodeSample(data: DataSet, number: number, encode: () => EncodedSample, bad: BadPictures): EncodedSample {
  const faultOf = (sample: string, reason: string, image?: string) =>
    new SampleError({ ...data.place(number), sample, reason, ...(image === undefined ? {} : { image }) });
  let encoded: EncodedSample;
  try {
    encoded = encode();
  } catch (error) {
    if (error instanceof SampleError || !(error instanceof UserError)) throw error;
    const { id } = data.sample(number);
    throw faultOf(id, error.message.replace(`sample ${JSON.stringify(id)}: `, ''));
  }
  const image = encoded.images.find((path) => bad.has(path));
  if (image !== undefined) throw faultOf(encoded.id, bad.get(image)!, image);
  return encoded;
}

/**
 * UserError where a data file has changed since it was indexed; of a batch, one that names file, sample and
 * picture of what is wrong. Where bad samples are skipped, a batch goes on without them; one of which nothing
 * is left has the samples of the next.
 */
export async function llavaSource(description: LlavaSource): Promise<BatchSource> {
  const { seed, stage, positions, imageTokens, processor, imageSize, features, onBadSample } = description;
  const files = await readTokenizerFiles(description.tokenizer);
  const data = openData(description.data);
  const batches = conversationBatches({
    data,
    tokenizer: createTokenizer(files.tokenizerJson, files.tokenizerConfig),
    imageTokens,
    template: description.template,
    maxLength: Math.min(description.maxLength, positions),
    batchSize: description.batchSize,
    groupByModality: description.groupByModality,
    seed,
    stage,
  });
  const cache =
    features &&
    openFeatureCache({
      folder: features.folder,
      fingerprint: features.fingerprint,
      size: imageTokens * features.width,
      dtype: features.dtype,
    });
  const reader = openPictureReader(processor, description.pictureThreads);
  const bad: BadPictures = new Map(description.badPictures);
  let lookedAt = 0;
  const all = picturesOf(data, bad, description.encodes, (number) => {
    lookedAt = number;
  });
  const missing = cache?.missing(all, (path, { message }) => bad.set(path, message));
  const pixelsOf = (paths: readonly string[], contents?: readonly Uint8Array[]) =>
    eachPicture(paths, bad, (path, i) => reader.read(path, contents?.[i]));
  const pixelValue = (pixels: readonly Float32Array[]): Value => float32(concatFloat32(pixels), [pixels.length, 3, imageSize, imageSize]);
  const featuresOf = async (path: string): Promise<Float32Array> => {
    try {
      return cache!.read([path]);
    } catch (error) {
      // it was another process's to encode, which has left it out: what is wrong with it is found here
      if (description.encodes.size > 1) await reader.read(path);
      throw error;
    }
  };
  /** Of batch number `index`; undefined where a picture is bad, which `bad` then has. */
  const imageInputs = async (images: readonly string[], index: number): Promise<Record<string, Value> | undefined> => {
    const rows = await (cache ? eachPicture(images, bad, featuresOf) : pixelsOf(images));
    if (rows.length < images.length) return undefined;
    if (!features) return { pixel_values: pixelValue(rows) };
    const random = createRandom(seed, 'feature mixup', stage, index);
    const mixed = mixFeatures(concatFloat32(rows), images.length, features.mixup, random);
    return { image_features: float32(mixed, [images.length, imageTokens, features.width]) };
  };
  /** Samples of batch number `index` that are good, as far as is known; bad ones are added to `skipped`. */
  const samplesOf = (index: number, skipped: SampleFault[]): EncodedSample[] =>
    batches.batch(index, (number, encode) => {
      try {
        return encodeSample(data, number, encode, bad);
      } catch (error) {
        if (onBadSample === 'error' || !(error instanceof SampleError)) throw error;
        skipped.push(error.fault);
        return undefined;
      }
    });
  /** A bad picture that is met before any batch ends the stage at once. */
  const refuseBadPictures = () => {
    if (onBadSample === 'skip' || bad.size === 0) return;
    for (let number = 0; number < data.length; number++) {
      const { id, images } = data.sample(number);
      const image = images.find((path) => bad.has(path));
      if (image !== undefined) throw new SampleError({ ...data.place(number), sample: id, image, reason: bad.get(image)! });
    }
  };
  return {
    async batch(index) {
      const skipped: SampleFault[] = [];
      for (let next = index; next < index + data.length; ) {
        const before = skipped.length;
        const samples = samplesOf(next, skipped);
        if (samples.length === 0) {
          next++;
          continue;
        }
        const packed = packSamples(samples, description.rowLength, positions);
        const images = await imageInputs(packed.images, index);
        if (images) {
          const { inputs, ...rest } = packedBatch(packed);
          return { inputs: { ...inputs, ...images }, ...rest, ...(skipped.length > 0 ? { skipped } : {}) };
        }
        // once more, now that the bad pictures are known
        skipped.length = before;
      }
      throw new UserError(`stage ${stage}: not one of its samples can be trained on; the first: ${skipped[0].file}: ${skipped[0].reason}`);
    },
    async pictures() {
      while (missing) {
        const pictures: PictureFile[] = [];
        while (pictures.length < ENCODED) {
          const { done, value } = missing.next();
          if (done) break;
          pictures.push(value);
        }
        const paths = pictures.map(({ path }) => path);
        const pixels = await pixelsOf(
          paths,
          pictures.map(({ bytes }) => bytes),
        );
        refuseBadPictures();
        if (pixels.length > 0) {
          const keys = pictures.filter(({ path }) => !bad.has(path)).map(({ key }) => key);
          return { keys, pixels: pixelValue(pixels), done: (lookedAt + 1) / data.length };
        }
        if (pictures.length === 0) return undefined;
      }
      return undefined;
    },
    async keep(keys, values) {
      if (!cache) throw new Error('there are no features to keep');
      cache.write(keys, values);
    },
    async close() {
      data.close();
      cache?.close();
      await reader.close();
    },
  };
}
