import { beforeAll, expect, test } from 'vitest';
import { createRandom } from '../../random.ts';
import type { ReadScenes } from './contrastive.ts';
import { type EmojiGlyphs, loadEmojiGlyphs, sharedConcepts } from './glyphs.ts';
import { instanceBatch, instanceCount } from './instances.ts';
import { defaultAugmentation, sampleScene } from './scene.ts';

let glyphs: EmojiGlyphs;
let options: ReadScenes;
beforeAll(async () => {
  glyphs = await loadEmojiGlyphs();
  options = {
    concepts: sharedConcepts(glyphs).slice(5, 25),
    artists: glyphs.artists.slice(1, 4),
    counts: [1, 4],
    imageSize: 32,
    patchSize: 8,
    augmentation: defaultAugmentation,
    singlePatchChance: 0.5,
    mean: [0.5, 0.4, 0.3],
    std: [0.2, 0.25, 0.3],
  };
});

test('each concept by each artist has a number of its own, which says nothing else', () => {
  expect(instanceCount(options)).toBe(60);
  const { concepts, artists, counts } = options;
  const { region_labels: labels, region_rows: rows, region_scale: scale } = instanceBatch(7, 'b', 40, glyphs, options);
  const drawn = Array.from({ length: 40 }, (_, i) =>
    sampleScene(createRandom(7, 'instances', 'b', i), glyphs, { concepts, artists, counts, size: 32 }),
  ).flatMap((scene) => scene.glyphs);
  const numbers = new Map<string, Set<number>>();
  drawn.forEach(({ concept, artist }, i) => {
    const name = `${concept} ${artist}`;
    numbers.set(name, (numbers.get(name) ?? new Set()).add(Number(labels.data[i])));
  });
  expect(labels.data.length).toBe(drawn.length);
  expect([...numbers.values()].map(({ size }) => size)).toEqual(Array(numbers.size).fill(1));
  expect(new Set([...numbers.values()].flatMap((set) => [...set])).size).toBe(numbers.size);
  expect(numbers.size).toBeGreaterThan(30);
  for (const number of labels.data) expect(Number(number)).toBeLessThan(60);
  expect(rows.data.length).toBe(drawn.length);
  expect(Number(scale.data[0])).toBeCloseTo(1 / drawn.length, 6);
});

test('a drawing is read from one patch as often as it should be', () => {
  const share = (singlePatchChance: number) => {
    const { region_weights: weights } = instanceBatch(1, 'c', 100, glyphs, { ...options, counts: [1], singlePatchChance });
    const read = Array.from({ length: weights.data.length / 16 }, (_, i) => (weights.data as Float32Array).subarray(i * 16, i * 16 + 16));
    const some = read.filter((row) => row.some((weight) => weight > 0));
    return some.filter((row) => row.includes(1)).length / some.length;
  };
  expect(share(0)).toBe(0);
  expect(share(0.5)).toBeGreaterThan(0.35);
  expect(share(0.5)).toBeLessThan(0.65);
  expect(share(1)).toBe(1);
});

test('is a function of seed and key', () => {
  expect(instanceBatch(1, 'a', 2, glyphs, options)).toEqual(instanceBatch(1, 'a', 2, glyphs, options));
  expect(instanceBatch(1, 'a', 2, glyphs, options)).not.toEqual(instanceBatch(1, 'b', 2, glyphs, options));
  expect(instanceBatch(1, 'a', 2, glyphs, options)).not.toEqual(instanceBatch(2, 'a', 2, glyphs, options));
});
