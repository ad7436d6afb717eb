import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { wilsonInterval } from './proportion.ts';

describe('wilsonInterval', () => {
  // The closed formula, evaluated independently in Python.
  it.each([
    [8, 10, 0.4901625, 0.9433178],
    [0, 20, 0, 0.1611252],
    [20, 20, 0.8388748, 1],
    [350, 1000, 0.3210627, 0.3800853],
  ])('of %i right out of %i', (correct, n, low, high) => {
    const interval = wilsonInterval(correct, n);
    expect(interval.low).toBeCloseTo(low, 5);
    expect(interval.high).toBeCloseTo(high, 5);
  });

  it('holds the observed share, stays in [0, 1] and narrows with more observations', () => {
    const counts = fc.integer({ min: 1, max: 2000 }).chain((n) => fc.tuple(fc.integer({ min: 0, max: n }), fc.constant(n)));
    fc.assert(
      fc.property(counts, ([correct, n]) => {
        const { low, high } = wilsonInterval(correct, n);
        expect(low).toBeGreaterThanOrEqual(0);
        expect(high).toBeLessThanOrEqual(1);
        expect(low).toBeLessThanOrEqual(correct / n);
        expect(high).toBeGreaterThanOrEqual(correct / n);
        const wider = wilsonInterval(correct * 4, n * 4);
        expect(wider.high - wider.low).toBeLessThan(high - low);
      }),
    );
  });

  it('knows nothing without observations, and refuses impossible counts', () => {
    expect(wilsonInterval(0, 0)).toEqual({ low: 0, high: 1 });
    for (const [correct, n] of [
      [3, 2],
      [-1, 2],
      [0, -1],
      [Number.NaN, 2],
      [1, Number.NaN],
    ])
      expect(() => wilsonInterval(correct, n)).toThrow(RangeError);
  });
});
