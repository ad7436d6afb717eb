// Correspondence without labelled pairs, after the C score of 2408.16357 (PCK on SPair-71k), here called
// synthetic: (a) the same picture under an affine map that is known, (b) scenes of the same concepts by two
// artists, in cells that are known. Each asks whether the nearest patch of the other picture is the right
// one.

import { loadEmojiGlyphs } from '../data/emoji/glyphs.ts';
import { type PlacedGlyph, type Scene, sampleScene } from '../data/emoji/scene.ts';
import { splitConcepts } from '../data/emoji/split.ts';
import { imageTokenCount, type LlavaConfig } from '../models/llava.ts';
import { patchesPerSide, prefixTokens } from '../models/vision.ts';
import { createRandom, type Random } from '../random.ts';
import type { Rows } from './matrices.ts';

// === Patches ===

/** The patches that a picture's rows are of: sides of the grid, and of each row its place there, or -1. */
export interface Grid {
  side: number;
  patches: number[];
}

/** Which patch each row of a picture is, as `vision_feature_select_strategy` leaves them. */
export function gridOf(config: LlavaConfig, size: number): Grid {
  const side = patchesPerSide(config.vision_config, size);
  const count = imageTokenCount(config);
  const dropped = prefixTokens(config.vision_config) + side * side - count;
  const patches = Array.from({ length: count }, (_, row) => row + dropped - prefixTokens(config.vision_config));
  return { side, patches };
}

/**
 * Vectors of a grid's patches, [side * side, width], of unit length; NaN-free: a patch without a row is
 * zeros.
 */
function unitPatches({ data, width }: Rows, { side, patches }: Grid): Float64Array {
  const grid = new Float64Array(side * side * width);
  patches.forEach((patch, row) => {
    if (patch < 0) return;
    let length = 0;
    for (let i = 0; i < width; i++) length += data[row * width + i] ** 2;
    const scale = length > 0 ? 1 / Math.sqrt(length) : 0;
    for (let i = 0; i < width; i++) grid[patch * width + i] = data[row * width + i] * scale;
  });
  return grid;
}

/** Cosine of one patch with every patch of another picture. */
function cosinesOf(patch: number, source: Float64Array, target: Float64Array, width: number): Float64Array {
  return Float64Array.from({ length: target.length / width }, (_, other) => {
    let sum = 0;
    for (let i = 0; i < width; i++) sum += source[patch * width + i] * target[other * width + i];
    return sum;
  });
}

/** Places of the highest values; more than one where they are equal. */
function bestOf(values: Float64Array): number[] {
  const best = values.reduce((a, b) => Math.max(a, b));
  return [...values.keys()].filter((i) => values[i] === best);
}

/** Side of the window, in patches, and temperature of the soft argmax that finds a place between patches. */
const WINDOW = 5;
const TEMPERATURE = 0.04;

/**
 * The place of the highest value, in patches from the center of the first, refined over the window about
 * it.
 */
function refinedPlace(values: Float64Array, side: number, best: number): [number, number] {
  const [column, row] = [best % side, Math.floor(best / side)];
  const reach = (WINDOW - 1) / 2;
  let [weights, x, y] = [0, 0, 0];
  for (let r = Math.max(0, row - reach); r <= Math.min(side - 1, row + reach); r++)
    for (let c = Math.max(0, column - reach); c <= Math.min(side - 1, column + reach); c++) {
      const weight = Math.exp((values[r * side + c] - values[best]) / TEMPERATURE);
      weights += weight;
      x += weight * c;
      y += weight * r;
    }
  return [x / weights, y / weights];
}

/** Hits of queries, and those that a patch at random would have. */
export interface Hits {
  hits: number;
  chance: number;
  queries: number;
}

// === (a) The same picture under a known map ===

/**
 * A point of a picture, both from 0 to 1, to the point of the mapped picture: center + matrix (p - center)
 * + shift.
 */
export interface Warp {
  matrix: readonly [number, number, number, number];
  shift: readonly [number, number];
}

/** Largest turn in degrees, factor of size either way, and shift as a share of the side. */
const MOST = { turn: 15, scale: 1.15, shift: 0.08 };

export function randomWarp(random: Random): Warp {
  const spread = (most: number) => (2 * random.uniform() - 1) * most;
  const angle = (spread(MOST.turn) * Math.PI) / 180;
  const scale = Math.exp(spread(Math.log(MOST.scale)));
  const [c, s] = [scale * Math.cos(angle), scale * Math.sin(angle)];
  return { matrix: [c, -s, s, c], shift: [spread(MOST.shift), spread(MOST.shift)] };
}

export function warpPoint({ matrix: [a, b, c, d], shift: [u, v] }: Warp, [x, y]: readonly [number, number]): [number, number] {
  return [0.5 + a * (x - 0.5) + b * (y - 0.5) + u, 0.5 + c * (x - 0.5) + d * (y - 0.5) + v];
}

