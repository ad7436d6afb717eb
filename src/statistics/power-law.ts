// L(N) = a + b N^-c, fitted to losses as Hoffmann et al. (2022), "Training Compute-Optimal Large Language
// Models", do: Huber loss of log L, many starts. The losses are summed, not averaged: an average is so small
// that an optimizer stops early (Besiroglu et al. 2024, arXiv 2404.10102).

import { createRandom } from '../random.ts';
import type { Interval } from './estimate.ts';
import { nelderMead } from './nelder-mead.ts';

/** A measured loss L at N. */
export interface LossPoint {
  n: number;
  loss: number;
  /** The run that it is of, or the seed: what is drawn again as one. */
  run: string | number;
}

/** a + b n^-c. */
export interface PowerLaw {
  a: number;
  b: number;
  c: number;
}

const HUBER = 1e-3;
/** Starts: log a, log b, c. */
const STARTS = [-1, -0.5, 0, 0.5, 1].flatMap((logA) =>
  [0, 5, 10, 15, 20, 25].flatMap((logB) => [0, 0.5, 1, 1.5, 2].map((c) => [logA, logB, c])),
);
/** Where the starts end: a fit beyond is one at its bound. */
const LARGEST_EXPONENT = 2;
/** How many of the starts are followed to their end: those that begin lowest. */
const FOLLOWED = 12;

const huber = (error: number) => (Math.abs(error) <= HUBER ? error ** 2 / 2 : HUBER * (Math.abs(error) - HUBER / 2));

/** log(e^x + e^y). */
const logSum = (x: number, y: number) => Math.max(x, y) + Math.log1p(Math.exp(-Math.abs(x - y)));

const objective =
  (points: readonly LossPoint[]) =>
  ([logA, logB, c]: readonly number[]): number =>
    points.reduce((sum, { n, loss }) => sum + huber(logSum(logA, logB - c * Math.log(n)) - Math.log(loss)), 0);

const lawOf = ([logA, logB, c]: readonly number[]): PowerLaw => ({ a: Math.exp(logA), b: Math.exp(logB), c });

/** The best fit from `starts`, by default the whole grid. RangeError for values that are not above 0. */
export function fitPowerLaw(points: readonly LossPoint[], starts: readonly (readonly number[])[] = STARTS): PowerLaw {
  for (const { n, loss } of points) if (!(n > 0 && loss > 0)) throw new RangeError(`fitPowerLaw: a loss of ${loss} at ${n}`);
  const f = objective(points);
  const lowest = starts
    .map((start) => ({ start, value: f(start) }))
    .sort((x, y) => x.value - y.value)
    .slice(0, FOLLOWED);
  // once more from where the first search ends: a simplex may have collapsed too early
  const ends = lowest.map(({ start }) => nelderMead(f, nelderMead(f, start, { tolerance: 1e-14 }).point, { tolerance: 1e-16, size: 0.1 }));
  return lawOf(ends.reduce((best, each) => (each.value < best.value ? each : best)).point);
}

export const lossAt = ({ a, b, c }: PowerLaw, n: number): number => a + b * n ** -c;

export interface FittedPowerLaw extends PowerLaw {
  /** Percentiles over the draws; absent where one run leaves nothing to draw. */
  intervals?: Record<'a' | 'b' | 'c', Interval>;
  /** The curve, with its band where there are intervals. */
  curve: ({ n: number; loss: number } & Partial<Interval>)[];
  /** Why the fit says nothing about the exponent; undefined where it does. */
  notIdentified?: string;
  /** What the fit to all sizes but the largest says of the largest, and what was measured there. */
  heldOut?: { n: number; predicted: number; measured: number } & Partial<Interval>;
}

const percentile = (values: readonly number[], p: number) => {
  const sorted = values.toSorted((x, y) => x - y);
  return sorted[Math.min(sorted.length - 1, Math.max(0, Math.round(p * (sorted.length - 1))))];
};

const intervalOf = (values: readonly number[], level: number): Interval => ({
  low: percentile(values, (1 - level) / 2),
  high: percentile(values, (1 + level) / 2),
});

/**
 * Fits to data of which runs are drawn again with replacement; draws of fewer than three sizes are passed
 * over. Of one run every draw would be the same: there are none.
 */
