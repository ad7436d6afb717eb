import { describe, expect, it } from 'vitest';
import { createRandom } from '../random.ts';
import { expectedBest } from './expected-best.ts';

/** All draws of n, with replacement or without. */
function bruteForce(values: readonly number[], n: number, withReplacement: boolean): number {
  const bests: number[] = [];
  const draw = (first: number, left: number, best: number) => {
    if (left === 0) bests.push(best);
    else for (let i = withReplacement ? 0 : first; i < values.length; i++) draw(i + 1, left - 1, Math.max(best, values[i]));
  };
  draw(0, n, Number.NEGATIVE_INFINITY);
  return bests.reduce((sum, best) => sum + best, 0) / bests.length;
}

describe('expected best of n', () => {
  it('is what the papers compute', () => {
    const curve = expectedBest([0.8, 0.5, 0.9, 0.6]);
    expect(curve.map(({ n }) => n)).toEqual([1, 2, 3, 4]);
    for (const [i, value] of [0.7, 0.7875, 0.8313, 0.8555].entries()) expect(curve[i].plain).toBeCloseTo(value, 4);
    for (const [i, value] of [0.7, 0.8167, 0.875, 0.9].entries()) expect(curve[i].unbiased).toBeCloseTo(value, 4);
  });

  it('is that of brute force, with equal values too', () => {
    const random = createRandom(3);
    for (const values of [Array.from({ length: 7 }, () => random.normal()), [1, 2, 2, 2, 0], [4]])
      for (const { n, plain, unbiased } of expectedBest(values)) {
        expect(plain).toBeCloseTo(bruteForce(values, n, true), 10);
        expect(unbiased).toBeCloseTo(bruteForce(values, n, false), 10);
      }
  });

  it('is of the smallest value where low is good', () => {
    const values = [0.3, 1.2, 0.7];
    const mirrored = expectedBest(values.map((value) => -value));
    for (const [i, { plain, unbiased }] of expectedBest(values, true).entries()) {
      expect(plain).toBeCloseTo(-mirrored[i].plain, 12);
      expect(unbiased).toBeCloseTo(-mirrored[i].unbiased, 12);
    }
    expect(expectedBest(values, true).at(-1)!.unbiased).toBeCloseTo(0.3, 12);
  });

  it('stays finite for many trials', () => {
    const values = Array.from({ length: 800 }, (_, i) => i / 800);
    const curve = expectedBest(values);
    expect(curve[399].unbiased).toBeGreaterThan(0.996);
    expect(curve.at(-1)!.unbiased).toBeCloseTo(799 / 800, 12);
  });
});
