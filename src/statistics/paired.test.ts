import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { correlation, differencesOf, discordantPairs, mcnemar, oddsRatio, pairedDifference } from './paired.ts';

const answer = fc.constantFrom(0, 1);
const pairsOfAnswers = fc.array(fc.tuple(answer, answer, fc.integer({ min: 0, max: 5 })), { minLength: 4, maxLength: 60 });

describe('pairedDifference', () => {
  it('is the mean of the differences, with their error', () => {
    const { value, se, correlation: rho } = pairedDifference([1, 1, 0, 1, 0, 1], [1, 0, 0, 1, 0, 0]);
    expect(value).toBeCloseTo(2 / 6, 12);
    // differences 0 1 0 0 0 1: sd^2 = (6 * 2 - 2^2) / (6 * 5)
    expect(se).toBeCloseTo(Math.sqrt(8 / 30 / 6), 12);
    expect(rho).toBeCloseTo(0.5, 12);
  });

  it('changes its sign with the order, and is 0 of a system with itself', () => {
    fc.assert(
      fc.property(pairsOfAnswers, (pairs) => {
        const [a, b, clusters] = [pairs.map((pair) => pair[0]), pairs.map((pair) => pair[1]), pairs.map((pair) => pair[2])];
        const [there, back] = [pairedDifference(a, b, { clusters }), pairedDifference(b, a, { clusters })];
        expect(there.value).toBeCloseTo(-back.value, 12);
        expect(there.low).toBeCloseTo(-back.high, 9);
        expect(there.p).toBeCloseTo(back.p, 9);
        expect(pairedDifference(a, a, { clusters })).toMatchObject({ value: 0, p: 1 });
      }),
    );
  });

  it('refuses other questions', () => {
    expect(() => differencesOf([1], [1, 0])).toThrow('paired scores of 1 and 2 questions');
  });

  it('knows no correlation with a constant', () => {
    expect(correlation([1, 0, 1], [1, 1, 1])).toBeNaN();
    expect(correlation([1, 2, 4], [-1, -2, -4])).toBeCloseTo(-1, 12);
  });
});

describe('mcnemar', () => {
  it('of 10 against 25', () => {
    const { exact, midP, chiSquared } = mcnemar({ onlyA: 10, onlyB: 25 });
    expect(exact).toBeCloseTo(0.0167, 4);
    expect(midP).toBeCloseTo(0.0113, 4);
    expect(chiSquared).toBeCloseTo(6.43, 2);
  });

  it('counts from answers', () => {
    expect(discordantPairs([1, 1, 0, 0, 1], [1, 0, 1, 0, 0])).toEqual({ onlyA: 2, onlyB: 1 });
    expect(() => discordantPairs([1, 0.5], [0, 1])).toThrow('not of 0.5 and 1');
    expect(() => mcnemar({ onlyA: -1, onlyB: 2 })).toThrow(RangeError);
  });

  it('is a probability, the same in both orders, mid-p below the exact one', () => {
    const count = fc.integer({ min: 0, max: 3000 });
    fc.assert(
      fc.property(count, count, (onlyA, onlyB) => {
        const [there, back] = [mcnemar({ onlyA, onlyB }), mcnemar({ onlyA: onlyB, onlyB: onlyA })];
        expect(there).toEqual(back);
        expect(there.midP).toBeLessThanOrEqual(there.exact);
        expect(there.exact).toBeLessThanOrEqual(1);
        expect(there.midP).toBeGreaterThanOrEqual(0);
      }),
    );
  });
});

describe('oddsRatio', () => {
  it('has an interval that holds 1 just when the p of chi-squared is above 5 %', () => {
    const count = fc.integer({ min: 0, max: 300 });
    fc.assert(
      fc.property(count, count, (onlyA, onlyB) => {
        fc.pre(onlyA + onlyB > 0);
        const { value, low, high } = oddsRatio({ onlyA, onlyB });
        const { chiSquaredP } = mcnemar({ onlyA, onlyB });
        fc.pre(Math.abs(chiSquaredP - 0.05) > 1e-9);
        expect(low <= 1 && 1 <= high).toBe(chiSquaredP > 0.05);
        expect(low).toBeLessThanOrEqual(value);
        expect(high).toBeGreaterThanOrEqual(value);
      }),
    );
  });

  it('is open where one side has none', () => {
    expect(oddsRatio({ onlyA: 6, onlyB: 0 })).toMatchObject({ value: Infinity, high: Infinity });
    expect(oddsRatio({ onlyA: 0, onlyB: 6 })).toMatchObject({ value: 0, low: 0 });
    expect(oddsRatio({ onlyA: 0, onlyB: 0 })).toEqual({ value: Number.NaN, low: 0, high: Infinity });
  });
});
