// What a comparison could see: how many questions or seeds an effect needs, and the smallest effect that a
// plan finds with a given chance. Differences are in the units of the scores (0.02 = 2 points).

import { normalCdf, normalQuantile, tQuantile } from './distributions.ts';
import { checkLevel } from './estimate.ts';

export interface PowerOptions {
  /** Two-sided level of the test; 0.05. */
  alpha?: number;
  /** Chance that the test finds the effect; 0.8. */
  power?: number;
}

const defaults = { alpha: 0.05, power: 0.8 };

/** (z at 1 - alpha / 2 + z at power)^2: 7.849 by default. */
function squaredShift(options: PowerOptions): number {
  const { alpha, power } = { ...defaults, ...options };
  checkLevel(alpha);
  checkLevel(power);
  return (normalQuantile(1 - alpha / 2) + normalQuantile(power)) ** 2;
}

// === Questions ===

/**
 * Variance of one question's paired difference, from the share of questions that exactly one system gets
 * right and the mean difference: p_d - d^2.
 */
export function discordantVariance(discordant: number, difference: number): number {
  if (!(discordant >= Math.abs(difference) && discordant <= 1))
    throw new RangeError(`a share of ${discordant} discordant questions cannot differ by ${difference}`);
  return discordant - difference ** 2;
}

/** The same from the standard deviation of a score and the correlation of two: 2 sd^2 (1 - rho). */
export const correlatedVariance = (sd: number, correlation: number): number => 2 * sd ** 2 * (1 - correlation);

/**
 * Questions that a paired comparison needs to find `difference`: shift^2 * variance / difference^2, times the
 * design effect of clusters, if any. Not rounded. Miller (2024), eq. 9, with one answer a question.
 */
export function questionsNeeded(difference: number, variance: number, options: PowerOptions & { designEffect?: number } = {}): number {
  return (squaredShift(options) * variance * (options.designEffect ?? 1)) / difference ** 2;
}

/**
 * The smallest difference that `n` questions show when a share of `discordant` has exactly one system right:
 * `questionsNeeded` with `discordantVariance`, solved for the difference.
 */
export function smallestDifference(n: number, discordant: number, options: PowerOptions & { designEffect?: number } = {}): number {
  const shift = squaredShift(options);
  return Math.sqrt((shift * discordant) / (n / (options.designEffect ?? 1) + shift));
}

// === Runs ===

/**
 * P(T > t) of the noncentral t distribution: the normal tail at t s - shift, averaged over s = sqrt(chi^2 /
 * df), by Simpson's rule over the 12 standard deviations around its mode.
 */
function noncentralTail(t: number, df: number, shift: number): number {
  const steps = 400;
  const mode = Math.sqrt(Math.max(0, df - 1) / df);
  const spread = 6 / Math.sqrt(2 * df);
  const low = Math.max(0, mode - spread);
  // one degree of freedom has the longest tail: half of a normal one
  const high = mode + Math.max(spread, df < 3 ? 9 : spread * 1.5);
  // density of s up to a factor, which the sum of weights takes out
  const logDensity = (s: number) => (df === 1 ? 0 : (df - 1) * Math.log(s / (mode || 1))) - (df * (s * s - mode * mode)) / 2;
  let [sum, weights] = [0, 0];
  for (let i = 0; i <= steps; i++) {
    const s = low + ((high - low) * i) / steps;
    const weight = Math.exp(logDensity(s)) * (i === 0 || i === steps ? 1 : i % 2 === 1 ? 4 : 2);
    sum += weight * normalCdf(shift - t * s);
    weights += weight;
  }
  return sum / weights;
}

/** Power of a two-sided t test with `df` degrees of freedom for an effect of `shift` standard errors. */
export function tTestPower(shift: number, df: number, alpha = defaults.alpha): number {
  const critical = tQuantile(1 - alpha / 2, df);
  if (df === Infinity) return normalCdf(shift - critical) + normalCdf(-shift - critical);
  return noncentralTail(critical, df, shift) + noncentralTail(critical, df, -shift);
}

/** The smallest effect, in standard errors, that a t test with `df` degrees of freedom finds. */
export function smallestShift(df: number, options: PowerOptions = {}): number {
  const { alpha, power } = { ...defaults, ...options };
  checkLevel(alpha);
  checkLevel(power);
  if (!(df > 0)) return Infinity;
  let [low, high] = [0, 1];
  while (tTestPower(high, df, alpha) < power) high *= 2;
  for (let i = 0; i < 40; i++) {
    const middle = (low + high) / 2;
    if (tTestPower(middle, df, alpha) < power) low = middle;
    else high = middle;
  }
  return (low + high) / 2;
}

/** Runs of a plan whose cells all have the same number of seeds. */
export interface RunPlan {
  runs: number;
  /** Means that the runs are about: 2 for two arms, 8 for a 2^3 factorial. */
  cells: number;
  /** Of the factor that is asked about. Default: 2. */
  levels?: number;
}

/**
 * Standard error of the difference of two levels of a factor when every run counts for one level, as many
 * for each: sd sqrt(2 levels / runs), sd between the runs of a cell. Two arms of s seeds: sd sqrt(2 / s); 2^3
 * cells of s: sd sqrt(1 / (2 s)).
 */
export const runStandardError = (runSd: number, { runs, levels = 2 }: RunPlan): number => runSd * Math.sqrt((2 * levels) / runs);

/** The smallest effect that a plan of runs finds, from run noise alone; Infinity with one run a cell. */
export function smallestRunEffect(runSd: number, plan: RunPlan, options: PowerOptions = {}): number {
  return runStandardError(runSd, plan) * smallestShift(plan.runs - plan.cells, options);
}

/** Seeds that each of `cells` needs so that an effect of `difference` is found; Infinity above 10,000. */
export function seedsNeeded(difference: number, runSd: number, cells = 2, options: PowerOptions = {}): number {
  const { alpha, power } = { ...defaults, ...options };
  const finds = (seeds: number) => {
    const plan = { runs: cells * seeds, cells };
    return tTestPower(Math.abs(difference) / runStandardError(runSd, plan), plan.runs - cells, alpha) >= power;
  };
  let high = 2;
  while (high <= 10_000 && !finds(high)) high *= 2;
  if (high > 10_000) return Infinity;
  let low = 1;
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (finds(middle)) high = middle;
    else low = middle;
  }
  return high;
}
