// Scores that are means of credit: their standard errors, with questions that share a picture as one cluster,
// and their intervals.

import { type ClusterKeys, clustersFor, sumsByCluster } from './clusters.ts';
import { criticalValue, type Estimate, estimateOf, type Interval } from './estimate.ts';

/**
 * Wilson (1927) interval of a proportion: honest near 0 and 1 and for small `n`, where the usual normal
 * interval is not. In the form of Brown, Cai & DasGupta (2001), "Interval Estimation for a Binomial
 * Proportion". Without observations it is the whole of [0, 1]. Neither number need be whole: `n` may be an
 * effective size. With `df`, the t distribution stands for the normal one.
 */
export function wilsonInterval(correct: number, n: number, level = 0.95, df = Infinity): Interval {
  if (!(n >= 0) || !(correct >= 0) || correct > n) throw new RangeError(`wilsonInterval: ${correct} right answers out of ${n}`);
  const z = criticalValue(level, df);
  if (n === 0) return { low: 0, high: 1 };
  const share = correct / n;
  const z2 = z * z;
  const center = (share + z2 / (2 * n)) / (1 + z2 / n);
  const half = (z / (1 + z2 / n)) * Math.sqrt((share * (1 - share)) / n + z2 / (4 * n * n));
  // The two ends are exactly 0 and 1 when nothing or everything is right; rounding would leave 1e-17.
  return { low: correct === 0 ? 0 : center - half, high: correct === n ? 1 : center + half };
}

export interface MeanOptions {
  /** What the questions share, one key a question: those of a picture, of a pair. Without it, nothing. */
  clusters?: ClusterKeys;
  /** Of the interval; 0.95. */
  level?: number;
}

/** A mean over questions. */
export interface Mean extends Omit<Estimate, 'p'> {
  /** Questions, and clusters of them. */
  n: number;
  clusters: number;
  /** Standard error as if no question had to do with another: sd / sqrt(n), with n - 1 in the sd. */
  independentSe: number;
  /** The variance over that of independent questions: n / designEffect of those would say as much. */
  designEffect: number;
}

export function meanOf(values: ArrayLike<number>): number {
  let sum = 0;
  for (let i = 0; i < values.length; i++) sum += values[i];
  return sum / values.length;
}

/**
 * Mean and its two standard errors. Clustered, as Miller (2024), "Adding Error Bars to Evals", eq. 4:
 * SE^2 = s^2 / n + (1 / n^2) sum over clusters of ((sum d)^2 - sum d^2), d = value - mean.
 */
function momentsOf(values: ArrayLike<number>, keys: ClusterKeys | undefined) {
  const n = values.length;
  const groups = clustersFor(n, keys);
  const mean = meanOf(values);
  const deviations = Float64Array.from({ length: n }, (_, i) => values[i] - mean);
  const squares = deviations.reduce((sum, d) => sum + d * d, 0);
  const variance = n > 1 ? squares / (n - 1) / n : Number.NaN;
  const between = sumsByCluster(deviations, groups).reduce((sum, d) => sum + d * d, 0);
  // a negative sum is possible where those of a cluster are opposites; there is no less than no variance
  const clustered = groups.count > 1 ? Math.max(0, variance + (between - squares) / (n * n)) : Number.NaN;
  return { n, clusters: groups.count, mean, variance, clustered };
}

/** Mean of any values, its interval mean +- t(clusters - 1) * SE, its p against a mean of 0. */
export function clusteredMean(values: ArrayLike<number>, { clusters: keys, level }: MeanOptions = {}): Mean & Estimate {
  const { n, clusters, mean, variance, clustered } = momentsOf(values, keys);
  const estimate = estimateOf(mean, Math.sqrt(clustered), clusters - 1, level);
  return { ...estimate, n, clusters, independentSe: Math.sqrt(variance), designEffect: variance === 0 ? 1 : clustered / variance };
}

/**
 * Mean credit in [0, 1], which no interval of this function leaves and none is without width:
 *
 * - yes or no: Wilson, with the size that as many independent questions would have (n / designEffect) and
 *   t(clusters - 1) where they are clustered (Franco, Little, Louis & Slud 2019, "Comparative Study of
 *   Confidence Intervals for Proportions in Complex Sample Surveys");
 * - fractions: mean +- t(clusters - 1) * SE, cut at 0 and 1;
 * - all the same: Wilson with each cluster as one question.
 *
 * t(clusters - 1) stands for few clusters as well as for many, where it is the normal distribution. The
 * bootstrap is for scores that are no means: its intervals are too narrow below some 30 clusters.
 */
export function meanCredit(credits: ArrayLike<number>, options: MeanOptions = {}): Mean {
  let isBinary = true;
  for (let i = 0; i < credits.length; i++) {
    if (!(credits[i] >= 0 && credits[i] <= 1)) throw new RangeError(`credit lies in [0, 1], unlike ${credits[i]}`);
    isBinary &&= credits[i] === 0 || credits[i] === 1;
  }
  const { p: _, ...mean } = clusteredMean(credits, options);
  const { n, clusters, value } = mean;
  if (n === 0) return { ...mean, low: 0, high: 1 };
  const wilson = (size: number, df?: number) => wilsonInterval(Math.min(size, value * size), size, options.level, df);
  if (!(mean.se > 0)) return { ...mean, ...wilson(clusters) };
  if (!isBinary) return { ...mean, low: Math.max(0, mean.low), high: Math.min(1, mean.high) };
  return { ...mean, ...(options.clusters === undefined ? wilson(n) : wilson(n / mean.designEffect, clusters - 1)) };
}
