import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { createRandom } from '../random.ts';
import { effectiveRank, exponentialEntropy } from './effective-rank.ts';
import { covariance, type Matrix, nuclearNorm, type Rows, singularValues } from './matrices.ts';
import { frechetDistance, layerMir, lowerMedian, mirOf, replaceOutliers } from './mir.ts';
import { fastRootTrace } from './mir-fast.ts';

const rowsOf = (rows: readonly (readonly number[])[]): Rows => ({
  data: Float64Array.from(rows.flat()),
  count: rows.length,
  width: rows[0].length,
});

/**
 * Rows with this mean and, to rounding, exactly this covariance: columns of its Cholesky factor, either
 * way.
 */
function rowsWith(mean: readonly number[], s: readonly (readonly number[])[]): Rows {
  const d = mean.length;
  const lower = s.map((row) => row.map(() => 0));
  for (let i = 0; i < d; i++)
    for (let j = 0; j <= i; j++) {
      let sum = s[i][j];
      for (let k = 0; k < j; k++) sum -= lower[i][k] * lower[j][k];
      lower[i][j] = i === j ? Math.sqrt(sum) : sum / lower[j][j];
    }
  const scale = Math.sqrt((2 * d - 1) / 2);
  return rowsOf(Array.from({ length: 2 * d }, (_, r) => mean.map((m, i) => m + (r < d ? 1 : -1) * scale * lower[i][r % d])));
}

/** Rows of a normal distribution with spreads that differ. */
function drawnRows(seed: number, count: number, width: number, scale = 1): Rows {
  const random = createRandom(seed);
  return {
    data: Float64Array.from({ length: count * width }, (_, at) => scale * (random.normal() / (1 + (at % width)) + 0.3)),
    count,
    width,
  };
}

const times = (rows: Rows, factor: number): Rows => ({ ...rows, data: rows.data.map((value) => value * factor) });

/** A random rotation, by Gram and Schmidt. */
function rotation(seed: number, d: number): number[][] {
  const random = createRandom(seed);
  const q: number[][] = [];
  for (let i = 0; i < d; i++) {
    let v = Array.from({ length: d }, () => random.normal());
    for (const u of q) {
      const along = u.reduce((sum, value, k) => sum + value * v[k], 0);
      v = v.map((value, k) => value - along * u[k]);
    }
    const length = Math.hypot(...v);
    q.push(v.map((value) => value / length));
  }
  return q;
}

const rotated = ({ data, count, width }: Rows, q: number[][]): Rows => ({
  data: Float64Array.from({ length: count * width }, (_, at) => {
    const row = Math.floor(at / width) * width;
    return q[at % width].reduce((sum, value, k) => sum + value * data[row + k], 0);
  }),
  count,
  width,
});

const A = [
  [4, 1, 0],
  [1, 3, 0.5],
  [0, 0.5, 2],
];
const B = [
  [1, 0.2, 0],
  [0.2, 2, 0.1],
  [0, 0.1, 5],
];
const ORIGIN = [0, 0, 0];

describe('the distance of two sets', () => {
  it('is 33 in the diagonal case', () => {
    const a = rowsWith(
      [0, 0],
      [
        [1, 0],
        [0, 4],
      ],
    );
    const b = rowsWith(
      [3, 4],
      [
        [9, 0],
        [0, 16],
      ],
    );
    // 25 + (1 + 4 + 9 + 16) - 2 (3 + 8)
    expect(frechetDistance(a, b)).toBeCloseTo(33, 10);
  });

  it('has the trace of the square root of a product of covariances', () => {
    const [a, b] = [rowsWith(ORIGIN, A), rowsWith(ORIGIN, B)];
    expect((9 + 8 - frechetDistance(a, b)) / 2).toBeCloseTo(7.5774, 4);
    expect([...covariance(a).data]).toEqual(A.flat().map((value) => expect.closeTo(value, 12)));
  });

  it.each([
    [50, 6],
    [5, 20],
  ])('of a set of %i rows of %i numbers and itself is 0', (count, width) => {
    const rows = drawnRows(1, count, width);
    expect(frechetDistance(rows, rows)).toBe(0);
    const { layers, mir } = mirOf([layerMir({ layer: 1, image: rows, text: rows })]);
    expect(layers[0].distance).toBe(0);
    expect(mir).toBe(Number.NEGATIVE_INFINITY);
  });

  it.each([
    [40, 31, 5],
    [8, 31, 12],
    [7, 6, 12],
  ])('of %i and %i rows of %i numbers does not change when both are turned, and goes with the square of a common factor', (n, m, width) => {
    const [a, b] = [drawnRows(2, n, width, 3), drawnRows(3, m, width)];
    const q = rotation(4, width);
    const distance = frechetDistance(a, b);
    expect(frechetDistance(rotated(a, q), rotated(b, q))).toBeCloseTo(distance, 8);
    expect(frechetDistance(times(a, 7), times(b, 7)) / 49).toBeCloseTo(distance, 8);
    expect(frechetDistance(b, a)).toBeCloseTo(distance, 8);
  });

  it('takes rows of one width alone', () => {
    expect(() => frechetDistance(drawnRows(1, 5, 3), drawnRows(1, 5, 4))).toThrow('rows of 3 and of 4 numbers cannot be compared');
    expect(() => frechetDistance(drawnRows(1, 1, 3), drawnRows(1, 5, 3))).toThrow('1 rows have no covariance');
  });
});

