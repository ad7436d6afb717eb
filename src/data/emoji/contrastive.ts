// Batches for contrastive pretraining: scenes drawn afresh at every step, with the names of their drawings
// and a caption. Region weights say which patches each drawing covers.

import { float32, int32, type Value } from '../../engine/engine.ts';
import { createRandom, type Random } from '../../random.ts';
import type { Tokenizer } from '../../text/tokenizer.ts';
import type { EmojiGlyphs } from './glyphs.ts';
import { captionOf } from './questions.ts';
import { type Augmentation, augmentScene, type PlacedGlyph, renderScene, type Scene, sampleScene } from './scene.ts';

/** Places for drawings in a scene. */
export const regionSlots = 4;

/** Scenes, and how their drawings are read from patches. */
export interface ReadScenes {
  concepts: readonly number[];
  artists: readonly string[];
  counts: readonly number[];
  imageSize: number;
  patchSize: number;
  augmentation: Augmentation;
  /** Chance that a drawing is read from one patch instead of the mean of all that it covers. */
  singlePatchChance: number;
  /** Normalization of pixels in [0, 1], a channel each. */
  mean: readonly number[];
  std: readonly number[];
}

export interface ContrastiveOptions extends ReadScenes {
  /** Weight of the caption loss beside the region loss. */
  captionWeight: number;
}

/** Share of each patch that a drawing's box covers, normalized to sum to one: [patches]. */
export function regionWeights({ x, y, size }: PlacedGlyph, imageSize: number, patchSize: number): Float32Array {
  const side = Math.floor(imageSize / patchSize);
  const overlap = (center: number, index: number) =>
    Math.max(0, Math.min(center + size / 2, (index + 1) * patchSize) - Math.max(center - size / 2, index * patchSize));
  const weights = new Float32Array(side * side);
  let total = 0;
  for (let row = 0; row < side; row++)
    for (let column = 0; column < side; column++) {
      const area = overlap(x, column) * overlap(y, row);
      weights[row * side + column] = area;
      total += area;
    }
  return weights.map((area) => area / total);
}

/**
 * One patch that the drawing covers at least by half, as weights: whoever reads it must find all of the
 * drawing's identity there.
 */
export function singlePatchWeights(random: Random, glyph: PlacedGlyph, imageSize: number, patchSize: number): Float32Array {
  const weights = regionWeights(glyph, imageSize, patchSize);
  const largest = weights.reduce((a, b) => Math.max(a, b));
  const covered = [...weights.keys()].filter((patch) => weights[patch] >= largest / 2);
  const single = new Float32Array(weights.length);
  single[random.pick(covered)] = 1;
  return single;
}

/** How drawings are read, as weights of patches: from one patch by chance, else from all that they cover. */
export function readerOf(random: Random, { singlePatchChance, imageSize, patchSize }: ReadScenes): (glyph: PlacedGlyph) => Float32Array {
  return (glyph) =>
    random.uniform() < singlePatchChance
      ? singlePatchWeights(random, glyph, imageSize, patchSize)
      : regionWeights(glyph, imageSize, patchSize);
}

/** Scenes that `seed` and `key` name. */
export function augmentedScenes(seed: number, key: readonly string[], count: number, glyphs: EmojiGlyphs, options: ReadScenes): Scene[] {
  const { concepts, artists, counts, imageSize: size, augmentation } = options;
  return Array.from({ length: count }, (_, i) => {
    const random = createRandom(seed, ...key, i);
    return augmentScene(random, sampleScene(random, glyphs, { concepts, artists, counts, size }), augmentation);
  });
}

/**
 * `<bos> text <eos>` rows, padded, with the inputs of the text tower under `prefix`. A text is cut so that
 * its row has no more than `limit` tokens.
 */
