// Least squares with standard errors that hold when observations belong together in one way or two: answers
// to the same question, answers of the same run. Of right and wrong answers it is the linear probability
// model: effects are in points of the score.

import { type ClusterKeys, type Clusters, clustersFor, crossed } from './clusters.ts';
import { fTail } from './distributions.ts';
import { type Estimate, estimateOf } from './estimate.ts';
import type { Design } from './factors.ts';
import { inverseOfTriangle, orthogonalize, solve } from './matrix.ts';

/** A symmetric matrix over the columns of a model, row after row: [k * k]. */
type Matrix = Float64Array;

export interface LinearModelOptions {
  /**
   * What the observations share: nothing (plain least squares), one thing, or two, such as question and run.
   */
  clusters?: readonly ClusterKeys[];
  /**
   * For how few clusters make up. `between` (the default): G / (G - k) and t(G - k), k of the columns being
   * constant within clusters, exact for balanced runs that differ in these columns. `cgm`: G / (G - 1) * (n -
   * 1) / (n - columns) and t(G - 1), as statsmodels and Stata have it; too sure of itself when eight effects
   * are told from 16 runs.
   */
  smallSample?: 'between' | 'cgm';
}

export interface LinearModel {
  names: readonly string[];
  coefficients: Float64Array;
  /** Of the coefficients, [k * k]. With two ways: V_1 + V_2 - V_both. */
  covariance: Matrix;
  /** What each way of clustering says alone. */
  ways: readonly { covariance: Matrix; df: number }[];
  /** Degrees of freedom: of two ways, the smaller. 0 where there is nothing to estimate errors from. */
  df: number;
  n: number;
  /** How many clusters there are each way. */
  clusterCounts: number[];
  /** The largest observation: 1e-12 of it is rounding. */
  scale: number;
}

/** Sum over clusters of s s', s the sum of x e over the cluster: the middle of the sandwich. */
function meatOf(columns: readonly Float64Array[], residuals: Float64Array, { ids, count }: Clusters): Matrix {
  const k = columns.length;
  const sums = columns.map((column) => {
    const sum = new Float64Array(count);
    for (let i = 0; i < ids.length; i++) sum[ids[i]] += column[i] * residuals[i];
    return sum;
  });
  const meat = new Float64Array(k * k);
  for (let a = 0; a < k; a++)
    for (let b = 0; b <= a; b++) {
      let dot = 0;
      for (let g = 0; g < count; g++) dot += sums[a][g] * sums[b][g];
      meat[a * k + b] = meat[b * k + a] = dot;
    }
  return meat;
}

/** bread * meat * bread, times a factor. */
function sandwich(bread: Matrix, meat: Matrix, k: number, factor: number): Matrix {
  const times = (a: Matrix, b: Matrix) => {
    const result = new Float64Array(k * k);
    for (let i = 0; i < k; i++) for (let l = 0; l < k; l++) for (let j = 0; j < k; j++) result[i * k + j] += a[i * k + l] * b[l * k + j];
    return result;
  };
  return times(times(bread, meat), bread).map((value) => value * factor);
}

/** How many columns are constant within every cluster: what the clusters, not the observations, tell. */
function constantColumns(columns: readonly Float64Array[], { ids, count }: Clusters): number {
  const first = new Int32Array(count).fill(-1);
  ids.forEach((id, i) => {
    if (first[id] < 0) first[id] = i;
  });
  return columns.filter((column) => ids.every((id, i) => column[i] === column[first[id]])).length;
}

/** w' M w. */
function quadratic(weights: ArrayLike<number>, matrix: Matrix): number {
  const k = weights.length;
  let sum = 0;
  for (let a = 0; a < k; a++) for (let b = 0; b < k; b++) sum += weights[a] * matrix[a * k + b] * weights[b];
  return sum;
}

/**
 * Least squares of y [n] on the columns of a design, by modified Gram-Schmidt. Clustered two ways: Cameron,
 * Gelbach & Miller (2011), "Robust Inference With Multiway Clustering"; degrees of freedom between clusters:
 * Donald & Lang (2007), "Inference with Difference-in-Differences and Other Panel Data". RangeError if a
 * column follows from those before it (cells that the data do not have), named.
 */
