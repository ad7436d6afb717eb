import { describe, expect, test } from 'vitest';
import { createRandom } from '../random.ts';
import { nelderMead } from './nelder-mead.ts';
import { fitPowerLaw, type LossPoint, powerLawWithIntervals } from './power-law.ts';
import { bootstrapSpearman, ranks, spearman } from './rank-correlation.ts';

test('Nelder-Mead finds the bottom of the valley of Rosenbrock', () => {
  const { point, value } = nelderMead(([x, y]) => (1 - x) ** 2 + 100 * (y - x * x) ** 2, [-1.2, 1]);
  expect(value).toBeLessThan(1e-10);
  expect(point[0]).toBeCloseTo(1, 4);
  expect(point[1]).toBeCloseTo(1, 4);
});

const sizes = [16, 32, 64, 128, 256, 512, 1024];

const points = (law: (n: number) => number, noise = 0, seeds = 3): LossPoint[] => {
  const random = createRandom(5);
  return Array.from({ length: seeds }, (_, run) => sizes.map((n) => ({ n, loss: law(n) * (1 + noise * random.normal()), run }))).flat();
};

describe('a power law', () => {
  test.each([
    [1.7, 4, 0.5],
    [0.4, 20, 0.8],
  ])('a %d, b %d, c %d is found again', (a, b, c) => {
    const got = fitPowerLaw(points((n) => a + b * n ** -c));
    expect(got.a).toBeCloseTo(a, 3);
    expect(got.b / b).toBeCloseTo(1, 2);
    expect(got.c).toBeCloseTo(c, 3);
  });

  test('with noise between runs has an interval that holds the truth, and foretells the largest size', () => {
    const got = powerLawWithIntervals(
      points((n) => 1.7 + 4 * n ** -0.5, 0.004, 5),
      { seed: 1, draws: 60 },
    )!;
    expect(got.notIdentified).toBeUndefined();
    const { low, high } = got.intervals!.c;
    expect(low).toBeLessThan(0.5);
    expect(high).toBeGreaterThan(0.5);
    expect(high - low).toBeGreaterThan(0.01);
    expect(Math.abs(got.heldOut!.predicted / got.heldOut!.measured - 1)).toBeLessThan(0.02);
  });

  test('is said not to be identified where the loss does not fall, and with few sizes', () => {
    expect(
      powerLawWithIntervals(
        points(() => 2, 0.01, 5),
        { seed: 1, draws: 30 },
      )!.notIdentified,
    ).toMatch(/c /);
    expect(
      powerLawWithIntervals(
        points((n) => 1.7 + 4 * n ** -0.5, 0.004, 4),
        { seed: 1, draws: 30 },
      )!.notIdentified,
    ).toBe('4 seeds are too few to draw from: an interval needs 5');
    const few = points((n) => 1.7 + 4 * n ** -0.5).filter(({ n }) => n < 200);
    expect(powerLawWithIntervals(few, { seed: 1, draws: 10 })!.notIdentified).toBe('4 sizes, and a fit of three numbers needs 6');
    expect(powerLawWithIntervals(few.slice(0, 2), { seed: 1 })).toBeUndefined();
  });
});

test('a power law of one seed has no interval and no band, and is not identified: one run leaves nothing to draw', () => {
  const got = powerLawWithIntervals(
    points((n) => 1.7 + 4 * n ** -0.5, 0, 1),
    { seed: 1, draws: 10 },
  )!;
  expect(got.c).toBeCloseTo(0.5, 3);
  expect(got.notIdentified).toMatch(/^one seed leaves nothing to draw/);
  expect(got.intervals).toBeUndefined();
  for (const point of [...got.curve, got.heldOut!]) {
    expect(point).not.toHaveProperty('low');
    expect(point).not.toHaveProperty('high');
  }
});

test('Spearman: ties share their ranks, and only order counts', () => {
  expect([...ranks([3, 1, 3, 2])]).toEqual([3.5, 1, 3.5, 2]);
  expect(spearman([1, 2, 3, 4], [1, 10, 100, 1000])).toBe(1);
  // scipy.stats.spearmanr([1, 2, 3, 4, 5], [5, 6, 7, 8, 7])
  expect(spearman([1, 2, 3, 4, 5], [5, 6, 7, 8, 7])).toBeCloseTo(0.8207826816681233, 12);
  const { value, low, high } = bootstrapSpearman([1, 2, 3, 4, 5, 6, 7, 8], [8, 7, 6, 5, 4, 3, 1, 2], { seed: 1, draws: 500 });
  expect(value).toBeCloseTo(-0.976, 3);
  expect(low).toBeGreaterThanOrEqual(-1);
  expect(high).toBeLessThan(-0.5);
});