export function textInputs(tokenizer: Tokenizer, prefix: string, texts: readonly string[], limit = Infinity): Record<string, Value> {
  const encoded = texts.map((text) => [tokenizer.bosTokenId, ...tokenizer.encode(text).slice(0, limit - 2), tokenizer.eosTokenId]);
  const length = Math.max(...encoded.map((ids) => ids.length));
  const shape = [texts.length, length];
  const ids = new Int32Array(texts.length * length).fill(tokenizer.padTokenId);
  const mask = new Int32Array(texts.length * length);
  const end = new Uint8Array(texts.length * length);
  encoded.forEach((row, i) => {
    ids.set(row, i * length);
    mask.fill(1, i * length, i * length + row.length);
    end[i * length + row.length - 1] = 1;
  });
  return {
    [`${prefix}_ids`]: int32(ids, shape),
    [`${prefix}_mask`]: int32(mask, shape),
    [`${prefix}_positions`]: int32(
      Array.from({ length }, (_, t) => t),
      [1, length],
    ),
    [`${prefix}_end`]: { dtype: 'bool', dims: shape, data: end },
  };
}

/** Pixels of 8-bit RGB pictures of one size, normalized: float32 [images, 3, size, size]. */
export function pixelInputs(images: readonly { data: Uint8Array }[], size: number, mean: readonly number[], std: readonly number[]): Value {
  const plane = size * size;
  const pixels = new Float32Array(images.length * 3 * plane);
  images.forEach(({ data }, i) => {
    for (let channel = 0; channel < 3; channel++) {
      const scale = 1 / (255 * std[channel]);
      const shift = mean[channel] / std[channel];
      const start = (i * 3 + channel) * plane;
      for (let p = 0; p < plane; p++) pixels[start + p] = data[p * 3 + channel] * scale - shift;
    }
  });
  return float32(pixels, [images.length, 3, size, size]);
}

/**
 * Inputs that say which patches each scene's drawings are read from (by default all that they cover), and the
 * label of each.
 */
export function regionInputs(
  scenes: readonly Scene[],
  labelOf: (glyph: PlacedGlyph) => number,
  imageSize: number,
  patchSize: number,
  weightsOf: (glyph: PlacedGlyph) => Float32Array = (glyph) => regionWeights(glyph, imageSize, patchSize),
): Record<string, Value> {
  const patches = Math.floor(imageSize / patchSize) ** 2;
  const weights = new Float32Array(scenes.length * regionSlots * patches);
  const rows: number[] = [];
  const labels: number[] = [];
  scenes.forEach(({ glyphs }, i) => {
    glyphs.forEach((glyph, slot) => {
      weights.set(weightsOf(glyph), (i * regionSlots + slot) * patches);
      rows.push(i * regionSlots + slot);
      labels.push(labelOf(glyph));
    });
  });
  return {
    region_weights: float32(weights, [scenes.length, regionSlots, patches]),
    region_rows: int32(rows, [rows.length]),
    region_labels: int32(labels, [labels.length]),
  };
}

/**
 * The inputs of train/objectives.ts contrastiveObjective for one batch: a pure function of seed and `key`,
 * which names it.
 */
export function contrastiveBatch(
  seed: number,
  key: string,
  batchSize: number,
  glyphs: EmojiGlyphs,
  tokenizer: Tokenizer,
  options: ContrastiveOptions,
): Record<string, Value> {
  const { imageSize, patchSize } = options;
  const scenes = augmentedScenes(seed, ['contrastive', key], batchSize, glyphs, options);
  const shown = [...new Set(scenes.flatMap((scene) => scene.glyphs.map(({ concept }) => concept)))];
  const index = new Map(shown.map((concept, i) => [concept, i]));
  const reader = readerOf(createRandom(seed, 'pooling', key), options);
  const regions = regionInputs(scenes, ({ concept }) => index.get(concept)!, imageSize, patchSize, reader);
  return {
    pixel_values: pixelInputs(
      scenes.map((scene) => renderScene(scene, glyphs)),
      imageSize,
      options.mean,
      options.std,
    ),
    ...regions,
    region_scale: float32([1 / regions.region_rows.data.length], []),
    ...textInputs(
      tokenizer,
      'name',
      shown.map((concept) => glyphs.concepts[concept].name),
    ),
    ...textInputs(
      tokenizer,
      'caption',
      scenes.map((scene) => captionOf(scene, glyphs)),
    ),
    caption_labels: int32(
      scenes.map((_, i) => i),
      [batchSize],
    ),
    // the mean of both directions, weighed against the mean over regions
    caption_scale: float32([options.captionWeight / (2 * batchSize)], []),
  };
}
