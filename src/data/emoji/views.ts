// Batches for self-distillation: of each scene two global views, the same drawings in other places and with
// other augmentation, local crops of single drawings, and masks for the global views. They say where the
// drawings are, and not what they show.

import { float32, int32, type Value } from '../../engine/engine.ts';
import { createRandom, type Random } from '../../random.ts';
import { pixelInputs, regionSlots, regionWeights, singlePatchWeights } from './contrastive.ts';
import type { EmojiGlyphs } from './glyphs.ts';
import { type Augmentation, augmentScene, type PlacedGlyph, rearrangeScene, renderScene, type Scene, sampleScene } from './scene.ts';

export interface ViewOptions {
  concepts: readonly number[];
  artists: readonly string[];
  counts: readonly number[];
  /** Side of a scene and of its global views in pixels. */
  imageSize: number;
  patchSize: number;
  /** Local crops of a scene, their side in pixels, and the range of their area as shares of the scene's. */
  localCrops: number;
  localSize: number;
  localScale: readonly [number, number];
  augmentation: Augmentation;
  /** Chance that a global view has masked patches, and the range of their share. */
  maskChance: number;
  maskShare: readonly [number, number];
  /**
   * Chance that the student reads a drawing from one of its patches instead of the mean of all, as the
   * teacher does; chance that it reads a local crop from its class token.
   */
  singlePatchChance: number;
  classTokenChance: number;
  /** Weight of the loss on masked patches beside that on drawings. */
  ibotWeight: number;
  mean: readonly number[];
  std: readonly number[];
}

/** A crop, as a scene, and the drawing that it is about. */
export interface Crop {
  scene: Scene;
  subject: PlacedGlyph;
}

/**
 * A crop of `side` pixels about the drawing number `about` of a scene, whose center is in the middle half of
 * it. Where the scene ends, its ground goes on.
 */
export function cropScene(
  random: Random,
  scene: Scene,
  about: number,
  { side, scale }: { side: number; scale: readonly [number, number] },
): Crop {
  const [smallest, largest] = scale;
  const window = scene.size * Math.sqrt(smallest + random.uniform() * (largest - smallest));
  const corner = (center: number) => center - window * (0.25 + 0.5 * random.uniform());
  const { x, y } = scene.glyphs[about];
  const [left, top] = [corner(x), corner(y)];
  const factor = side / window;
  const glyphs = scene.glyphs.map((glyph) => ({
    ...glyph,
    x: (glyph.x - left) * factor,
    y: (glyph.y - top) * factor,
    size: glyph.size * factor,
  }));
  return { scene: { size: side, ground: scene.ground, glyphs }, subject: glyphs[about] };
}

/** Which patches of some views are masked, a random share or none: [views, patches], 1 for masked. */
function randomMasks(random: Random, views: number, patches: number, { maskChance, maskShare: [least, most] }: ViewOptions): Uint8Array {
  const masked = new Uint8Array(views * patches);
  for (let i = 0; i < views; i++) {
    if (random.uniform() >= maskChance) continue;
    const count = Math.round(patches * (least + random.uniform() * (most - least)));
    for (const patch of random.shuffle([...Array(patches).keys()]).slice(0, count)) masked[i * patches + patch] = 1;
  }
  // a batch without any has no loss on patches
  if (!masked.includes(1)) masked[0] = 1;
  return masked;
}

/** How drawings are read from the patches of global views, and which places have a drawing. */
function globalReadings(views: readonly Scene[], random: Random, { patchSize, singlePatchChance }: ViewOptions): Record<string, Value> {
  const patches = Math.floor(views[0].size / patchSize) ** 2;
  const student = new Float32Array(views.length * regionSlots * patches);
  const teacher = new Float32Array(student.length);
  const places: number[] = [];
  views.forEach(({ size, glyphs }, i) => {
    glyphs.forEach((glyph, slot) => {
      const place = i * regionSlots + slot;
      places.push(place);
      const whole = regionWeights(glyph, size, patchSize);
      teacher.set(whole, place * patches);
      student.set(random.uniform() < singlePatchChance ? singlePatchWeights(random, glyph, size, patchSize) : whole, place * patches);
    });
  });
  const dims = [views.length, regionSlots, patches];
  return {
    global_reading: float32(student, dims),
    teacher_reading: float32(teacher, dims),
    drawings: int32(places, [places.length]),
    // the views of the second half have the drawings of the first, in the same order
    global_target: int32(
      places.map((_, i) => (i + places.length / 2) % places.length),
      [places.length],
    ),
  };
}

