// How many directions a set of rows makes use of, and whether different pictures give different rows: a
// connector that has collapsed gives all of them the same. Effective rank: Roy & Vetterli 2007.

import { covarianceFactor, type Matrix, type Rows, singularValues } from './matrices.ts';

/** exp(-sum p log p), p the share of each value in their sum. 0 where all are 0. */
export function exponentialEntropy(values: ArrayLike<number>): number {
  const all = Array.from(values);
  const total = all.reduce((sum, value) => sum + value, 0);
  if (!(total > 0)) return 0;
  const entropy = all.reduce((sum, value) => (value > 0 ? sum - (value / total) * Math.log(value / total) : sum), 0);
  return Math.exp(entropy);
}

/**
 * Effective rank of rows about their mean, from their singular values (not from the eigenvalues of the
 * covariance).
 */
export function effectiveRank(rows: Rows): number {
  const { factor } = covarianceFactor(rows);
  const values = singularValues(factor as Matrix);
  // what rounding leaves of directions that are not there
  return exponentialEntropy(values.filter((value) => value > Number.EPSILON * rows.count * values[0]));
}
