import { describe, expect, it } from 'vitest';
import { halfNormal, lenth } from './unreplicated.ts';

const effects = [0.01, -0.02, 0.03, 0.5, -0.01, 0.02, 0.04];

describe('lenth', () => {
  it('takes the noise from the small effects', () => {
    // |c| sorted: .01 .01 .02 .02 .03 .04 .5; s0 = 1.5 * .02, those below .075 have the median .02
    const { se, margin, simultaneousMargin } = lenth(effects);
    expect(se).toBeCloseTo(0.03, 12);
    // t at .975 and at (1 + .95^(1/7)) / 2 with 7/3 degrees of freedom
    expect(margin / se).toBeCloseTo(3.764, 3);
    expect(simultaneousMargin / se).toBeCloseTo(9.008, 2);
    expect(effects.filter((effect) => Math.abs(effect) > simultaneousMargin)).toEqual([0.5]);
  });

  it('is 0 where most effects are, and does not hang on signs', () => {
    expect(lenth([0, 0, 0, 1]).se).toBe(0);
    expect(lenth(effects.map((effect) => -effect))).toEqual(lenth(effects));
    expect(() => lenth([])).toThrow('no effects');
  });
});

describe('halfNormal', () => {
  it('sorts the effects along the quantiles of noise', () => {
    const points = halfNormal(effects);
    expect(points.map(({ index }) => index)).toEqual([0, 4, 1, 5, 2, 6, 3]);
    expect(points.map(({ size }) => size)).toEqual([0.01, 0.01, 0.02, 0.02, 0.03, 0.04, 0.5]);
    expect(points[0].quantile).toBeCloseTo(0.0896, 3);
    expect(points[6].quantile).toBeCloseTo(1.803, 3);
  });
});