/** How local crops are read: weights of their rows, the class token's first. [crops, 1 + patches]. */
function localReading(crops: readonly Crop[], random: Random, { patchSize, classTokenChance, singlePatchChance }: ViewOptions): Value {
  const rows = 1 + Math.floor(crops[0].scene.size / patchSize) ** 2;
  const weights = new Float32Array(crops.length * rows);
  crops.forEach(({ scene: { size }, subject }, i) => {
    const isSingle = random.uniform() < singlePatchChance;
    if (random.uniform() < classTokenChance) weights[i * rows] = 1;
    else
      weights.set(isSingle ? singlePatchWeights(random, subject, size, patchSize) : regionWeights(subject, size, patchSize), i * rows + 1);
  });
  return float32(weights, [crops.length, rows]);
}

/**
 * The inputs of `selfDistillationLoss` (models/self-distillation.ts) for `scenes` scenes: a pure function of
 * seed and `key`, which names the batch. First come the first views of all scenes, then the second ones; and
 * so do local crops.
 */
export function viewBatch(seed: number, key: string, scenes: number, glyphs: EmojiGlyphs, options: ViewOptions): Record<string, Value> {
  const { imageSize, patchSize, concepts, artists, counts, localCrops, localSize: side, localScale: scale, mean, std } = options;
  const drawn = Array.from({ length: scenes }, (_, i) => {
    const random = createRandom(seed, 'self-distillation', key, i);
    return { random, scene: sampleScene(random, glyphs, { concepts, artists, counts, size: imageSize }) };
  });
  const anew = (random: Random, scene: Scene) => augmentScene(random, rearrangeScene(random, scene, glyphs), options.augmentation);
  const views = [0, 1].flatMap(() => drawn.map(({ random, scene }) => anew(random, scene)));
  // index of a scene's first drawing among all drawings of the first views
  const firsts = drawn.map((_, i) => drawn.slice(0, i).reduce((sum, { scene }) => sum + scene.glyphs.length, 0));
  const count = firsts[scenes - 1] + drawn[scenes - 1].scene.glyphs.length;
  const locals = Array.from({ length: localCrops }, () =>
    drawn.map(({ random, scene }, i) => {
      const about = random.integer(scene.glyphs.length);
      return { target: firsts[i] + about, ...cropScene(random, anew(random, scene), about, { side, scale }) };
    }),
  ).flat();
  const pixels = (pictures: readonly Scene[], size: number) =>
    pixelInputs(
      pictures.map((picture) => renderScene(picture, glyphs)),
      size,
      mean,
      std,
    );
  const patches = Math.floor(imageSize / patchSize) ** 2;
  const masked = randomMasks(createRandom(seed, 'masks', key), views.length, patches, options);
  const maskedRows = [...masked.keys()].filter((row) => masked[row] === 1);
  const reading = createRandom(seed, 'reading', key);
  return {
    global_pixels: pixels(views, imageSize),
    local_pixels: pixels(
      locals.map(({ scene }) => scene),
      side,
    ),
    ...globalReadings(views, reading, options),
    local_reading: localReading(locals, reading, options),
    local_targets: int32([...locals.map(({ target }) => target), ...locals.map(({ target }) => count + target)], [2, locals.length]),
    masked: { dtype: 'bool', dims: [views.length, patches], data: masked },
    masked_rows: int32(maskedRows, [maskedRows.length]),
    // a drawing has two pairs of global views, a local crop two
    dino_scale: float32([1 / (2 * count + 2 * locals.length)], []),
    ibot_scale: float32([options.ibotWeight / maskedRows.length], []),
  };
}
