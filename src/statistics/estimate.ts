// What every analysis gives: a number with its standard error and its interval.

import { tQuantile, tTwoSided } from './distributions.ts';

export interface Interval {
  low: number;
  high: number;
}

/** An estimate in the units of what was measured: shares in [0, 1] where credit is. */
export interface Estimate extends Interval {
  value: number;
  /** Standard error; NaN where there is nothing to estimate it from. */
  se: number;
  /** Degrees of freedom of the t distribution behind the interval. */
  df: number;
  /** Two-sided p against 0. */
  p: number;
}

export function checkLevel(level: number): void {
  if (!(level > 0 && level < 1)) throw new RangeError(`a confidence level lies between 0 and 1, not at ${level}`);
}

/** How many standard errors an interval of this level goes to each side. */
export function criticalValue(level: number, df: number): number {
  checkLevel(level);
  return tQuantile((1 + level) / 2, df);
}

/**
 * value +- t(df) * se. Without a standard error or degrees of freedom it is all numbers, with a p of 1. An
 * error of 0 says that all were alike, not that others would be: p is then that of as many equal signs, 2 in
 * 2^(df + 1).
 */
export function estimateOf(value: number, se: number, df: number, level = 0.95): Estimate {
  checkLevel(level);
  if (!(df > 0) || Number.isNaN(se)) return { value, se: Number.NaN, df: Math.max(0, df), low: -Infinity, high: Infinity, p: 1 };
  const half = criticalValue(level, df) * se;
  const p = se > 0 ? tTwoSided(value / se, df) : value === 0 ? 1 : Math.max(2 ** -df, Number.EPSILON);
  return { value, se, df, low: value - half, high: value + half, p };
}

/** A p value as it is told. */
export const shownP = (p: number): string => (p < 0.0001 ? '< 0.0001' : p.toFixed(4));
