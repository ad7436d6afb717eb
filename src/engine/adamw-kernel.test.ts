import { describe, expect, test } from 'vitest';
import { createRandom } from '../random.ts';
import { adamWUpdate } from './adamw-kernel.ts';

const scalars = { clip: 0.5, beta1: 0.9, share1: 0.1, beta2: 0.99, share2: 0.01, keep: 0.999, rate: 1e-2, rootScale: 1.5, eps: 1e-8 };

function arraysOf(length: number) {
  const random = createRandom(length);
  const noise = () => Float32Array.from({ length }, () => random.normal());
  return { values: noise(), mean: noise(), square: noise().map((v) => v * v), gradient: noise() };
}

describe('the kernel', () => {
  // around a vector, around a chunk, several chunks
  test.each([0, 1, 3, 4, 5, 4095, 4096, 4097, 10001])('equals the update in double precision for %i weights', (length) => {
    const arrays = arraysOf(length);
    const before = structuredClone(arrays);
    const change = adamWUpdate(arrays, scalars);
    const moved = arrays.values.reduce((sum, value, i) => sum + Math.fround(value - before.values[i]) ** 2, 0);
    expect(Math.abs(change - moved)).toBeLessThanOrEqual(1e-5 * moved);
    const s = scalars;
    let worst = 0;
    for (let i = 0; i < length; i++) {
      const g = before.gradient[i] * s.clip;
      const mean = s.beta1 * before.mean[i] + s.share1 * g;
      const square = s.beta2 * before.square[i] + s.share2 * g * g;
      const value = s.keep * before.values[i] - (s.rate * mean) / (Math.sqrt(square) * s.rootScale + s.eps);
      worst = Math.max(worst, Math.abs(arrays.mean[i] - mean), Math.abs(arrays.square[i] - square) / (1 + square));
      // a large quotient of a tiny square carries its relative error
      worst = Math.max(worst, Math.abs(arrays.values[i] - value) / (1 + Math.abs(value)));
    }
    expect(worst).toBeLessThan(4e-7);
    expect(arrays.gradient).toEqual(before.gradient);
  });

  test('what an earlier, longer call left in its memory does not matter', () => {
    const [first, second] = [arraysOf(6), arraysOf(6)];
    adamWUpdate(first, scalars);
    const poison = arraysOf(100);
    poison.gradient.fill(Number.NaN);
    adamWUpdate(poison, scalars);
    adamWUpdate(second, scalars);
    expect(second).toEqual(first);
  });
});
