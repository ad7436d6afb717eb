// Tails and quantiles of the distributions that tests and intervals need, over the Cephes library of Moshier,
// from which the special functions of scipy come too. Small tails are asked for as such: 1 - cdf would lose
// them.

import { createRequire } from 'node:module';

type Cephes = typeof import('cephes', { with: { 'resolution-mode': 'require' }});

const require = createRequire(import.meta.url);
let library: Cephes | undefined;

/**
 * Loaded at the first use, which takes 15 ms, and by `require`: the CommonJS form of the package is ready at
 * once, the other one after an `await`, which every module above this one would have to pass on.
 */
const cephes = (): Cephes => {
  library ??= require('cephes') as Cephes;
  return library;
};

/** A tail so small that Cephes reports an underflow is 0. */
function tail(compute: () => number): number {
  try {
    return compute();
  } catch (error) {
    if (error instanceof Error && error.message.includes('underflow')) return 0;
    throw error;
  }
}

function checkProbability(name: string, p: number): void {
  if (!(p >= 0 && p <= 1)) throw new RangeError(`${name}: ${p} is no probability`);
}

function checkDegrees(name: string, ...degrees: number[]): void {
  for (const df of degrees) if (!(df > 0)) throw new RangeError(`${name}: ${df} degrees of freedom`);
}

/** P(Z <= x) of the standard normal distribution. */
export const normalCdf = (x: number): number => tail(() => cephes().ndtr(x));

/** The x with P(Z <= x) = p; infinite at 0 and 1. */
export function normalQuantile(p: number): number {
  checkProbability('normalQuantile', p);
  if (p === 0 || p === 1) return p === 0 ? -Infinity : Infinity;
  return cephes().ndtri(p);
}

/** P(|Z| >= |z|): the two-sided p of a z statistic. */
export const normalTwoSided = (z: number): number => 2 * normalCdf(-Math.abs(z));

/**
 * P(|T| >= |t|) of Student's t with `df` degrees of freedom, whole or not: the two-sided p of a t statistic.
 * Infinite `df` is the normal distribution.
 */
export function tTwoSided(t: number, df: number): number {
  checkDegrees('tTwoSided', df);
  if (df === Infinity) return normalTwoSided(t);
  if (Number.isNaN(t)) return Number.NaN;
  // written so that t^2 may overflow
  return tail(() => cephes().incbet(df / 2, 0.5, 1 / (1 + (t * t) / df)));
}

/** P(T <= t). */
export const tCdf = (t: number, df: number): number => (t < 0 ? tTwoSided(t, df) / 2 : 1 - tTwoSided(t, df) / 2);

/** From here on the expansion below is exact to 1e-10, while Cephes's inverse loses digits. */
const MANY_DEGREES = 5000;

/**
 * The t with P(T <= t) = p, to nine digits where the tail is 1e-6 or more. Many degrees of freedom:
 * Abramowitz & Stegun (1964), 26.7.5.
 */
export function tQuantile(p: number, df: number): number {
  checkProbability('tQuantile', p);
  checkDegrees('tQuantile', df);
  if (p === 0.5) return 0;
  if (p > 0.5) return -tQuantile(1 - p, df);
  const z = normalQuantile(p);
  if (df === Infinity || p === 0) return z;
  if (df >= MANY_DEGREES) {
    const terms = [z ** 3 + z, 5 * z ** 5 + 16 * z ** 3 + 3 * z, 3 * z ** 7 + 19 * z ** 5 + 17 * z ** 3 - 15 * z];
    return z + terms[0] / (4 * df) + terms[1] / (96 * df ** 2) + terms[2] / (384 * df ** 3);
  }
  // of the two forms, the one whose argument is not close to 1
  const far = 2 * p < 0.5;
  const share = far ? cephes().incbi(df / 2, 0.5, 2 * p) : cephes().incbi(0.5, df / 2, 1 - 2 * p);
  return -Math.sqrt(df * (far ? (1 - share) / share : share / (1 - share)));
}

/** P(X >= x) of chi-squared with `df` degrees of freedom. */
export function chiSquaredTail(x: number, df: number): number {
  checkDegrees('chiSquaredTail', df);
  return x <= 0 ? 1 : tail(() => cephes().chdtrc(df, x));
}

/** P(F >= f) with `df1` and `df2` degrees of freedom; an infinite `df2` is chi-squared over `df1`. */
export function fTail(f: number, df1: number, df2: number): number {
  checkDegrees('fTail', df1, df2);
  if (df2 === Infinity) return chiSquaredTail(f * df1, df1);
  return f <= 0 ? 1 : tail(() => cephes().incbet(df2 / 2, df1 / 2, 1 / (1 + (df1 * f) / df2)));
}

/** P(K <= k) of `n` tosses that succeed with probability `p`. */
export function binomialCdf(k: number, n: number, p: number): number {
  checkProbability('binomialCdf', p);
  if (!Number.isSafeInteger(n) || n < 0) throw new RangeError(`binomialCdf: ${n} tosses`);
  if (k < 0) return 0;
  if (k >= n) return 1;
  return tail(() => cephes().bdtr(Math.floor(k), n, p));
}
