import { beforeAll, describe, expect, test } from 'vitest';
import { createRandom } from '../../random.ts';
import { type CropOptions, cropBatch, cropScene } from './crops.ts';
import { type EmojiGlyphs, loadEmojiGlyphs, sharedConcepts } from './glyphs.ts';
import { defaultAugmentation, sampleScene } from './scene.ts';

let glyphs: EmojiGlyphs;
let options: CropOptions;
beforeAll(async () => {
  glyphs = await loadEmojiGlyphs();
  options = {
    concepts: sharedConcepts(glyphs).slice(0, 40),
    artists: glyphs.artists.slice(0, 2),
    counts: [1, 4],
    imageSize: 32,
    patchSize: 8,
    globalScale: [0.3, 1],
    localScale: [0.05, 0.3],
    localCrops: 3,
    localSize: 16,
    augmentation: defaultAugmentation,
    maskChance: 0.5,
    maskShare: [0.1, 0.5],
    patchWeight: 2,
    mean: [0.5, 0.4, 0.3],
    std: [0.2, 0.25, 0.3],
  };
});

describe('cropScene', () => {
  test('shows what it is about in the middle half, enlarged as the window is small', () => {
    for (let i = 0; i < 200; i++) {
      const random = createRandom(1, 'crop', i);
      const scene = sampleScene(random, glyphs, { concepts: options.concepts, artists: options.artists, counts: [3] });
      const about = scene.glyphs[i % 3];
      const augmentation = { ...defaultAugmentation, scale: [1, 1] as const };
      const crop = cropScene(random, scene, glyphs, { about, scale: [0.25, 0.64], side: 48, augmentation });
      const shown = crop.glyphs[i % 3];
      expect(shown.concept).toBe(about.concept);
      for (const center of [shown.x, shown.y]) expect(Math.abs(center - 24)).toBeLessThanOrEqual(12);
      // a window of half to four fifths of 96 pixels, shown in 48
      const factor = shown.size / about.size;
      expect(factor).toBeGreaterThanOrEqual(48 / (0.8 * 96) - 1e-9);
      expect(factor).toBeLessThanOrEqual(1 + 1e-9);
      // all drawings stay where they were to each other
      const [a, b] = [scene.glyphs[0], scene.glyphs[2]];
      expect(crop.glyphs[2].x - crop.glyphs[0].x).toBeCloseTo(factor * (b.x - a.x), 9);
    }
  });
});

describe('cropBatch', () => {
  const scenes = 5;
  const batch = (key: string) => cropBatch(7, key, scenes, glyphs, options);

  test('is a function of its key', () => {
    expect(batch('a')).toEqual(batch('a'));
    expect(batch('a').global_pixels).not.toEqual(batch('b').global_pixels);
  });

  test('pairs each crop with the global ones of its scene that it is not', () => {
    const { global_pixels, local_pixels, global_target, local_targets, class_scale } = batch('a');
    expect(global_pixels.dims).toEqual([10, 3, 32, 32]);
    expect(local_pixels.dims).toEqual([15, 3, 16, 16]);
    expect([...global_target.data]).toEqual([5, 6, 7, 8, 9, 0, 1, 2, 3, 4]);
    const each = [0, 1, 2, 3, 4, 0, 1, 2, 3, 4, 0, 1, 2, 3, 4];
    expect([...local_targets.data]).toEqual([...each, ...each.map((scene) => scene + 5)]);
    expect(class_scale.data[0]).toBeCloseTo(1 / (10 + 30), 8);
  });

  test('masks a share of some crops, and always something', () => {
    const rows = Array.from({ length: 40 }, (_, i) => {
      const { masked, masked_rows, patch_scale } = batch(`${i}`);
      const flat = [...(masked.data as Uint8Array)];
      expect([...masked_rows.data]).toEqual([...flat.keys()].filter((row) => flat[row] === 1));
      expect(patch_scale.data[0]).toBeCloseTo(2 / masked_rows.data.length, 7);
      return Array.from({ length: 10 }, (_, crop) => flat.slice(16 * crop, 16 * crop + 16).filter(Boolean).length);
    }).flat();
    const some = rows.filter((count) => count > 0);
    expect(some.length / rows.length).toBeGreaterThan(0.42);
    expect(some.length / rows.length).toBeLessThan(0.58);
    expect(Math.min(...some)).toBe(2);
    expect(Math.max(...some)).toBe(8);
    expect(cropBatch(1, 'none', 2, glyphs, { ...options, maskChance: 0 }).masked_rows.data.length).toBe(1);
  });
});
