import { describe, expect, it } from 'vitest';
import { createRandom } from '../random.ts';
import { gridOf, type Hits, randomWarp, styleHits, stylePairs, type Warp, warpHits, warpPixels, warpPoint } from './c-score.ts';
import type { Rows } from './matrices.ts';

const SIDE = 6;
const grid = { side: SIDE, patches: Array.from({ length: SIDE * SIDE }, (_, i) => i) };
const still: Warp = { matrix: [1, 0, 0, 1], shift: [0, 0] };

const rowsOf = (width: number, value: (patch: number, i: number) => number): Rows => ({
  data: Float64Array.from({ length: SIDE * SIDE * width }, (_, at) => value(Math.floor(at / width), at % width)),
  count: SIDE * SIDE,
  width,
});
const random = createRandom(1);
const distinct = rowsOf(40, () => random.normal());
const same = rowsOf(40, (_, i) => i + 1);
const share = ({ hits, queries }: Hits) => hits / queries;
const chanceOf = ({ chance, queries }: Hits) => chance / queries;

describe('the same picture under a known map', () => {
  it('is found where it went', () => {
    expect(share(warpHits(distinct, distinct, grid, still))).toBe(1);
    // by one patch to the right: those of the last column go out of the picture
    const moved = rowsOf(40, (patch, i) => (patch % SIDE === 0 ? -1 : distinct.data[(patch - 1) * 40 + i]));
    const hits = warpHits(distinct, moved, grid, { ...still, shift: [1 / SIDE, 0] });
    expect(hits).toMatchObject({ hits: 30, queries: 30 });
    expect(share(warpHits(distinct, distinct, grid, { ...still, shift: [1 / SIDE, 0] }))).toBe(0);
  });

  it('of rows that are all the same is found by chance', () => {
    const hits = warpHits(same, same, grid, still);
    expect(chanceOf(hits)).toBeCloseTo(1 / 36, 10);
    // refined over their window, places fall between patches
    expect(share(hits)).toBeLessThan(0.1);
  });

  it('is looked for in the drawings of a scene alone', () => {
    const scene = { size: 96, ground: [0, 0, 0] as const, glyphs: [{ concept: 0, artist: '', cell: 0 as const, x: 24, y: 24, size: 40 }] };
    expect(warpHits(distinct, distinct, grid, still, scene).queries).toBe(9);
  });

  it('moves pixels as it moves points', () => {
    const size = 32;
    const spot = (x: number, y: number) =>
      Float32Array.from({ length: 3 * size * size }, (_, at) => {
        const [column, row] = [at % size, Math.floor(at / size) % size];
        return Math.exp(-((column + 0.5 - x * size) ** 2 + (row + 0.5 - y * size) ** 2) / 8);
      });
    for (let seed = 0; seed < 5; seed++) {
      const warp = randomWarp(createRandom(seed));
      const goal = warpPoint(warp, [0.4, 0.55]);
      const moved = warpPixels(spot(0.4, 0.55), size, warp).subarray(0, size * size);
      const total = moved.reduce((sum, value) => sum + value, 0);
      const center = (place: (at: number) => number) => moved.reduce((sum, value, at) => sum + value * place(at), 0) / total / size;
      expect(center((at) => (at % size) + 0.5)).toBeCloseTo(goal[0], 2);
      expect(center((at) => Math.floor(at / size) + 0.5)).toBeCloseTo(goal[1], 2);
    }
    const picture = spot(0.5, 0.5);
    expect([...warpPixels(picture, size, still)]).toEqual([...picture]);
  });
});

describe('the same concepts by two artists', () => {
  it('are each in a cell of their own, in another order', async () => {
    const pairs = await stylePairs(20, 3);
    for (const [first, second] of pairs) {
      const concepts = (scene: typeof first) => scene.glyphs.map(({ concept }) => concept).sort();
      expect(concepts(second)).toEqual(concepts(first));
      expect(new Set(first.glyphs.map(({ artist }) => artist)).size).toBe(1);
      expect(second.glyphs[0].artist).not.toBe(first.glyphs[0].artist);
      expect(second.glyphs.map(({ cell }) => cell)).toEqual([0, 1, 2, 3]);
    }
    expect(pairs.some(([first, second]) => first.glyphs[0].concept !== second.glyphs[0].concept)).toBe(true);
    expect(await stylePairs(2, 3)).toEqual(pairs.slice(0, 2));
  });

  it('are found by what they are, and by chance where all patches are the same', async () => {
    const [pair] = await stylePairs(1, 3);
    const cell = (patch: number) => (Math.floor(patch / SIDE) < 3 ? 0 : 2) + (patch % SIDE < 3 ? 0 : 1);
    const ofConcepts = ({ glyphs }: (typeof pair)[0]) => rowsOf(4000, (patch, i) => Number(glyphs[cell(patch)].concept === i));
    const hits = styleHits(pair, ofConcepts(pair[0]), ofConcepts(pair[1]), grid);
    expect(hits.hits).toBe(hits.queries);
    expect(hits.queries).toBeGreaterThan(15);
    const blind = styleHits(pair, same, same, grid);
    expect(share(blind)).toBeCloseTo(0.25, 10);
    expect(chanceOf(blind)).toBeCloseTo(0.25, 10);
  });
});

describe('patches', () => {
  const config = (model_type: string, strategy: 'default' | 'full') =>
    ({
      vision_config: { model_type, image_size: 96, patch_size: 16, num_register_tokens: 0 },
      vision_feature_select_strategy: strategy,
    }) as unknown as Parameters<typeof gridOf>[0];

  it.each([
    ['clip_vision_model', 'default', 0, 36],
    ['clip_vision_model', 'full', -1, 37],
    ['siglip_vision_model', 'full', 0, 36],
    ['siglip_vision_model', 'default', 1, 35],
  ] as const)('of %s (%s) begin with %i', (type, strategy, first, count) => {
    const { side, patches } = gridOf(config(type, strategy), 96);
    expect([side, patches[0], patches.at(-1), patches.length]).toEqual([6, first, 35, count]);
  });
});
