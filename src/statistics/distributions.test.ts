import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  binomialCdf,
  chiSquaredTail,
  fTail,
  normalCdf,
  normalQuantile,
  normalTwoSided,
  tCdf,
  tQuantile,
  tTwoSided,
} from './distributions.ts';

// values: tests/statistics.test.ts, against scipy
const probability = fc.double({ min: 1e-6, max: 1 - 1e-6, noNaN: true });
const degrees = fc.double({ min: 1, max: 1e5, noNaN: true });

describe('quantiles', () => {
  it('undo their distribution', () => {
    fc.assert(
      fc.property(probability, degrees, (p, df) => {
        expect(normalCdf(normalQuantile(p)) / p).toBeCloseTo(1, 9);
        expect(tCdf(tQuantile(p, df), df) / p).toBeCloseTo(1, 7);
        fc.pre(Math.abs(p - 0.5) > 1e-3);
        expect(-tQuantile(1 - p, df) / tQuantile(p, df)).toBeCloseTo(1, 8);
      }),
    );
  });

  it('end at infinity', () => {
    expect([normalQuantile(0), normalQuantile(1), tQuantile(0, 3), tQuantile(1, 3)]).toEqual([-Infinity, Infinity, -Infinity, Infinity]);
    expect(tQuantile(0.5, 3)).toBe(0);
  });

  it('do not jump where the expansion takes over', () => {
    for (const p of [1e-6, 0.025, 0.4]) expect(tQuantile(p, 4999.999) / tQuantile(p, 5000)).toBeCloseTo(1, 8);
  });
});

describe('tails', () => {
  it('of many degrees of freedom are normal', () => {
    expect(tTwoSided(2, Infinity)).toBe(normalTwoSided(2));
    expect(tQuantile(0.975, Infinity)).toBeCloseTo(1.959963984540054, 12);
    expect(fTail(2, 3, Infinity)).toBe(chiSquaredTail(6, 3));
  });

  it('are 0 beyond all numbers, and 1 from 0 on', () => {
    expect([chiSquaredTail(3000, 1), tTwoSided(1e200, 3), normalCdf(-60), fTail(1e9, 2, 900)]).toEqual([0, 0, 0, 0]);
    expect([chiSquaredTail(0, 1), tTwoSided(0, 3), fTail(0, 1, 1), binomialCdf(5, 5, 0.5)]).toEqual([1, 1, 1, 1]);
    expect(binomialCdf(-1, 5, 0.5)).toBe(0);
    expect(tTwoSided(Number.NaN, 3)).toBeNaN();
  });

  it('refuse what is no probability or count', () => {
    for (const ask of [
      () => normalQuantile(1.1),
      () => tQuantile(Number.NaN, 3),
      () => tQuantile(0.5, 0),
      () => tTwoSided(1, -1),
      () => chiSquaredTail(1, 0),
      () => binomialCdf(1, 2.5, 0.5),
    ])
      expect(ask).toThrow(RangeError);
  });
});
