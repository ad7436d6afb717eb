// Two systems that answered the same questions.

import { binomialCdf, chiSquaredTail } from './distributions.ts';
import type { Estimate, Interval } from './estimate.ts';
import { clusteredMean, type Mean, type MeanOptions, meanOf, wilsonInterval } from './proportion.ts';

/** Differences a - b, question by question. RangeError if one has more questions than the other. */
export function differencesOf(a: ArrayLike<number>, b: ArrayLike<number>): Float64Array {
  if (a.length !== b.length) throw new RangeError(`paired scores of ${a.length} and ${b.length} questions`);
  return Float64Array.from({ length: a.length }, (_, i) => a[i] - b[i]);
}

/** Pearson's correlation; NaN where one of them is constant. */
export function correlation(a: ArrayLike<number>, b: ArrayLike<number>): number {
  const [meanA, meanB] = [meanOf(a), meanOf(b)];
  let [ab, aa, bb] = [0, 0, 0];
  for (let i = 0; i < a.length; i++) {
    const [da, db] = [a[i] - meanA, b[i] - meanB];
    ab += da * db;
    aa += da * da;
    bb += db * db;
  }
  return ab / Math.sqrt(aa * bb);
}

/**
 * Mean of a - b with its clustered standard error and t interval (`clusteredMean` of the differences), and
 * the correlation of the two scores over questions: the higher, the more the pairing was worth.
 */
export function pairedDifference(
  a: ArrayLike<number>,
  b: ArrayLike<number>,
  options: MeanOptions = {},
): Mean & Estimate & { correlation: number } {
  return { ...clusteredMean(differencesOf(a, b), options), correlation: correlation(a, b) };
}

/** Questions that exactly one of two systems got right. */
export interface Discordant {
  onlyA: number;
  onlyB: number;
}

/** RangeError where an answer is neither right (1) nor wrong (0). */
export function discordantPairs(a: ArrayLike<number>, b: ArrayLike<number>): Discordant {
  const differences = differencesOf(a, b);
  const isAnswer = (value: number) => value === 0 || value === 1;
  for (let i = 0; i < a.length; i++)
    if (!isAnswer(a[i]) || !isAnswer(b[i])) throw new RangeError(`discordant pairs are of credit 0 or 1, not of ${a[i]} and ${b[i]}`);
  return { onlyA: differences.filter((d) => d === 1).length, onlyB: differences.filter((d) => d === -1).length };
}

function checkPairs({ onlyA, onlyB }: Discordant): void {
  for (const count of [onlyA, onlyB]) if (!Number.isSafeInteger(count) || count < 0) throw new RangeError(`${count} discordant pairs`);
}

export interface McNemar {
  /** Two-sided p of b against c as tosses of a fair coin. */
  exact: number;
  /** The same less the chance of the split itself: the one to report, as the exact one is too careful. */
  midP: number;
  /** (b - c)^2 / (b + c), without continuity correction, and its p. */
  chiSquared: number;
  chiSquaredP: number;
}

/**
 * McNemar's test (1947) on the questions that one system got right and the other wrong; all others say
 * nothing. It knows no clusters: where questions share pictures, the interval of `pairedDifference` decides.
 * Mid-p: Fagerland, Lydersen & Laake (2013), "The McNemar test for binary matched-pairs data".
 */
export function mcnemar(pairs: Discordant): McNemar {
  checkPairs(pairs);
  const { onlyA, onlyB } = pairs;
  const n = onlyA + onlyB;
  if (n === 0) return { exact: 1, midP: 1, chiSquared: 0, chiSquaredP: 1 };
  const less = Math.min(onlyA, onlyB);
  const [atMost, below] = [binomialCdf(less, n, 0.5), binomialCdf(less - 1, n, 0.5)];
  const chiSquared = (onlyA - onlyB) ** 2 / n;
  return { exact: Math.min(1, 2 * atMost), midP: Math.min(1, atMost + below), chiSquared, chiSquaredP: chiSquaredTail(chiSquared, 1) };
}

/**
 * Odds ratio b / c of paired answers, above 1 where A is better: the size of an effect beside its p. Its
 * interval is Wilson's for b of b + c, as odds, so it holds 1 just when McNemar's chi-squared p exceeds
 * 1 - level. NaN in [0, Infinity] without discordant pairs.
 */
export function oddsRatio(pairs: Discordant, level = 0.95): Interval & { value: number } {
  checkPairs(pairs);
  const share = wilsonInterval(pairs.onlyA, pairs.onlyA + pairs.onlyB, level);
  const odds = (p: number) => p / (1 - p);
  return { value: pairs.onlyA / pairs.onlyB, low: odds(share.low), high: odds(share.high) };
}