/** Pixel values [3, size, size] under a map, bilinear; what comes from outside is the nearest edge. */
export function warpPixels(pixels: Float32Array, size: number, { matrix: [a, b, c, d], shift: [u, v] }: Warp): Float32Array {
  const determinant = a * d - b * c;
  const result = new Float32Array(pixels.length);
  const inside = (value: number) => Math.min(size - 1, Math.max(0, value));
  for (let row = 0; row < size; row++)
    for (let column = 0; column < size; column++) {
      const [x, y] = [(column + 0.5) / size - 0.5 - u, (row + 0.5) / size - 0.5 - v];
      const fromX = inside(((d * x - b * y) / determinant + 0.5) * size - 0.5);
      const fromY = inside(((a * y - c * x) / determinant + 0.5) * size - 0.5);
      const [left, top] = [Math.floor(fromX), Math.floor(fromY)];
      const [right, bottom] = [Math.min(size - 1, left + 1), Math.min(size - 1, top + 1)];
      const [across, down] = [fromX - left, fromY - top];
      for (let channel = 0; channel < 3; channel++) {
        const at = (y: number, x: number) => pixels[(channel * size + y) * size + x];
        const upper = at(top, left) * (1 - across) + at(top, right) * across;
        const lower = at(bottom, left) * (1 - across) + at(bottom, right) * across;
        result[(channel * size + row) * size + column] = upper * (1 - down) + lower * down;
      }
    }
  return result;
}

/** Share of the picture's side within which a place is right, as PCK@0.1. */
const RIGHT_WITHIN = 0.1;

/**
 * Patches of a picture found again under a map: those whose centers are in a drawing of `scene`, where
 * there is one, and come to lie in the picture.
 */
export function warpHits(source: Rows, target: Rows, grid: Grid, warp: Warp, scene?: Scene): Hits {
  const { side, patches } = grid;
  const [from, to] = [unitPatches(source, grid), unitPatches(target, grid)];
  const total: Hits = { hits: 0, chance: 0, queries: 0 };
  for (const patch of patches) {
    if (patch < 0) continue;
    const center = centerOf(patch, side);
    const goal = warpPoint(warp, center);
    if (goal.some((value) => value < 0 || value > 1) || (scene && !isInDrawing(center, scene))) continue;
    const isRight = ([x, y]: readonly [number, number]) => Math.hypot(x - goal[0], y - goal[1]) <= RIGHT_WITHIN;
    const cosines = cosinesOf(patch, from, to, source.width);
    const best = bestOf(cosines);
    const places = best.map((each) => refinedPlace(cosines, side, each).map((at) => (at + 0.5) / side) as [number, number]);
    total.hits += places.filter(isRight).length / places.length;
    total.chance += cosines.filter((_, other) => isRight(centerOf(other, side))).length / cosines.length;
    total.queries++;
  }
  return total;
}

const centerOf = (patch: number, side: number): [number, number] => [
  ((patch % side) + 0.5) / side,
  (Math.floor(patch / side) + 0.5) / side,
];

const covers = ({ x, y, size }: PlacedGlyph, [column, row]: readonly [number, number], canvas: number) =>
  Math.abs(column * canvas - x) <= size / 2 && Math.abs(row * canvas - y) <= size / 2;

const isInDrawing = (point: readonly [number, number], { glyphs, size }: Scene) => glyphs.some((glyph) => covers(glyph, point, size));

// === (b) The same concepts by two artists ===

/** Two scenes of the same four concepts, each by one artist, in cells of their own. */
export type StylePair = readonly [Scene, Scene];

/** `count` pairs, drawn from `seed`; scenes are of the concepts of training. */
export async function stylePairs(count: number, seed: number): Promise<StylePair[]> {
  const glyphs = await loadEmojiGlyphs();
  const { seen: concepts } = splitConcepts(glyphs);
  return Array.from({ length: count }, (_, i) => {
    const random = createRandom(seed, 'styles', i);
    const artists = random.shuffle(glyphs.artists).slice(0, 2);
    const first = sampleScene(random, glyphs, { concepts, artists: artists.slice(0, 1), counts: [4] });
    const cells = sampleScene(random, glyphs, { concepts, artists: artists.slice(1), counts: [4] });
    const order = random.shuffle(first.glyphs);
    const second = { ...cells, glyphs: cells.glyphs.map((glyph, cell) => ({ ...glyph, concept: order[cell].concept })) };
    return [first, second] as const;
  });
}

/**
 * Patches of each drawing of the first scene whose nearest patch of the second is in the cell of the same
 * concept.
 */
export function styleHits([first, second]: StylePair, source: Rows, target: Rows, grid: Grid): Hits {
  const { side, patches } = grid;
  const [from, to] = [unitPatches(source, grid), unitPatches(target, grid)];
  const cellOf = (patch: number) => {
    const [x, y] = centerOf(patch, side);
    return (y < 0.5 ? 0 : 2) + (x < 0.5 ? 0 : 1);
  };
  const total: Hits = { hits: 0, chance: 0, queries: 0 };
  for (const patch of patches) {
    if (patch < 0) continue;
    const drawing = first.glyphs.find((glyph) => covers(glyph, centerOf(patch, side), first.size));
    if (!drawing) continue;
    const { cell: goal } = second.glyphs.find(({ concept }) => concept === drawing.concept)!;
    const best = bestOf(cosinesOf(patch, from, to, source.width));
    total.hits += best.filter((other) => cellOf(other) === goal).length / best.length;
    total.chance +=
      Array.from({ length: side * side }, (_, other) => Number(cellOf(other) === goal)).reduce((a, b) => a + b) / (side * side);
    total.queries++;
  }
  return total;
}
