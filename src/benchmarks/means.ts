// Means as official scorers take them: summed in the order of the questions, so that they agree to the last
// digit; the mean of nothing is 0.

import { meanOf } from '../statistics/proportion.ts';

export const mean = (values: readonly number[]): number => (values.length === 0 ? 0 : meanOf(values));

/** The mean of shares, in percent. */
export const percent = (values: readonly number[]): number => mean(values) * 100;

/**
 * What belongs to each group, in the order in which groups come. An item may be in several groups; what is in
 * none is left out.
 */
export function byGroup<T>(items: readonly T[], groupOf: (item: T) => string | readonly string[] | undefined): Map<string, T[]> {
  const members = new Map<string, T[]>();
  const add = (group: string, item: T) => {
    const found = members.get(group);
    if (found) found.push(item);
    else members.set(group, [item]);
  };
  for (const item of items) {
    const groups = groupOf(item);
    if (typeof groups === 'string') add(groups, item);
    else for (const group of new Set(groups)) add(group, item);
  }
  return members;
}
