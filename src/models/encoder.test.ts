// Numerics of whole encoders are compared with transformers in tests/goldens.test.ts.

import { describe, expect, test } from 'vitest';
import { evaluateReference } from '../engine/reference-ops.ts';
import { input } from '../graph/tensor.ts';
import { Parameters } from '../nn/parameters.ts';
import { patchEmbedding, resizePositions } from './encoder.ts';

const value = (dims: number[], data: ArrayLike<number>) => ({ dims, data: Float64Array.from(data) });

describe('patchEmbedding', () => {
  test('takes patches in rows from the top and leaves out what fills none', () => {
    const p = new Parameters();
    const rows = patchEmbedding(p, 'patches', input('pixels', 'float32', ['images', 1, 5, 7]), { hidden: 1, patch: 2, bias: true });
    expect(rows.dims).toEqual(['images', 6, 1]);
    const inputs = {
      pixels: value([1, 1, 5, 7], [...Array(35).keys()]),
      // the lower left pixel of a patch, and 100 for the bias
      'patches.weight': value([1, 1, 2, 2], [0, 0, 1, 0]),
      'patches.bias': value([1], [100]),
    };
    expect([...evaluateReference({ rows }, inputs).rows.data]).toEqual([107, 109, 111, 121, 123, 125]);
  });

  test('wants a patch at least', () => {
    const pixels = input('pixels', 'float32', ['images', 3, 8, 3]);
    expect(() => patchEmbedding(new Parameters(), 'patches', pixels, { hidden: 1, patch: 4 })).toThrow(
      'patchEmbedding in patches: pixels do not fill a patch of 4 x 4',
    );
  });
});

describe('resizePositions', () => {
  const table = input('table', 'float32', [9, 1]);
  const resized = (values: number[], down: number, across: number) => {
    const { data } = evaluateReference({ grid: resizePositions(table, down, across) }, { table: value([9, 1], values) }).grid;
    return Array.from({ length: down }, (_, i) => [...data.slice(i * across, (i + 1) * across)]);
  };

  test('is the table itself at its own size', () => {
    expect(resizePositions(table, 3, 3)).toBe(table);
  });

  test('keeps what is the same everywhere, in any shape', () => {
    const sizes: [number, number][] = [
      [1, 1],
      [2, 5],
      [7, 3],
    ];
    for (const [down, across] of sizes) for (const v of resized(Array(9).fill(0.25), down, across).flat()) expect(v).toBeCloseTo(0.25, 6);
  });

  test('follows each side of the grid for itself', () => {
    const rowNumbers = resized([0, 0, 0, 1, 1, 1, 2, 2, 2], 4, 2);
    for (const [left, right] of rowNumbers) expect(left).toBeCloseTo(right, 6);
    const heights = rowNumbers.map(([left]) => left);
    expect(heights).toEqual([...heights].sort((a, b) => a - b));
    const columnNumbers = resized([0, 1, 2, 0, 1, 2, 0, 1, 2], 2, 4);
    columnNumbers[0].forEach((v, i) => {
      expect(v).toBeCloseTo(heights[i], 6);
    });
  });

  test('weighs four neighbours as torch does', () => {
    // torch.nn.functional.interpolate(.., size=(1, 4), mode='bicubic', align_corners=False)
    const [row] = resized([0, 1, 0, 0, 1, 0, 0, 1, 0], 1, 4);
    [-0.07177734, 0.74951172, 0.74951172, -0.07177734].forEach((expected, i) => {
      expect(row[i]).toBeCloseTo(expected, 6);
    });
  });
});
