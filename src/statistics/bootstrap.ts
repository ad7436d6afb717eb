// Cluster bootstrap: clusters are drawn again with replacement, and with each all its questions. For scores
// that are no means (F1, sums of tasks), and beside the t interval of a mean.

import { createRandom } from '../random.ts';
import { type ClusterKeys, clusterSizes, clustersFor, sumsByCluster } from './clusters.ts';
import { checkLevel, type Interval } from './estimate.ts';

export interface BootstrapOptions {
  /** Of the draws: the same seed gives the same bits. */
  seed: number;
  /** 10,000. */
  draws?: number;
  /** Of the interval; 0.95. */
  level?: number;
}

export interface Bootstrapped extends Interval {
  /** Of the data themselves. */
  value: number;
  /** Standard deviation over the draws. */
  se: number;
  /** Two-sided p against 0: 2 min(draws <= 0, draws >= 0), each + 1, of draws + 1. */
  p: number;
  draws: number;
}

/** The share `p` of the way through sorted values, between two of them where it falls so. */
function quantileOfSorted(sorted: Float64Array, p: number): number {
  const place = p * (sorted.length - 1);
  const below = Math.floor(place);
  const above = Math.min(below + 1, sorted.length - 1);
  return sorted[below] + (place - below) * (sorted[above] - sorted[below]);
}

/**
 * Percentile interval of any statistic. `statistic` gets how often each of `clusterCount` clusters was drawn
 * (once each for the value itself), and reads what it needs of them: sums by cluster, mostly
 * (`sumsByCluster`). Two systems are drawn together when one statistic reads both.
 * Efron & Tibshirani (1993); p with + 1: Davison & Hinkley (1997), 4.2.
 */
export function clusterBootstrap(
  clusterCount: number,
  statistic: (drawn: Uint32Array) => number,
  { seed, draws = 10_000, level = 0.95 }: BootstrapOptions,
): Bootstrapped {
  checkLevel(level);
  if (clusterCount < 1 || draws < 1) throw new RangeError(`clusterBootstrap: ${draws} draws of ${clusterCount} clusters`);
  const drawn = new Uint32Array(clusterCount).fill(1);
  const value = statistic(drawn);
  const random = createRandom(seed, 'bootstrap');
  const values = new Float64Array(draws);
  for (let draw = 0; draw < draws; draw++) {
    drawn.fill(0);
    for (let i = 0; i < clusterCount; i++) drawn[random.integer(clusterCount)]++;
    values[draw] = statistic(drawn);
  }
  values.sort();
  const mean = values.reduce((sum, each) => sum + each, 0) / draws;
  const variance = values.reduce((sum, each) => sum + (each - mean) ** 2, 0) / (draws - 1);
  const atMost = values.filter((each) => each <= 0).length;
  const atLeast = values.filter((each) => each >= 0).length;
  const tail = (1 - level) / 2;
  return {
    value,
    se: Math.sqrt(variance),
    low: quantileOfSorted(values, tail),
    high: quantileOfSorted(values, 1 - tail),
    p: Math.min(1, (2 * (Math.min(atMost, atLeast) + 1)) / (draws + 1)),
    draws,
  };
}

/**
 * The bootstrap of a mean over questions, `clusters` of them drawn as one. Of differences between two systems
 * (a - b for each question) it is the paired bootstrap: both see the same questions in every draw.
 */
export function bootstrapMean(values: ArrayLike<number>, { clusters: keys, ...options }: BootstrapOptions & { clusters?: ClusterKeys }) {
  const clusters = clustersFor(values.length, keys);
  const [sums, sizes] = [sumsByCluster(values, clusters), clusterSizes(clusters)];
  const mean = (drawn: Uint32Array) => {
    let [sum, size] = [0, 0];
    for (let i = 0; i < drawn.length; i++) {
      sum += drawn[i] * sums[i];
      size += drawn[i] * sizes[i];
    }
    return sum / size;
  };
  return clusterBootstrap(clusters.count, mean, options);
}
