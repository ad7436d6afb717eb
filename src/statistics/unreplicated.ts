// Effects of a factorial with one run a cell: there is no run noise to compare them with but that of the
// effects themselves, most of which are small.

import { median } from '../arrays.ts';
import { normalQuantile, tQuantile } from './distributions.ts';
import { checkLevel } from './estimate.ts';

export interface Lenth {
  /** Pseudo standard error of an effect. */
  se: number;
  /** An effect beyond the margin is active at the level by itself, one beyond the other for all at once. */
  margin: number;
  simultaneousMargin: number;
}

/**
 * Lenth (1989), "Quick and Easy Analysis of Unreplicated Factorials": s0 = 1.5 median |c|, the standard error
 * 1.5 median of those |c| below 2.5 s0; margins are t(m / 3) of it, m effects. Few effects (3 of a 2^2) say
 * next to nothing; 7 of a 2^3 find what is several times the rest.
 */
export function lenth(effects: readonly number[], level = 0.95): Lenth {
  checkLevel(level);
  if (effects.length === 0) throw new RangeError('lenth: no effects');
  const sizes = effects.map(Math.abs);
  const first = 1.5 * median(sizes);
  // if most are 0 there is nothing below 2.5 s0 = 0
  const small = sizes.filter((size) => size < 2.5 * first);
  const se = small.length === 0 ? 0 : 1.5 * median(small);
  const df = effects.length / 3;
  const simultaneous = (1 + level ** (1 / effects.length)) / 2;
  return { se, margin: tQuantile((1 + level) / 2, df) * se, simultaneousMargin: tQuantile(simultaneous, df) * se };
}

/** A point of a half-normal plot. */
export interface HalfNormalPoint {
  /** Which of the effects. */
  index: number;
  size: number;
  /** Where it would lie on a line if all effects were noise. */
  quantile: number;
}

/** Daniel (1959): the i-th smallest |effect| of m against the half-normal quantile of (i - 0.5) / m. */
export function halfNormal(effects: readonly number[]): HalfNormalPoint[] {
  return effects
    .map((effect, index) => ({ index, size: Math.abs(effect) }))
    .sort((a, b) => a.size - b.size)
    .map((point, rank) => ({ ...point, quantile: normalQuantile(0.5 + (rank + 0.5) / (2 * effects.length)) }));
}
