import { expect, test } from 'vitest';
import { exp, matmul, mul, reduceSum, reshape, transpose } from '../../graph/primitives.ts';
import { input, type Tensor } from '../../graph/tensor.ts';
import { lowerToModel } from './lower.ts';
import { peakBytes } from './memory.ts';

const peak = (outputs: Record<string, Tensor>, sizes = {}) => peakBytes(lowerToModel(outputs), sizes);
const x = (rows: number | string, columns: number | string) => input('x', 'float32', [rows, columns]);
const MATRIX = 4 * 100 * 10;

test('a result is there from its node to its last reader', () => {
  const square = matmul(x(100, 10), input('w', 'float32', [10, 10]));
  // in place: one matrix; a product reads one matrix and writes another
  expect(peak({ y: exp(exp(square)) })).toBe(MATRIX);
  expect(peak({ y: matmul(matmul(square, input('v', 'float32', [10, 10])), input('u', 'float32', [10, 10])) })).toBe(2 * MATRIX);
  // the first is read again at the end
  const far = matmul(square, input('v', 'float32', [10, 10]));
  expect(peak({ y: mul(matmul(far, input('u', 'float32', [10, 10])), square) })).toBe(3 * MATRIX);
});

test('a view takes no memory, a transpose does, an output stays', () => {
  const y = matmul(x(100, 10), input('w', 'float32', [10, 10]));
  expect(peak({ y: reshape(y, [10, 100]) })).toBe(MATRIX);
  expect(peak({ y: transpose(y, [1, 0]) })).toBe(2 * MATRIX);
  expect(peak({ y, z: transpose(y, [1, 0]), sum: reduceSum(y, [0, 1]) })).toBe(2 * MATRIX + 4);
});

test('named dims are given; one that is missing is an error', () => {
  const y = matmul(x('tokens', 10), input('w', 'float32', [10, 10]));
  expect(peak({ y }, { tokens: 100 })).toBe(MATRIX);
  expect(peak({ y }, { tokens: 200 })).toBe(2 * MATRIX);
  expect(() => peak({ y })).toThrow('tokens');
});
