// The oracle itself, against numbers worked out by hand or printed in tables.

import { describe, expect, test } from 'vitest';
import {
  concat,
  erf,
  gather,
  maskedGather,
  maskedScatter,
  matmul,
  pad,
  putAlong,
  reduceMax,
  reduceMean,
  rotary,
  scatterAdd,
  slice,
  softmax,
  takeAlong,
  transpose,
} from '../graph/primitives.ts';
import { constant, input, type Tensor } from '../graph/tensor.ts';
import { evaluateReference } from './reference-ops.ts';

const f = (dims: number[], ...data: number[]) => constant(Float32Array.from(data), dims);
const i = (dims: number[], ...data: number[]) => constant(Int32Array.from(data), dims, 'int32');
const b = (dims: number[], ...data: number[]) => constant(Uint8Array.from(data), dims, 'bool');
const count = f([2, 3], 1, 2, 3, 4, 5, 6);

describe('reference', () => {
  test.each<[string, Tensor, number[], number[]]>([
    ['matmul', matmul(count, f([3, 1], 1, 0, -1)), [2, 1], [-2, -2]],
    ['matmul transA alpha', matmul(count, f([2, 1], 1, 2), { transA: true, alpha: 2 }), [3, 1], [18, 24, 30]],
    ['matmul transB', matmul(count, count, { transB: true }), [2, 2], [14, 32, 32, 77]],
    ['transpose', transpose(count, [1, 0]), [3, 2], [1, 4, 2, 5, 3, 6]],
    ['concat', concat([count, f([2, 1], 7, 8)], 1), [2, 4], [1, 2, 3, 7, 4, 5, 6, 8]],
    ['slice', slice(count, -1, 1, 3), [2, 2], [2, 3, 5, 6]],
    ['pad', pad(count, 0, 1, 0), [3, 3], [0, 0, 0, 1, 2, 3, 4, 5, 6]],
    ['reduceMean', reduceMean(count, [0]), [3], [2.5, 3.5, 4.5]],
    ['reduceMax', reduceMax(count, [1], true), [2, 1], [3, 6]],
    ['softmax', softmax(f([1, 2], 1000, 1000)), [1, 2], [0.5, 0.5]],
    ['gather', gather(count, i([1, 2], 1, 0)), [1, 2, 3], [4, 5, 6, 1, 2, 3]],
    ['scatterAdd', scatterAdd(i([3], 1, 1, 0), f([3, 1], 1, 2, 4), [3, 1]), [3, 1], [4, 3, 0]],
    ['takeAlong', takeAlong(count, i([2], 2, 0)), [2], [3, 4]],
    ['putAlong', putAlong(i([2], 2, 0), f([2], 7, 8), 3), [2, 3], [0, 0, 7, 8, 0, 0]],
    ['maskedScatter', maskedScatter(count, b([2], 0, 1), f([1, 3], 7, 8, 9)), [2, 3], [1, 2, 3, 7, 8, 9]],
    ['maskedGather', maskedGather(count, b([2], 0, 1), 1), [1, 3], [4, 5, 6]],
    // a quarter turn takes (x1, x2) to (-x2, x1), in halves
    [
      'rotary',
      rotary(f([1, 1, 1, 4], 1, 2, 3, 4), i([1, 1], 1), f([2, 2], 1, 1, 0, 0), f([2, 2], 0, 0, 1, 1)),
      [1, 1, 1, 4],
      [-3, -4, 1, 2],
    ],
  ])('%s', (_, y, dims, data) => {
    const result = evaluateReference({ y }, {}).y;
    expect(result.dims).toEqual(dims);
    expect([...result.data]).toEqual(data);
  });

  test('erf to double precision', () => {
    // Abramowitz & Stegun, table 7.1, and mpmath beyond it
    const table = [
      [0.5, 0.5204998778130465],
      [1, 0.8427007929497149],
      [2, 0.9953222650189527],
      [2.75, 0.9998993780778803],
      [3.5, 0.9999992569016276],
      [-1.5, -0.9661051464753108],
    ];
    const results = evaluateReference({ y: erf(f([6], ...table.map(([x]) => x))) }, {}).y.data;
    table.forEach(([, expected], j) => {
      expect(Math.abs(results[j] - expected)).toBeLessThan(1e-15);
    });
  });

  test('a missing input is named', () => {
    expect(() => evaluateReference({ y: erf(input('x', 'float32', [2, 3])) }, {})).toThrow('input x is missing');
  });
});
