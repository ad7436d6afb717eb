import { expect, it } from 'vitest';
import { flopsOf } from './compute.ts';
import { atEqualFlops } from './search-report.ts';

it('a token takes four operations a weight, and two more for one that is trained', () => {
  const frozen = { trained: { connector: 10 }, frozen: 90, steps: 5, tokensPerStep: 20 };
  const all = { trained: { connector: 10, model: 90 }, frozen: 0, steps: 5, tokensPerStep: 20 };
  // 6 N D where all is trained
  expect(flopsOf({ stages: [all] as never })).toBe(6 * 100 * 100);
  expect(flopsOf({ stages: [frozen, all] as never })).toBe(100 * (4 * 100 + 2 * 10) + 60_000);
});

it('variants are cut where they have spent what the cheapest one has in all', () => {
  const points = (...values: number[]) => values.map((value, i) => ({ spent: i + 1, value }));
  const small = { flops: 1, spent: 4, bestSoFar: points(0.5, 0.6, 0.6, 0.7) };
  const large = { flops: 2, spent: 4, bestSoFar: points(0.4, 0.65, 0.8, 0.9) };
  const huge = { flops: 5, spent: 4, bestSoFar: points(0.9, 0.9, 0.9, 0.95) };
  expect(atEqualFlops([small, large, huge])).toEqual({ flops: 4, values: [0.7, 0.65, undefined] });
  // thirds of schedules, as ASHA spends them, are not lost to rounding
  const thirds = { flops: 3, spent: 1.333333333, bestSoFar: [{ spent: 1.333333333, value: 0.1 }] };
  expect(atEqualFlops([small, thirds]).values).toEqual([0.7, 0.1]);
});
