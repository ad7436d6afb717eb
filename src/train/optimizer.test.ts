// Equality with torch.optim.AdamW is proven by the golden in tests/goldens.test.ts; here is what the golden cannot say.

import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { adamWStep, createSlot, gradientNorm } from './optimizer.ts';

const options = { betas: [0.9, 0.99] as const, eps: 1e-8, weightDecay: 0, maxGradNorm: 0 };

describe('gradientNorm', () => {
  test('is the L2 norm of all gradients together, whatever their lengths', () => {
    const floats = fc.float({ min: -100, max: 100, noNaN: true, noDefaultInfinity: true });
    fc.assert(
      fc.property(fc.array(fc.array(floats, { maxLength: 11 }), { maxLength: 4 }), (gradients) => {
        const expected = Math.hypot(...gradients.flat());
        expect(gradientNorm(gradients.map((gradient) => Float32Array.from(gradient)))).toBeCloseTo(expected, 3);
      }),
    );
  });
});

describe('adamWStep', () => {
  test('moves each weight by its learning rate at the first step, whatever the size of its gradient', () => {
    const slots = [createSlot('a', [2], Float32Array.of(1, 1)), createSlot('b', [1], Float32Array.of(1))];
    adamWStep(slots, [Float32Array.of(100, -0.01), Float32Array.of(5)], 1, (name) => (name === 'a' ? 0.1 : 0.5), options);
    expect(slots[0].values[0]).toBeCloseTo(0.9, 6);
    expect(slots[0].values[1]).toBeCloseTo(1.1, 6);
    expect(slots[1].values[0]).toBeCloseTo(0.5, 6);
  });

  test('follows the formula of the paper over several steps, with everything switched on', () => {
    const settings = { betas: [0.8, 0.95] as const, eps: 1e-3, weightDecay: 0.2, maxGradNorm: 1.5 };
    const slots = [createSlot('m', [1, 2], Float32Array.of(0.5, -1)), createSlot('b', [1], Float32Array.of(0.25))];
    const expected = [0.5, -1, 0.25].map((value, i) => ({ value, mean: 0, square: 0, decay: i < 2 ? 0.2 : 0 }));
    for (const [t, gradient] of [
      [1, -2, 3],
      [0.1, 0.2, -0.3],
      [-2, 0, 1],
    ].entries()) {
      const norm = Math.hypot(...gradient);
      const rate = 0.1 / (t + 1);
      expect(
        adamWStep(slots, [Float32Array.from(gradient.slice(0, 2)), Float32Array.from(gradient.slice(2))], t + 1, () => rate, settings),
      ).toBeCloseTo(norm, 5);
      expected.forEach((weight, i) => {
        const g = gradient[i] * Math.min(1, 1.5 / norm);
        weight.mean = 0.8 * weight.mean + 0.2 * g;
        weight.square = 0.95 * weight.square + 0.05 * g * g;
        const [mean, square] = [weight.mean / (1 - 0.8 ** (t + 1)), weight.square / (1 - 0.95 ** (t + 1))];
        weight.value = weight.value * (1 - rate * weight.decay) - (rate * mean) / (Math.sqrt(square) + 1e-3);
      });
      for (const [i, value] of [...slots[0].values, ...slots[1].values].entries()) expect(value).toBeCloseTo(expected[i].value, 5);
    }
  });

  test('decays matrices, and neither biases nor norms', () => {
    const slots = [createSlot('weight', [1, 2], Float32Array.of(2, -4)), createSlot('bias', [2], Float32Array.of(2, -4))];
    adamWStep(slots, [new Float32Array(2), new Float32Array(2)], 1, () => 0.1, { ...options, weightDecay: 0.5 });
    expect([...slots[0].values]).toEqual([...Float32Array.of(1.9, -3.8)]);
    expect([...slots[1].values]).toEqual([2, -4]);
  });

  test('clips by the norm of all gradients, which it returns as it was before', () => {
    const moments = (maxGradNorm: number, scale: number) => {
      const slots = [createSlot('a', [1], Float32Array.of(0)), createSlot('b', [1], Float32Array.of(0))];
      const norm = adamWStep(slots, [Float32Array.of(3 * scale), Float32Array.of(4 * scale)], 1, () => 0.1, { ...options, maxGradNorm });
      return { norm, mean: slots.map(({ mean }) => mean[0]) };
    };
    const clipped = moments(1, 1);
    expect(clipped.norm).toBe(5);
    expect(clipped.mean[0]).toBeCloseTo(0.1 * 0.6, 6);
    expect(clipped.mean[1]).toBeCloseTo(0.1 * 0.8, 6);
    // below the threshold, or without one, nothing is scaled
    expect(moments(1, 0.1).mean[0]).toBeCloseTo(0.1 * 0.3, 6);
    expect(moments(0, 1).mean[0]).toBeCloseTo(0.1 * 3, 6);
  });

  test('refuses a gradient that is not finite before anything is changed', () => {
    for (const bad of [Number.NaN, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY]) {
      const slots = [createSlot('a', [2], Float32Array.of(1, 2)), createSlot('b', [5], Float32Array.of(1, 2, 3, 4, 5))];
      adamWStep(slots, [Float32Array.of(1, 2), new Float32Array(5)], 1, () => 0.1, options);
      const before = structuredClone(slots);
      const gradients = [Float32Array.of(1, 2), Float32Array.of(0, 0, 0, 0, bad)];
      expect(() => adamWStep(slots, gradients, 7, () => 0.1, { ...options, maxGradNorm: 1 })).toThrow(/gradient is not finite .* step 7/);
      expect(slots).toEqual(before);
    }
  });
});
