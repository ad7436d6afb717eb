// Tree-structured Parzen estimator (Bergstra et al. 2011), as Optuna 5 describes its sampler: multivariate,
// with pending trials counted among the bad ones. The good trials and the others are each a mixture, with a
// kernel for each trial; of points drawn from the good mixture, the one is taken that is likeliest beside
// the other.

import { createRandom, type Random } from '../random.ts';
import { normalCdf } from '../statistics/distributions.ts';
import { levelsOf, type Point, type Space } from './space.ts';

/** A trial as the estimator sees it: lower is better; undefined where it is pending, failed or diverged. */
export interface Observation {
  point: Point;
  loss: number | undefined;
}

/** Trials that are random before anything is learned. */
export const STARTUP = 10;
/** Points that are drawn from the good mixture. */
const CANDIDATES = 24;
/** The newest trials, whose weights are equal. */
const FLAT = 25;
const MOST_GOOD = 25;
const GOOD_SHARE = 0.1;

/** One kernel: a normal cut to [0, 1) for a continuous dimension, a table for one with choices. */
type Kernel = { mean: number; sigma: number; mass: number } | { chances: readonly number[] };

interface Mixture {
  weights: readonly number[];
  /** By component and dimension. */
  kernels: readonly (readonly Kernel[])[];
}

/** Weights of n trials in the order in which they came: 1 for the newest, those before on a ramp from 1/n. */
export function ageWeights(n: number): number[] {
  const old = Math.max(0, n - FLAT);
  const ramp = Array.from({ length: old }, (_, i) => (old === 1 ? 1 / n : 1 / n + (i / (old - 1)) * (1 - 1 / n)));
  return [...ramp, ...Array<number>(n - old).fill(1)];
}

/** Which trials are good: the best tenth, rounded up, at most 25. In the order in which they came. */
export function splitTrials(trials: readonly Observation[]): { good: Observation[]; others: Observation[] } {
  const ranked = trials
    .map((trial, index) => ({ trial, index, loss: trial.loss ?? Number.POSITIVE_INFINITY }))
    .filter(({ trial }) => trial.loss !== undefined)
    .sort((a, b) => a.loss - b.loss || a.index - b.index);
  const good = new Set(ranked.slice(0, Math.min(Math.ceil(GOOD_SHARE * ranked.length), MOST_GOOD)).map(({ trial }) => trial));
  return { good: trials.filter((trial) => good.has(trial)), others: trials.filter((trial) => !good.has(trial)) };
}

const kernelOf = (mean: number, sigma: number): Kernel => ({ mean, sigma, mass: normalCdf((1 - mean) / sigma) - normalCdf(-mean / sigma) });

/** A kernel for each point, and a wide one, which stands for knowing nothing. */
function mixtureOf(space: Space, points: readonly Point[]): Mixture {
  const n = points.length;
  // Scott's rule, as wide as the number of points and of dimensions asks for
  const scott = 0.2 * Math.max(n, 1) ** (-1 / (space.length + 4));
  const sigma = Math.min(1, Math.max(scott, 1 / Math.min(100, n + 2)));
  const around = (point: Point) =>
    space.map((dimension, i): Kernel => {
      if (dimension.kind !== 'choice') return kernelOf(point[i], sigma);
      const levels = levelsOf(dimension);
      const chosen = Math.min(levels - 1, Math.floor(point[i] * levels));
      // the weight of one trial beside a prior of the weight of one that all kernels share
      const prior = 1 / (n + 1);
      return { chances: Array.from({ length: levels }, (_, k) => (prior + (k === chosen ? 1 : 0)) / (1 + levels * prior)) };
    });
  const prior = space.map((dimension): Kernel => {
    if (dimension.kind !== 'choice') return kernelOf(0.5, 1);
    return { chances: Array<number>(levelsOf(dimension)).fill(1 / levelsOf(dimension)) };
  });
  const weights = [...ageWeights(n), 1];
  const sum = weights.reduce((total, weight) => total + weight, 0);
  return { weights: weights.map((weight) => weight / sum), kernels: [...points.map(around), prior] };
}

function indexOf(chances: readonly number[], random: Random): number {
  let rest = random.uniform();
  for (const [index, chance] of chances.entries()) {
    rest -= chance;
    if (rest < 0) return index;
  }
  return chances.length - 1;
}

/** A normal that falls into [0, 1), by drawing again. A third of a kernel or more lies there. */
function truncatedNormal(mean: number, sigma: number, random: Random): number {
  for (;;) {
    const drawn = mean + sigma * random.normal();
    if (drawn >= 0 && drawn < 1) return drawn;
  }
}

function drawFrom({ weights, kernels }: Mixture, random: Random): number[] {
  return kernels[indexOf(weights, random)].map((kernel) => {
    if ('chances' in kernel) return (indexOf(kernel.chances, random) + 0.5) / kernel.chances.length;
    return truncatedNormal(kernel.mean, kernel.sigma, random);
  });
}

function logDensity({ weights, kernels }: Mixture, point: Point): number {
  const terms = kernels.map((component, k) => {
    let sum = Math.log(weights[k]);
    for (const [i, kernel] of component.entries()) {
      if ('chances' in kernel)
        sum += Math.log(kernel.chances[Math.min(kernel.chances.length - 1, Math.floor(point[i] * kernel.chances.length))]);
      else sum -= 0.5 * ((point[i] - kernel.mean) / kernel.sigma) ** 2 + Math.log(kernel.sigma * kernel.mass);
    }
    return sum;
  });
  const largest = Math.max(...terms);
  return largest + Math.log(terms.reduce((sum, term) => sum + Math.exp(term - largest), 0));
}

/** The point of proposal `index` after these trials, at least STARTUP, in the order in which they came. */
export function tpePoint(space: Space, trials: readonly Observation[], index: number, seed: number): number[] {
  const { good, others } = splitTrials(trials);
  const [better, worse] = [good, others].map((group) =>
    mixtureOf(
      space,
      group.map(({ point }) => point),
    ),
  );
  const random = createRandom(seed, 'tpe', index);
  let best: number[] = [];
  let highest = Number.NEGATIVE_INFINITY;
  for (let i = 0; i < CANDIDATES; i++) {
    const point = drawFrom(better, random);
    const score = logDensity(better, point) - logDensity(worse, point);
    if (score <= highest) continue;
    [best, highest] = [point, score];
  }
  return best;
}
