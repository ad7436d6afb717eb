// Means as official scorers take them: summed in the order of the questions, so that they agree to the last
// digit; the mean of nothing is 0.

import { meanOf } from '../statistics/proportion.ts';

export const mean = (values: readonly number[]): number => (values.length === 0 ? 0 : meanOf(values));

/** The mean of shares, in percent. */
export const percent = (values: readonly number[]): number => mean(values) * 100;

/** What belongs to each group, in the order in which groups come; what has no group is left out. */
export function byGroup<T>(items: readonly T[], groupOf: (item: T) => string | undefined): Map<string, T[]> {
  const members = new Map<string, T[]>();
  for (const item of items) {
    const group = groupOf(item);
    if (group === undefined) continue;
    const found = members.get(group);
    if (found) found.push(item);
    else members.set(group, [item]);
  }
  return members;
}
