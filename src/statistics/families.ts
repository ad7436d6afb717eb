// Many comparisons at once.

/**
 * Holm (1979): p values adjusted so that the chance of any false discovery in the family stays below the
 * level. adj_i = max over j <= i of min(1, (m - j + 1) p_j), p sorted. In the order in which they came.
 */
export function holm(pValues: readonly number[]): number[] {
  for (const p of pValues) if (!(p >= 0 && p <= 1)) throw new RangeError(`holm: ${p} is no p value`);
  const order = pValues.map((_, i) => i).sort((a, b) => pValues[a] - pValues[b]);
  const adjusted = new Array<number>(pValues.length);
  let least = 0;
  order.forEach((index, rank) => {
    least = Math.max(least, Math.min(1, (pValues.length - rank) * pValues[index]));
    adjusted[index] = least;
  });
  return adjusted;
}