function refits(points: readonly LossPoint[], law: PowerLaw, draws: number, seed: number): PowerLaw[] {
  const runs = [...new Set(points.map(({ run }) => run))];
  if (runs.length < 2) return [];
  const random = createRandom(seed, 'power law');
  // a draw differs little from the data: its fit is looked for where theirs is, and once from elsewhere
  const starts = [
    [Math.log(law.a), Math.log(law.b), law.c],
    [0, 0, 0.5],
  ];
  return Array.from({ length: draws }, () => {
    const drawn = runs.map(() => runs[random.integer(runs.length)]);
    return drawn.flatMap((run) => points.filter((point) => point.run === run));
  }).flatMap((sample) => (new Set(sample.map(({ n }) => n)).size < 3 ? [] : [fitPowerLaw(sample, starts)]));
}

/** Sizes and decades below which a fit is not to be trusted. */
const FEWEST_SIZES = 6;
const LEAST_DECADES = 1.5;
/**
 * Seeds below which drawing them again shows next to nothing of how they differ: three can be drawn in ten
 * ways.
 */
const FEWEST_SEEDS = 5;

function whyNotIdentified(points: readonly LossPoint[], { c }: PowerLaw, interval: Interval | undefined): string | undefined {
  const sizes = points.map(({ n }) => n);
  const count = new Set(sizes).size;
  const decades = Math.log10(Math.max(...sizes) / Math.min(...sizes));
  if (count < FEWEST_SIZES) return `${count} sizes, and a fit of three numbers needs ${FEWEST_SIZES}`;
  if (decades < LEAST_DECADES) return `the sizes span ${decades.toFixed(1)} decades, and a fit needs ${LEAST_DECADES}`;
  if (interval === undefined) return 'one seed leaves nothing to draw: the exponent has no interval';
  const seeds = new Set(points.map(({ run }) => run)).size;
  if (seeds < FEWEST_SEEDS) return `${seeds} seeds are too few to draw from: an interval needs ${FEWEST_SEEDS}`;
  if (!(interval.low > 0)) return 'the interval of c covers 0';
  if (!(c > 0) || c >= LARGEST_EXPONENT || interval.high >= LARGEST_EXPONENT) return `c is at the bound of ${LARGEST_EXPONENT}`;
  return undefined;
}

export interface PowerLawOptions {
  seed: number;
  /** Of the bootstrap over runs; 1,000. */
  draws?: number;
  /** Of the intervals; 0.95. */
  level?: number;
}

/**
 * The law with bootstrap intervals over runs (every run drawn with all its points), its band, and what it
 * says of the largest N when that is held out. One run has no intervals. Undefined with fewer than three
 * sizes.
 */
export function powerLawWithIntervals(
  points: readonly LossPoint[],
  { seed, draws = 1000, level = 0.95 }: PowerLawOptions,
): FittedPowerLaw | undefined {
  const sizes = [...new Set(points.map(({ n }) => n))].sort((x, y) => x - y);
  if (sizes.length < 3) return undefined;
  const law = fitPowerLaw(points);
  const others = refits(points, law, draws, seed);
  const spread = (of: (other: PowerLaw) => number) => intervalOf(others.map(of), level);
  const isDrawn = others.length > 0;
  const intervals = isDrawn ? { a: spread(({ a }) => a), b: spread(({ b }) => b), c: spread(({ c }) => c) } : undefined;
  const [from, to] = [sizes[0], sizes.at(-1)!];
  const curve = Array.from({ length: 25 }, (_, i) => {
    const n = from * (to / from) ** (i / 24);
    return { n, loss: lossAt(law, n), ...(isDrawn ? spread((other) => lossAt(other, n)) : {}) };
  });
  return {
    ...law,
    ...(intervals ? { intervals } : {}),
    curve,
    notIdentified: whyNotIdentified(points, law, intervals?.c),
    heldOut: heldOutOf(points, to, sizes.length, { seed, draws, level }),
  };
}

function heldOutOf(points: readonly LossPoint[], n: number, sizes: number, { seed, draws, level }: Required<PowerLawOptions>) {
  if (sizes < 4) return undefined;
  const rest = points.filter((point) => point.n !== n);
  const own = points.filter((point) => point.n === n);
  const law = fitPowerLaw(rest);
  const predictions = refits(rest, law, draws, seed).map((each) => lossAt(each, n));
  const measured = own.reduce((sum, { loss }) => sum + loss, 0) / own.length;
  return { n, predicted: lossAt(law, n), ...(predictions.length > 0 ? intervalOf(predictions, level) : {}), measured };
}
