import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { holm } from './families.ts';

describe('holm', () => {
  it('adjusts .01 .04 .03 .005', () => {
    holm([0.01, 0.04, 0.03, 0.005]).forEach((p, i) => {
      expect(p).toBeCloseTo([0.03, 0.06, 0.06, 0.02][i], 12);
    });
  });

  it('keeps the order, and lies between the p and that of Bonferroni', () => {
    const probability = fc.double({ min: 0, max: 1, noNaN: true });
    fc.assert(
      fc.property(fc.array(probability, { maxLength: 20 }), (pValues) => {
        const adjusted = holm(pValues);
        adjusted.forEach((p, i) => {
          expect(p).toBeGreaterThanOrEqual(pValues[i]);
          expect(p).toBeLessThanOrEqual(Math.min(1, pValues[i] * pValues.length));
          adjusted.forEach((other, j) => {
            if (pValues[i] < pValues[j]) expect(p).toBeLessThanOrEqual(other);
          });
        });
      }),
    );
  });

  it('refuses what is no p value', () => {
    expect(() => holm([0.1, Number.NaN])).toThrow('NaN is no p value');
  });
});
