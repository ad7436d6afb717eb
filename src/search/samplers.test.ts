import { describe, expect, it } from 'vitest';
import { UserError } from '../errors.ts';
import { haltonPoint, radicalInverse, randomPoint, sobolBits, sobolPoint } from './samplers.ts';

const indices = (n: number) => Array.from({ length: n }, (_, i) => i);

/** How many points fall into each of `cells` equal parts of a dimension. */
function cellCounts(points: readonly (readonly number[])[], dimension: number, cells: number): number[] {
  const counts = Array<number>(cells).fill(0);
  for (const point of points) counts[Math.floor(point[dimension] * cells)]++;
  return counts;
}

describe('Halton', () => {
  it('has the known points', () => {
    const points = indices(8).map((index) => [2, 3, 5].map((base) => radicalInverse(index, base)));
    const known = [
      [0, 0, 0],
      [1 / 2, 1 / 3, 1 / 5],
      [1 / 4, 2 / 3, 2 / 5],
      [3 / 4, 1 / 9, 3 / 5],
      [1 / 8, 4 / 9, 4 / 5],
      [5 / 8, 7 / 9, 1 / 25],
      [3 / 8, 2 / 9, 6 / 25],
      [7 / 8, 5 / 9, 11 / 25],
    ];
    for (const [i, point] of points.entries()) for (const [d, value] of point.entries()) expect(value).toBeCloseTo(known[i][d], 11);
  });

  it('stays even when it is scrambled: a point in each cell of a prime power', () => {
    const points = indices(3 ** 4).map((index) => haltonPoint(2, index, 7));
    expect(cellCounts(points.slice(0, 64), 0, 64)).toEqual(Array(64).fill(1));
    expect(cellCounts(points, 1, 81)).toEqual(Array(81).fill(1));
    expect(points).not.toEqual(indices(81).map((index) => [radicalInverse(index, 2), radicalInverse(index, 3)]));
    expect(points).not.toEqual(indices(81).map((index) => haltonPoint(2, index, 8)));
  });

  it('is uniform over seeds, from the first point on', () => {
    const firsts = indices(2000).map((seed) => haltonPoint(3, 0, seed));
    for (const dimension of [0, 1, 2]) {
      const counts = cellCounts(firsts, dimension, 10);
      expect(Math.min(...counts)).toBeGreaterThan(140);
      expect(Math.max(...counts)).toBeLessThan(260);
    }
  });
});

describe('Sobol', () => {
  it("has the points of scipy's sequence", () => {
    expect(sobolBits(3, 0)).toEqual([0, 0, 0]);
    expect(sobolBits(10, 100)).toEqual([
      1778384896, 1107296256, 3321888768, 3120562176, 3791650816, 3187671040, 100663296, 2046820352, 2717908992, 2986344448,
    ]);
    expect(sobolBits(10, 1000)).toEqual([
      943718400, 415236096, 2227175424, 2906652672, 1203765248, 3896508416, 197132288, 3862953984, 2151677952, 297795584,
    ]);
  });

  it('has a point in each cell of a power of two, also when it is shifted', () => {
    const points = indices(64).map((index) => sobolPoint(10, index, 5));
    for (const dimension of indices(10)) expect(cellCounts(points, dimension, 64)).toEqual(Array(64).fill(1));
  });
});

describe('every sampler', () => {
  it.each([
    ['random', randomPoint],
    ['halton', haltonPoint],
    ['sobol', sobolPoint],
  ] as const)('%s: is a function of seed and index, within the cube', (_, pointAt) => {
    for (const index of [0, 1, 1000]) {
      expect(pointAt(4, index, 1)).toEqual(pointAt(4, index, 1));
      expect(pointAt(4, index, 1)).not.toEqual(pointAt(4, index, 2));
      for (const value of pointAt(4, index, 1)) {
        expect(value).toBeGreaterThanOrEqual(0);
        expect(value).toBeLessThan(1);
      }
    }
  });

  it('says how many dimensions it has', () => {
    expect(() => haltonPoint(17, 0, 0)).toThrow(UserError);
    expect(() => sobolPoint(11, 0, 0)).toThrow('at most 10 dimensions, and the space has 11');
  });
});
