// The pointing game (Zhang et al. 2016, arXiv 1608.00507): does a map's peak lie in the box of what the
// question is about? And how much of the map does.

import type { Random } from '../random.ts';
import { type Grid, ranked } from './maps.ts';

/** In pixels of the picture that the encoder sees, from the top left. */
export interface Box {
  left: number;
  top: number;
  right: number;
  bottom: number;
}

/** The place of a patch's center. */
const centerOf = (patch: number, { columns, patch: side }: Grid) => ({
  x: ((patch % columns) + 0.5) * side,
  y: (Math.floor(patch / columns) + 0.5) * side,
});

/** Whether the center of a patch lies in a box. */
export function isInside(patch: number, { left, top, right, bottom }: Box, grid: Grid): boolean {
  const { x, y } = centerOf(patch, grid);
  return x >= left && x < right && y >= top && y < bottom;
}

/** The share of each patch that a box covers: what a map would be that knew the answer's place. */
export function boxMap({ left, top, right, bottom }: Box, { rows, columns, patch }: Grid): Float32Array {
  const overlap = (from: number, to: number, at: number) =>
    Math.max(0, Math.min(to, (at + 1) * patch) - Math.max(from, at * patch)) / patch;
  return Float32Array.from(
    { length: rows * columns },
    (_, i) => overlap(left, right, i % columns) * overlap(top, bottom, Math.floor(i / columns)),
  );
}

export interface Pointed {
  /** Whether the center of the largest patch lies in the box; of equal ones, one is drawn. */
  hit: boolean;
  /**
   * Share of the map's sum inside the box, patches counted by what it covers of them; NaN for a map of zeros.
   */
  mass: number;
}

export function point(map: Float32Array, box: Box, grid: Grid, random: Random): Pointed {
  const [peak] = ranked(map, random);
  const covered = boxMap(box, grid);
  const total = map.reduce((sum, value) => sum + value, 0);
  const inside = map.reduce((sum, value, i) => sum + value * covered[i], 0);
  return { hit: isInside(peak, box, grid), mass: total > 0 ? inside / total : Number.NaN };
}

/** How often a patch at random hits a box. */
export function chanceOf(box: Box, grid: Grid): number {
  const patches = grid.rows * grid.columns;
  let inside = 0;
  for (let i = 0; i < patches; i++) if (isInside(i, box, grid)) inside++;
  return inside / patches;
}
