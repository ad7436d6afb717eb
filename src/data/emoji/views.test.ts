import { beforeAll, describe, expect, test } from 'vitest';
import type { Value } from '../../engine/engine.ts';
import { createRandom } from '../../random.ts';
import { type EmojiGlyphs, loadEmojiGlyphs, sharedConcepts } from './glyphs.ts';
import { defaultAugmentation, rearrangeScene, type Scene, sampleScene } from './scene.ts';
import { cropScene, type ViewOptions, viewBatch } from './views.ts';

let glyphs: EmojiGlyphs;
let options: ViewOptions;
beforeAll(async () => {
  glyphs = await loadEmojiGlyphs();
  options = {
    concepts: sharedConcepts(glyphs).slice(0, 40),
    artists: glyphs.artists.slice(0, 2),
    counts: [1, 4],
    imageSize: 32,
    patchSize: 8,
    localCrops: 3,
    localSize: 16,
    localScale: [0.05, 0.3],
    augmentation: defaultAugmentation,
    maskChance: 0.5,
    maskShare: [0.1, 0.5],
    singlePatchChance: 0.5,
    classTokenChance: 0.25,
    ibotWeight: 2,
    mean: [0.5, 0.4, 0.3],
    std: [0.2, 0.25, 0.3],
  };
});

const sceneOf = (seed: number, counts: readonly number[]): Scene =>
  sampleScene(createRandom(seed, 'scene'), glyphs, { concepts: options.concepts, artists: options.artists, counts });

test('a scene is rearranged: the same drawings in their order, each inside another cell', () => {
  const cells = new Set<string>();
  for (let i = 0; i < 50; i++) {
    const scene = sceneOf(i, [3]);
    const anew = rearrangeScene(createRandom(i, 'anew'), scene, glyphs);
    const names = ({ glyphs }: Scene) => glyphs.map(({ concept, artist }) => [concept, artist]);
    expect(names(anew)).toEqual(names(scene));
    expect(new Set(anew.glyphs.map(({ cell }) => cell)).size).toBe(3);
    cells.add(anew.glyphs.map(({ cell }) => cell).join());
    for (const { cell, x, y, size } of anew.glyphs) {
      expect(Math.abs(x - (24 + 48 * (cell % 2)))).toBeLessThanOrEqual(24 - size / 2);
      expect(Math.abs(y - (24 + 48 * Math.floor(cell / 2)))).toBeLessThanOrEqual(24 - size / 2);
    }
  }
  // of 24 orders
  expect(cells.size).toBeGreaterThan(15);
});

test('a crop shows what it is about in the middle half, enlarged as the window is small', () => {
  for (let i = 0; i < 200; i++) {
    const scene = sceneOf(i, [3]);
    const { scene: crop, subject } = cropScene(createRandom(i, 'crop'), scene, i % 3, { side: 48, scale: [0.25, 0.64] });
    expect(subject).toBe(crop.glyphs[i % 3]);
    expect(crop.ground).toBe(scene.ground);
    for (const center of [subject.x, subject.y]) expect(Math.abs(center - 24)).toBeLessThanOrEqual(12);
    // a window of half to four fifths of 96 pixels, shown in 48
    const factor = subject.size / scene.glyphs[i % 3].size;
    expect(factor).toBeGreaterThanOrEqual(48 / (0.8 * 96) - 1e-9);
    expect(factor).toBeLessThanOrEqual(1 + 1e-9);
    // all drawings stay where they were to each other
    expect(crop.glyphs[2].x - crop.glyphs[0].x).toBeCloseTo(factor * (scene.glyphs[2].x - scene.glyphs[0].x), 9);
  }
});

describe('viewBatch', () => {
  const scenes = 5;
  const batch = (key: string) => viewBatch(7, key, scenes, glyphs, options);
  const numbers = ({ data }: Value) => [...(data as Int32Array)];
  const rowsOf = ({ data, dims }: Value) => {
    const width = dims.at(-1)!;
    return Array.from({ length: data.length / width }, (_, row) => [...(data as Float32Array).subarray(row * width, (row + 1) * width)]);
  };

  test('is a function of its key', () => {
    expect(batch('a')).toEqual(batch('a'));
    expect(batch('a').global_pixels).not.toEqual(batch('b').global_pixels);
  });

  test('pairs each drawing with itself in the other view, and local crops with their drawing in both', () => {
    const { global_pixels, local_pixels, drawings, global_target, local_targets, dino_scale } = batch('a');
    expect(global_pixels.dims).toEqual([10, 3, 32, 32]);
    expect(local_pixels.dims).toEqual([15, 3, 16, 16]);
    const places = numbers(drawings);
    const count = places.length / 2;
    expect(places.slice(count)).toEqual(places.slice(0, count).map((place) => place + scenes * 4));
    expect(numbers(global_target)).toEqual(places.map((_, i) => (i + count) % (2 * count)));
    const targets = numbers(local_targets);
    expect(targets.slice(15)).toEqual(targets.slice(0, 15).map((target) => target + count));
    // local crop number i is of scene i mod 5
    targets.slice(0, 15).forEach((target, i) => {
      expect(Math.floor(places[target] / 4)).toBe(i % scenes);
    });
    expect(dino_scale.data[0]).toBeCloseTo(1 / (2 * count + 30), 8);
  });

  test('has drawings read whole by the teacher; by the student whole, from one patch, or local ones from the class token', () => {
    const kinds = { patch: 0, whole: 0 };
    let [classTokens, locals] = [0, 0];
    for (let i = 0; i < 20; i++) {
      const { global_reading, teacher_reading, drawings, local_reading } = batch(`${i}`);
      const [student, teacher] = [rowsOf(global_reading), rowsOf(teacher_reading)];
      for (const place of numbers(drawings)) {
        for (const weights of [student[place], teacher[place]]) expect(weights.reduce((a, b) => a + b)).toBeCloseTo(1, 5);
        const isWhole = JSON.stringify(student[place]) === JSON.stringify(teacher[place]);
        kinds[isWhole ? 'whole' : 'patch']++;
        if (!isWhole) expect(student[place].filter((weight) => weight > 0)).toEqual([1]);
      }
      for (const weights of rowsOf(local_reading)) {
        locals++;
        classTokens += Number(weights[0] === 1);
        expect(weights.reduce((a, b) => a + b)).toBeCloseTo(1, 5);
      }
    }
    expect(kinds.patch / (kinds.patch + kinds.whole)).toBeCloseTo(0.5, 1);
    expect(classTokens / locals).toBeCloseTo(0.25, 1);
  });

  test('masks a share of some views, and always something', () => {
    const rows = Array.from({ length: 40 }, (_, i) => {
      const { masked, masked_rows, ibot_scale } = batch(`${i}`);
      const flat = [...(masked.data as Uint8Array)];
      expect(numbers(masked_rows)).toEqual([...flat.keys()].filter((row) => flat[row] === 1));
      expect(ibot_scale.data[0]).toBeCloseTo(2 / masked_rows.data.length, 7);
      return Array.from({ length: 10 }, (_, view) => flat.slice(16 * view, 16 * view + 16).filter(Boolean).length);
    }).flat();
    const some = rows.filter((count) => count > 0);
    expect(some.length / rows.length).toBeGreaterThan(0.42);
    expect(some.length / rows.length).toBeLessThan(0.58);
    expect(Math.min(...some)).toBe(2);
    expect(Math.max(...some)).toBe(8);
    expect(viewBatch(1, 'none', 2, glyphs, { ...options, maskChance: 0 }).masked_rows.data.length).toBe(1);
  });
});
