import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { createRandom } from '../random.ts';
import { clusteredMean, meanCredit, wilsonInterval } from './proportion.ts';

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

describe('clusteredMean', () => {
  const credits = [1, 1, 1, 0, 0, 0, 1, 1, 0, 0];

  it('counts what shares a picture as one: scores 1110001100 in aaabbbccdd', () => {
    const mean = clusteredMean(credits, { clusters: [...'aaabbbccdd'] });
    expect(mean).toMatchObject({ value: 0.5, n: 10, clusters: 4, df: 3 });
    expect(mean.independentSe).toBeCloseTo(0.1667, 4);
    expect(mean.se).toBeCloseTo(0.2603, 4);
    expect(mean.designEffect).toBeCloseTo(0.2603 ** 2 * 36, 2);
    // t(3) at 97.5 %
    expect(mean.high).toBeCloseTo(0.5 + 3.182446 * mean.se, 6);
  });

  it('is the plain standard error where each question is a cluster', () => {
    const answers = fc.array(fc.double({ min: 0, max: 1, noNaN: true }), { minLength: 2, maxLength: 50 });
    fc.assert(
      fc.property(answers, (values) => {
        const plain = clusteredMean(values);
        const alone = clusteredMean(values, { clusters: values.map((_, i) => i) });
        expect(alone.se).toBeCloseTo(plain.independentSe, 12);
        expect(plain.se).toBe(alone.se);
      }),
    );
  });

  it('does not get surer by asking the same questions twice', () => {
    const once = clusteredMean(credits);
    const twice = clusteredMean([...credits, ...credits], { clusters: [...credits.keys(), ...credits.keys()] });
    expect(twice.independentSe).toBeLessThan(once.se * 0.75);
    expect(twice.se).toBeGreaterThan(once.se * 0.94);
  });

  it('knows nothing of a spread within one cluster', () => {
    expect(clusteredMean(credits, { clusters: credits.map(() => 'a') })).toMatchObject({
      value: 0.5,
      se: Number.NaN,
      low: -Infinity,
      p: 1,
    });
    expect(clusteredMean([])).toMatchObject({ value: Number.NaN, n: 0, low: -Infinity, high: Infinity });
    expect(() => clusteredMean(credits, { clusters: ['a'] })).toThrow('1 keys of clusters for 10 observations');
  });
});

describe('meanCredit', () => {
  it('is Wilson of yes and no', () => {
    const none = meanCredit(new Array(25).fill(0));
    expect(none.low).toBe(0);
    expect(none.high).toBeCloseTo(0.133, 3);
    const most = meanCredit(Array.from({ length: 100 }, (_, i) => (i < 90 ? 1 : 0)));
    expect(most.low).toBeCloseTo(0.826, 3);
    expect(most.high).toBeCloseTo(0.945, 3);
  });

  it('is Wilson of as many independent questions as the clusters are worth', () => {
    // pairs of equal answers: half as many questions, all but the n - 1
    const pairs = Array.from({ length: 400 }, (_, i) => ((i >> 1) % 3 === 0 ? 1 : 0));
    const { low, high, designEffect } = meanCredit(pairs, { clusters: pairs.map((_, i) => i >> 1) });
    expect(designEffect).toBeCloseTo(2, 1);
    const half = wilsonInterval(67, 200);
    expect(low).toBeCloseTo(half.low, 2);
    expect(high).toBeCloseTo(half.high, 2);
  });

  it('stays in [0, 1], holds the mean, and is never without width', () => {
    const credit = fc.constantFrom(0, 0.3, 0.6, 1);
    const question = fc.tuple(fc.oneof(credit, fc.constantFrom(0, 1)), fc.integer({ min: 0, max: 9 }));
    fc.assert(
      fc.property(fc.array(question, { maxLength: 40 }), fc.boolean(), (questions, isClustered) => {
        const credits = questions.map(([value]) => value);
        const { value, low, high } = meanCredit(credits, isClustered ? { clusters: questions.map(([, key]) => key) } : {});
        expect(low).toBeGreaterThanOrEqual(0);
        expect(high).toBeLessThanOrEqual(1);
        expect(high - low).toBeGreaterThan(0.01);
        if (credits.length > 0) {
          expect(low).toBeLessThanOrEqual(value + 1e-12);
          expect(high).toBeGreaterThanOrEqual(value - 1e-12);
        }
      }),
    );
  });

  it('refuses what is no credit', () => {
    expect(() => meanCredit([0.5, 1.5])).toThrow('credit lies in [0, 1], unlike 1.5');
    expect(() => meanCredit([1, 0], { level: 95 })).toThrow('between 0 and 1, not at 95');
  });

  it('takes a benchmark of 100,000 answers in an instant', () => {
    const random = createRandom(1);
    const answers = Float64Array.from({ length: 100_000 }, () => (random.uniform() < 0.6 ? 1 : 0));
    const pictures = Array.from(answers, (_, i) => `picture ${i >> 2}`);
    const start = process.cpuUsage().user;
    expect(meanCredit(answers, { clusters: pictures }).clusters).toBe(25_000);
    expect((process.cpuUsage().user - start) / 1e6).toBeLessThan(0.5);
  });
});
