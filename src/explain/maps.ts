// Maps as arrays: relevancy rows normalized and taken apart, patches for image tokens, maps ranked and
// compared.

import { imageSize, type LlavaConfig } from '../models/llava.ts';
import { patchesPerSide, prefixTokens } from '../models/vision.ts';
import type { Random } from '../random.ts';
import { spearman } from '../statistics/rank-correlation.ts';

/** Patches of a picture: row by row from the top left. */
export interface Grid {
  rows: number;
  columns: number;
  /** Pixels of a patch's side, and of the picture that the encoder sees. */
  patch: number;
  size: number;
}

/** How the image tokens of a model lie on its picture. */
export interface PatchLayout {
  grid: Grid;
  /** Rows that leave the encoder's blocks: class token and patches. */
  encoderRows: number;
  /** The encoder's row that image token `token` comes from. */
  rowOf(token: number): number;
  /** The patch of an encoder's row; below 0 for a class token. */
  patchOf(row: number): number;
}

export function patchLayout(config: LlavaConfig): PatchLayout {
  const { vision_config: vision, vision_feature_select_strategy: strategy } = config;
  const size = imageSize(config);
  const side = patchesPerSide(vision, size);
  const prefix = prefixTokens(vision);
  // `default` leaves out the first row, whatever it is
  const left = strategy === 'full' ? 0 : 1;
  return {
    grid: { rows: side, columns: side, patch: vision.patch_size, size },
    encoderRows: prefix + side * side,
    rowOf: (token) => token + left,
    patchOf: (row) => row - prefix,
  };
}

/** What image tokens [imageTokens] carry, by patch; 0 for a patch that has no token. */
export function byPatch(values: ArrayLike<number>, { grid, rowOf, patchOf }: PatchLayout): Float32Array {
  return gatheredByPatch(values, grid, (i) => patchOf(rowOf(i)));
}

/** What the encoder's rows carry, by patch. */
export const rowsByPatch = (values: ArrayLike<number>, { grid, patchOf }: PatchLayout): Float32Array =>
  gatheredByPatch(values, grid, patchOf);

function gatheredByPatch(values: ArrayLike<number>, grid: Grid, patchOf: (i: number) => number): Float32Array {
  const map = new Float32Array(grid.rows * grid.columns);
  for (let i = 0; i < values.length; i++) if (patchOf(i) >= 0) map[patchOf(i)] += values[i];
  return map;
}

/**
 * A row of R by equations (8) and (9) of Chefer et al.: less the identity, over its sum. The identity that
 * (9) adds back says nothing, and is left out. `own` is the row's own place. Zeros where the row is the
 * identity's.
 */
export function normalizedRow(row: ArrayLike<number>, own: number): Float32Array {
  const relative = Float32Array.from(row);
  relative[own] -= 1;
  const sum = relative.reduce((total, value) => total + value, 0);
  return sum > 0 ? relative.map((value) => value / sum) : relative;
}

/** The mean of maps of the same length. */
export function meanMap(maps: readonly Float32Array[]): Float32Array {
  const mean = new Float32Array(maps[0].length);
  for (const map of maps) for (let i = 0; i < mean.length; i++) mean[i] += map[i] / maps.length;
  return mean;
}

/** Places from the largest value to the smallest; equal ones in random order. */
export function ranked(map: ArrayLike<number>, random: Random): number[] {
  const order = random.shuffle(Array.from({ length: map.length }, (_, i) => i));
  return order.sort((a, b) => map[b] - map[a]);
}

/** Spearman's rank correlation of two maps; 0 where one of them is constant. */
export function rankCorrelation(a: ArrayLike<number>, b: ArrayLike<number>): number {
  const rho = spearman(a, b);
  return Number.isNaN(rho) ? 0 : rho;
}
