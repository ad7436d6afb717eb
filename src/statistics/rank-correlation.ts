// Spearman's rank correlation, and its bootstrap.

import { type BootstrapOptions, type Bootstrapped, clusterBootstrap } from './bootstrap.ts';
import { correlation } from './paired.ts';

/** Ranks from 1, equal values at the mean of theirs. */
export function ranks(values: ArrayLike<number>): Float64Array {
  const order = Array.from(values, (_, i) => i).sort((a, b) => values[a] - values[b]);
  const result = new Float64Array(values.length);
  for (let from = 0; from < order.length; ) {
    let to = from;
    while (to + 1 < order.length && values[order[to + 1]] === values[order[from]]) to++;
    for (let i = from; i <= to; i++) result[order[i]] = (from + to) / 2 + 1;
    from = to + 1;
  }
  return result;
}

/** Pearson's correlation of the ranks; NaN where one side is constant. */
export const spearman = (a: ArrayLike<number>, b: ArrayLike<number>): number => correlation(ranks(a), ranks(b));

/**
 * With a percentile interval over pairs that are drawn again with replacement; draws in which a side is
 * constant count as 0.
 */
export function bootstrapSpearman(a: readonly number[], b: readonly number[], options: BootstrapOptions): Bootstrapped {
  if (a.length !== b.length) throw new RangeError(`${a.length} values beside ${b.length}`);
  return clusterBootstrap(
    a.length,
    (drawn) => {
      const repeated = (values: readonly number[]) => values.flatMap((value, i) => new Array<number>(drawn[i]).fill(value));
      const rho = spearman(repeated(a), repeated(b));
      return Number.isNaN(rho) ? 0 : rho;
    },
    options,
  );
}
