import { describe, expect, it } from 'vitest';
import {
  correlatedVariance,
  discordantVariance,
  questionsNeeded,
  runStandardError,
  seedsNeeded,
  smallestDifference,
  smallestRunEffect,
  smallestShift,
  tTestPower,
} from './power.ts';

describe('questions', () => {
  it.each([
    [0.05, 0.02, 973],
    [0.1, 0.02, 1954],
    [0.2, 0.02, 3917],
    [0.3, 0.02, 5879],
    [0.2, 0.03, 1736],
  ])('a share of %f discordant, a difference of %f: %i', (discordant, difference, n) => {
    const needed = questionsNeeded(difference, discordantVariance(discordant, difference));
    expect(Math.round(needed)).toBe(n);
    expect(smallestDifference(needed, discordant)).toBeCloseTo(difference, 12);
    expect(questionsNeeded(difference, discordantVariance(discordant, difference), { designEffect: 3 })).toBeCloseTo(3 * needed, 8);
    expect(smallestDifference(3 * needed, discordant, { designEffect: 3 })).toBeCloseTo(difference, 12);
  });

  it("gives Miller's numbers, and those of lmms-eval", () => {
    expect(Math.round(questionsNeeded(0.02, 1 / 9))).toBe(2180);
    expect(Math.round(questionsNeeded(0.03, 1 / 9))).toBe(969);
    expect(Math.ceil(questionsNeeded(0.03, correlatedVariance(0.5, 0.5)))).toBe(2181);
  });

  it('refuses what cannot be', () => {
    expect(() => discordantVariance(0.01, 0.02)).toThrow('0.01 discordant questions cannot differ by 0.02');
    expect(() => questionsNeeded(0.02, 0.1, { power: 80 })).toThrow(RangeError);
  });
});

describe('seeds', () => {
  it.each([
    [2, 5.7],
    [3, 3.1],
    [4, 2.4],
    [5, 2],
    [8, 1.5],
    [10, 1.3],
  ])('%i of two arms show an effect of %f run deviations', (seeds, effect) => {
    expect(smallestRunEffect(1, { runs: 2 * seeds, cells: 2 })).toBeCloseTo(effect, 0.9);
  });

  it.each([
    [0.5, 3],
    [1, 6],
    [2, 17],
  ])('to see 2 points with a deviation of %f: %i', (runSd, seeds) => {
    expect(seedsNeeded(2, runSd)).toBe(seeds);
    expect(seedsNeeded(-2, runSd)).toBe(seeds);
  });

  it('are pooled over the cells of a 2^3 factorial', () => {
    const errors = [1, 2, 3].map((seeds) => runStandardError(1, { runs: 8 * seeds, cells: 8 }));
    expect(errors.map((error) => error.toFixed(2))).toEqual(['0.71', '0.50', '0.41']);
    expect(smallestRunEffect(1, { runs: 24, cells: 8 })).toBeLessThan(smallestRunEffect(1, { runs: 6, cells: 2 }) / 2);
  });

  it('say nothing of run noise when there is one a cell, or the effect is none', () => {
    expect(smallestRunEffect(1, { runs: 8, cells: 8 })).toBe(Infinity);
    expect(seedsNeeded(0, 1)).toBe(Infinity);
  });
});

describe('power of a t test', () => {
  it('is the level where there is no effect, and grows with the effect and degrees of freedom', () => {
    for (const df of [1, 2, 3, 8, 1000, Infinity]) expect(tTestPower(0, df)).toBeCloseTo(0.05, 5);
    expect(tTestPower(2, 8)).toBeGreaterThan(tTestPower(1, 8));
    expect(tTestPower(2, 8)).toBeLessThan(tTestPower(2, 80));
    expect(tTestPower(2, 1e6)).toBeCloseTo(tTestPower(2, Infinity), 5);
    expect(smallestShift(Infinity) ** 2).toBeCloseTo(7.849, 3);
  });
});
