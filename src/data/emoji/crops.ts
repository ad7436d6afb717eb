// Batches for self-distillation: of each scene two global crops and several local ones, drawn anew with
// other augmentation, and masks for the global ones. Nothing says what the drawings show.

import { float32, int32, type Value } from '../../engine/engine.ts';
import { createRandom, type Random } from '../../random.ts';
import { pixelInputs } from './contrastive.ts';
import type { EmojiGlyphs } from './glyphs.ts';
import { type Augmentation, augmentScene, type PlacedGlyph, randomGround, renderScene, type Scene, sampleScene } from './scene.ts';

/** Range of the area of a crop, as shares of its scene's. */
export type CropScale = readonly [number, number];

export interface CropOptions {
  concepts: readonly number[];
  artists: readonly string[];
  counts: readonly number[];
  /** Side of a scene and of its global crops in pixels. */
  imageSize: number;
  patchSize: number;
  globalScale: CropScale;
  localScale: CropScale;
  /** Local crops of a scene. */
  localCrops: number;
  /** Their side in pixels. */
  localSize: number;
  augmentation: Augmentation;
  /** Chance that a global crop has masked patches, and the range of their share. */
  maskChance: number;
  maskShare: readonly [number, number];
  /** Weight of the loss on patches beside that on class tokens. */
  patchWeight: number;
  mean: readonly number[];
  std: readonly number[];
}

/**
 * A crop about one of the scene's drawings, as a scene of `side` pixels: photographs show something too. What
 * lies beyond the scene's edge is ground, which differs from crop to crop, as the drawings' augmentation
 * does: neither tells that two crops are of one scene.
 */
export function cropScene(
  random: Random,
  scene: Scene,
  glyphs: EmojiGlyphs,
  { about, scale, side, augmentation }: { about: PlacedGlyph; scale: CropScale; side: number; augmentation: Augmentation },
): Scene {
  const [smallest, largest] = scale;
  const window = scene.size * Math.sqrt(smallest + random.uniform() * (largest - smallest));
  // the drawing's center is in the middle half of the crop
  const corner = (center: number) => center - window * (0.25 + 0.5 * random.uniform());
  const [left, top] = [corner(about.x), corner(about.y)];
  const factor = side / window;
  const { glyphs: placed } = augmentScene(random, scene, augmentation);
  return {
    size: side,
    ground: randomGround(random, glyphs, placed),
    glyphs: placed.map((glyph) => ({
      ...glyph,
      x: (glyph.x - left) * factor,
      y: (glyph.y - top) * factor,
      size: glyph.size * factor,
    })),
  };
}

/** Which patches of some crops are masked, a random share or none: [images, patches], 1 for masked. */
function randomMasks(random: Random, images: number, patches: number, { maskChance, maskShare: [least, most] }: CropOptions): Uint8Array {
  const masked = new Uint8Array(images * patches);
  for (let i = 0; i < images; i++) {
    if (random.uniform() >= maskChance) continue;
    const count = Math.round(patches * (least + random.uniform() * (most - least)));
    for (const patch of random.shuffle([...Array(patches).keys()]).slice(0, count)) masked[i * patches + patch] = 1;
  }
  // a batch without any has no loss on patches
  if (!masked.includes(1)) masked[0] = 1;
  return masked;
}

/**
 * The inputs of `selfDistillationLoss` (models/self-distillation.ts) for `scenes` scenes: a pure function of
 * seed and `key`, which names the batch. First come the first crops of all scenes, then the second ones, and
 * so on.
 */
export function cropBatch(seed: number, key: string, scenes: number, glyphs: EmojiGlyphs, options: CropOptions): Record<string, Value> {
  const { imageSize, patchSize, concepts, artists, counts, localCrops, augmentation, mean, std } = options;
  const drawn = Array.from({ length: scenes }, (_, i) => {
    const random = createRandom(seed, 'self-distillation', key, i);
    const scene = sampleScene(random, glyphs, { concepts, artists, counts, size: imageSize });
    return { random, scene, about: random.pick(scene.glyphs) };
  });
  const crops = (scale: CropScale, side: number, each: number) => {
    const rendered = Array.from({ length: each }, () =>
      drawn.map(({ random, scene, about }) => renderScene(cropScene(random, scene, glyphs, { about, scale, side, augmentation }), glyphs)),
    );
    return pixelInputs(rendered.flat(), side, mean, std);
  };
  const patches = Math.floor(imageSize / patchSize) ** 2;
  const masked = randomMasks(createRandom(seed, 'masks', key), 2 * scenes, patches, options);
  const maskedRows = [...masked.keys()].filter((row) => masked[row] === 1);
  const locals = localCrops * scenes;
  // a scene has two pairs of global crops, and two pairs with each local one
  const pairs = 2 * scenes + 2 * locals;
  return {
    global_pixels: crops(options.globalScale, imageSize, 2),
    local_pixels: crops(options.localScale, options.localSize, localCrops),
    masked: { dtype: 'bool', dims: [2 * scenes, patches], data: masked },
    masked_rows: int32(maskedRows, [maskedRows.length]),
    global_target: int32(
      Array.from({ length: 2 * scenes }, (_, i) => (i + scenes) % (2 * scenes)),
      [2 * scenes],
    ),
    local_targets: int32(
      Array.from({ length: 2 * locals }, (_, i) => (i % scenes) + (i < locals ? 0 : scenes)),
      [2, locals],
    ),
    class_scale: float32([1 / pairs], []),
    patch_scale: float32([options.patchWeight / maskedRows.length], []),
  };
}