describe('MIR', () => {
  const [image, text] = [drawnRows(5, 60, 8, 8), drawnRows(6, 45, 8)];

  it('does not change when both sets are turned or multiplied', () => {
    const of = (image: Rows, text: Rows) => mirOf([layerMir({ layer: 1, image, text })]).mir;
    expect(of(times(image, 3), times(text, 3))).toBeCloseTo(of(image, text), 10);
    // medians of columns stand for outliers: without any, a rotation changes nothing
    const inside = (rows: Rows) => replaceOutliers(rows).outliers === 0;
    const [calmImage, calmText] = [drawnRows(7, 60, 8, 8), drawnRows(8, 45, 8)];
    expect([calmImage, calmText].every(inside)).toBe(true);
    const q = rotation(9, 8);
    expect(of(rotated(calmImage, q), rotated(calmText, q))).toBeCloseTo(of(calmImage, calmText), 10);
  });

  it('moves by 2 log10 c when image rows of large norm are multiplied by c, and of equal norms not at all', () => {
    const of = (factor: number) => mirOf([layerMir({ layer: 1, image: times(image, factor), text })]);
    expect(of(1000).mir - of(100).mir).toBeCloseTo(2, 1);
    expect(of(1000).equalNormMir).toBeCloseTo(of(1).equalNormMir, 6);
    expect(of(100).layers[0].normRatio).toBeCloseTo(100 * of(1).layers[0].normRatio, 8);
  });

  it('is the logarithm of the sum over layers', () => {
    const layers = [1, 2, 3].map((layer) => layerMir({ layer, image: times(image, layer), text }));
    expect(10 ** mirOf(layers).mir).toBeCloseTo(
      layers.reduce((sum, { distance }) => sum + distance, 0),
      8,
    );
    expect(mirOf(layers)).not.toHaveProperty('fastMir');
  });

  it('as published subtracts the trace of the product', () => {
    const [a, b] = [rowsWith(ORIGIN, A), rowsWith(ORIGIN, B)];
    expect(fastRootTrace(a, b, 1)).toBeCloseTo(20.5, 4);
    const { distance, fastDistance, textNorm } = layerMir({ layer: 1, image: a, text: b }, { compat: 'fast' });
    expect(distance).toBeCloseTo((17 - 2 * 7.5774) / textNorm ** 2, 4);
    expect(fastDistance! * textNorm ** 2).toBeCloseTo(17 - (2 * 20.5) / textNorm ** 2, 4);
  });
});

describe('outliers', () => {
  it('are more than three deviations from the lower median, and become the median of each column', () => {
    expect(lowerMedian(Float64Array.of(4, 1, 3, 2))).toBe(2);
    expect(lowerMedian(Float64Array.of(5, 1, 3))).toBe(3);
    const rows = rowsOf([...Array.from({ length: 19 }, (_, i) => [1 + i / 100, 2]), [100, -100]]);
    const { rows: clean, outliers } = replaceOutliers(rows);
    expect(outliers).toBe(1);
    expect([...clean.data.subarray(38)]).toEqual([1.09, 2]);
    expect([...clean.data.subarray(0, 38)]).toEqual([...rows.data.subarray(0, 38)]);
    expect(rows.data[38]).toBe(100);
  });

  it('of few rows there are none: nothing is three deviations away', () => {
    expect(replaceOutliers(rowsOf([[1], [1], [1], [50]])).outliers).toBe(0);
  });
});

describe('singular values', () => {
  const matrix = fc.tuple(fc.integer({ min: 1, max: 7 }), fc.integer({ min: 1, max: 7 })).chain(([rows, columns]) =>
    fc
      .array(fc.oneof(fc.constant(0), fc.double({ min: -3, max: 3, noNaN: true })), {
        minLength: rows * columns,
        maxLength: rows * columns,
      })
      .map((data): Matrix => ({ data: Float64Array.from(data), rows, columns })),
  );

  it('are not negative, fall, and their squares add up to those of all numbers', () => {
    fc.assert(
      fc.property(matrix, (m) => {
        const values = singularValues(m);
        expect(values).toHaveLength(Math.min(m.rows, m.columns));
        expect([...values]).toEqual([...values].sort((a, b) => b - a));
        expect(values.at(-1)).toBeGreaterThanOrEqual(0);
        const squares = (all: Float64Array) => all.reduce((sum, value) => sum + value * value, 0);
        expect(squares(values)).toBeCloseTo(squares(m.data), 8);
        expect(nuclearNorm(m)).toBeCloseTo(
          values.reduce((sum, value) => sum + value, 0),
          12,
        );
      }),
      { numRuns: 300 },
    );
  });

  it('of numbers that are none are refused', () => {
    expect(() => singularValues({ data: Float64Array.of(1, Number.NaN, 2, 3), rows: 2, columns: 2 })).toThrow('do not converge');
  });

  it('give the effective rank', () => {
    expect(exponentialEntropy([3, 1])).toBeCloseTo(1.755, 3);
    expect(exponentialEntropy([9, 1])).toBeCloseTo(1.384, 3);
    expect(exponentialEntropy([0, 0])).toBe(0);
    // singular values 3 and 1 about the mean
    const rows = rowsWith(
      [5, 5],
      [
        [9, 0],
        [0, 1],
      ],
    );
    expect(effectiveRank(rows)).toBeCloseTo(1.755, 3);
    expect(
      effectiveRank(
        rowsOf([
          [1, 2],
          [1, 2],
          [1, 2],
        ]),
      ),
    ).toBe(0);
    expect(
      effectiveRank(
        rowsOf([
          [1, 2, 3],
          [2, 4, 6],
          [3, 6, 9],
        ]),
      ),
    ).toBeCloseTo(1, 10);
  });
});