export function fitLinearModel(
  y: ArrayLike<number>,
  design: Pick<Design, 'names' | 'columns'>,
  options: LinearModelOptions = {},
): LinearModel {
  const { names, columns } = design;
  const { clusters: keys = [], smallSample = 'between' } = options;
  const [n, k] = [y.length, columns.length];
  if (columns.some((column) => column.length !== n)) throw new RangeError(`${n} observations for columns of ${columns[0]?.length}`);
  if (keys.length > 2) throw new RangeError(`clustered ${keys.length} ways: at most two`);

  const { triangle, dependent, target: residuals, coordinates } = orthogonalize(columns, y);
  if (dependent !== undefined) throw new RangeError(`the data cannot tell ${names[dependent]} from the effects before it`);
  const inverse = inverseOfTriangle(triangle, k);
  const coefficients = new Float64Array(k);
  const bread = new Float64Array(k * k);
  for (let a = 0; a < k; a++)
    for (let l = a; l < k; l++) {
      coefficients[a] += inverse[a * k + l] * coordinates[l];
      for (let b = 0; b <= l; b++) bread[a * k + b] += inverse[a * k + l] * inverse[b * k + l];
    }

  const fit = { names, coefficients, n, scale: Array.from(y).reduce((most, each) => Math.max(most, Math.abs(each)), 0) };
  if (keys.length === 0) {
    const variance = n > k ? residuals.reduce((sum, e) => sum + e * e, 0) / (n - k) : Number.NaN;
    return { ...fit, covariance: bread.map((value) => value * variance), ways: [], df: n - k, clusterCounts: [] };
  }
  const wayOf = (clusters: Clusters, lost: number) => {
    const { count } = clusters;
    const factor = smallSample === 'cgm' ? (count / (count - 1)) * ((n - 1) / (n - k)) : count / (count - lost);
    const df = Math.max(0, count - lost);
    return { covariance: sandwich(bread, meatOf(columns, residuals, clusters), k, df > 0 ? factor : Number.NaN), df };
  };
  const clusters = keys.map((each) => clustersFor(n, each));
  const ways = clusters.map((each) => wayOf(each, smallSample === 'cgm' ? 1 : Math.max(1, constantColumns(columns, each))));
  const clustered = { ...fit, ways, df: Math.min(...ways.map(({ df }) => df)), clusterCounts: clusters.map(({ count }) => count) };
  if (ways.length === 1) return { ...clustered, covariance: ways[0].covariance };
  const both = wayOf(crossed(clusters[0], clusters[1]), smallSample === 'cgm' ? 1 : k).covariance;
  return { ...clustered, covariance: ways[0].covariance.map((value, i) => value + ways[1].covariance[i] - both[i]) };
}

/**
 * Degrees of freedom of a variance that adds up from the two ways: Satterthwaite (1946). Not below those of
 * the poorer way, as the ways share what the answers add.
 */
function degreesOf({ ways, df }: LinearModel, variance: number, alone: readonly number[]): number {
  if (!(df > 0) || !(variance > 0) || ways.length < 2) return df;
  const spread = alone.reduce((sum, each, i) => sum + each ** 2 / ways[i].df, 0);
  return Math.min(Math.max(df, variance ** 2 / spread), Math.max(...ways.map((way) => way.df)));
}

/**
 * A weighted sum of coefficients: `{ 'encoder[siglip]': 2 }` is the effect of a factor with two levels. The
 * variance of two ways is a difference and may come out smaller than that of one alone, or negative; the
 * largest of the three is taken (MacKinnon, Nielsen & Webb 2024, "Jackknife inference with two-way
 * clustering"). With `cgm` too: only what other tools print, `covariance`, is without it.
 */
export function contrast(model: LinearModel, weights: Readonly<Record<string, number>>, level = 0.95): Estimate {
  const row = new Float64Array(model.names.length);
  for (const [name, weight] of Object.entries(weights)) {
    const index = model.names.indexOf(name);
    if (index < 0) throw new RangeError(`the model has no column ${name}`);
    row[index] = weight;
  }
  // where nothing varies, sums end at 1e-17 and not at 0, and one such number over another is a t of anything
  const rounding = 1e-12 * model.scale * row.reduce((sum, weight) => sum + Math.abs(weight), 0);
  const unlessRounding = (number: number) => (Math.abs(number) <= rounding ? 0 : number);
  const value = row.reduce((sum, weight, i) => sum + weight * model.coefficients[i], 0);
  const alone = model.ways.map(({ covariance }) => quadratic(row, covariance));
  const variance = Math.max(quadratic(row, model.covariance), ...alone);
  return estimateOf(unlessRounding(value), unlessRounding(Math.sqrt(variance)), degreesOf(model, variance, alone), level);
}

/**
 * A mean over questions and runs that both vary, of one answer a question and run: V_question + V_run -
 * V_both.
 */
export function twoWayMean(values: ArrayLike<number>, questions: ClusterKeys, runs: ClusterKeys, level = 0.95): Estimate {
  const design = { names: ['(mean)'], columns: [new Float64Array(values.length).fill(1)] };
  return contrast(fitLinearModel(values, design, { clusters: [questions, runs] }), { '(mean)': 1 }, level);
}

/** Whether any of several coefficients is not 0: those of a factor with three levels, of an interaction. */
export interface JointTest {
  f: number;
  /** Degrees of freedom: coefficients, and those of the model. */
  df1: number;
  df2: number;
  p: number;
}

/**
 * Wald's test with F(q, df). NaN where the covariance of the coefficients is none (negative, or without
 * degrees of freedom): the contrasts one by one say what can be said.
 */
export function jointTest(model: LinearModel, names: readonly string[]): JointTest {
  const k = model.names.length;
  const at = names.map((name) => model.names.indexOf(name));
  if (at.includes(-1) || at.length === 0) throw new RangeError(`the model has no columns ${names.filter((_, i) => at[i] < 0).join(', ')}`);
  const values = at.map((i) => model.coefficients[i]);
  const block = Float64Array.from(at.flatMap((a) => at.map((b) => model.covariance[a * k + b])));
  const solved = model.df > 0 ? solve(block, values) : undefined;
  const f = solved === undefined ? Number.NaN : values.reduce((sum, value, i) => sum + value * solved[i], 0) / at.length;
  return { f, df1: at.length, df2: model.df, p: f >= 0 ? fTail(f, at.length, model.df) : Number.NaN };
}
