import { expect, test } from 'vitest';
import { placeOf, strongestPlace } from './heat-map.ts';

test('the strongest place has a name', () => {
  const grid = { rows: 6, columns: 6 };
  const at = (row: number, column: number): number[] => Array.from({ length: 36 }, (_, i) => (i === row * 6 + column ? 1 : 0.2));
  expect(strongestPlace(at(0, 0), grid)).toBe('top left');
  expect(strongestPlace(at(2, 3), grid)).toBe('center');
  expect(strongestPlace(at(5, 2), grid)).toBe('bottom');
  expect(strongestPlace(at(3, 5), grid)).toBe('middle right');
  expect(strongestPlace(new Array<number>(36).fill(0), grid)).toBeUndefined();
});

test('a map lies where its patches are', () => {
  const seen = { left: 0, top: -0.5, width: 1, height: 2 };
  const grid = { rows: 2, columns: 2, patch: 14, size: 30 };
  const { left, top, width, height } = placeOf({ grid, seen });
  expect([left, top]).toEqual([0, -0.5]);
  expect(width).toBeCloseTo(28 / 30);
  expect(height).toBeCloseTo(56 / 30);
});
