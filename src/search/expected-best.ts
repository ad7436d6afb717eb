// The best that n trials can be expected to give, from N that were made: what makes searches comparable
// that were given different budgets. Dodge et al. 2019 (arXiv 1909.03004); unbiased: Tang et al. 2020
// (2004.13705).

export interface ExpectedBest {
  n: number;
  /** Of n draws with replacement from the trials. */
  plain: number;
  /** Of n different trials: the mean over all subsets. */
  unbiased: number;
}

/**
 * Expected largest of n values for n = 1 .. N; with `lowest`, the expected smallest. The values must be of
 * trials that do not depend on each other.
 */
export function expectedBest(values: readonly number[], lowest = false): ExpectedBest[] {
  const sign = lowest ? -1 : 1;
  const sorted = values.map((value) => sign * value).sort((a, b) => a - b);
  const total = sorted.length;
  return sorted.map((_, index) => {
    const n = index + 1;
    let plain = 0;
    for (const [i, value] of sorted.entries()) plain += value * (((i + 1) / total) ** n - (i / total) ** n);
    // C(i, n - 1) / C(N, n): the share of subsets in which value i is the largest, from the last one down
    let unbiased = 0;
    for (let i = total - 1, share = n / total; i >= n - 1; share *= (i - n + 1) / i, i--) unbiased += sorted[i] * share;
    return { n, plain: sign * plain, unbiased: sign * unbiased };
  });
}
