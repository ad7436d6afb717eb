// Equality with torch.optim.AdamW is proven by the golden in tests/goldens.test.ts; here is what the golden
// cannot say.

import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { float32 } from '../engine/engine.ts';
import { sumOfSquares } from '../engine/host-kernels.ts';
import { createOrtEngine } from '../engine/ort.ts';
import { createReferenceEngine } from '../engine/reference.ts';
import { type AdamWOptions, createAdamW } from './optimizer.ts';

const options: AdamWOptions = { betas: [0.9, 0.99], eps: 1e-8, weightDecay: 0, maxGradNorm: 0 };
const ort = createOrtEngine();

/** A trained tensor of a test: its values and its gradient. */
interface Slot {
  name: string;
  dims: number[];
  values: number[];
}

/** An optimizer over tensors of these values; `step` gives it gradients, in order. */
async function optimizerOf(slots: readonly Slot[], changes: Partial<AdamWOptions> = {}, engine = ort) {
  const parameters = slots.map(({ name, dims, values }) => ({
    name,
    dims,
    values: engine.state(float32(values, dims)),
    gradient: engine.zeros('float32', dims),
  }));
  const optimizer = await createAdamW(engine, parameters, { ...options, ...changes });
  const read = async (state: { read(): Promise<{ data: ArrayLike<unknown> }> }) => Array.from((await state.read()).data as Float32Array);
  return {
    async step(step: number, gradients: readonly number[][], learningRate: (name: string) => number, scale = 1) {
      for (const [i, { gradient, dims }] of parameters.entries()) await gradient.write(float32(gradients[i], dims));
      return (await optimizer.step({ step, scale, learningRate })).gradNorm;
    },
    values: (): Promise<number[][]> => Promise.all(parameters.map(({ values }) => read(values))),
    moments: (): Promise<number[][]> => Promise.all([...optimizer.moments.values()].map(read)),
    names: [...optimizer.moments.keys()],
  };
}

describe('sumOfSquares', () => {
  test('is the square of the L2 norm, whatever the length', () => {
    const floats = fc.float({ min: -100, max: 100, noNaN: true, noDefaultInfinity: true });
    fc.assert(
      fc.property(fc.array(floats, { maxLength: 11 }), (values) => {
        expect(Math.sqrt(sumOfSquares(Float32Array.from(values)))).toBeCloseTo(Math.hypot(...values), 3);
      }),
    );
  });
});

describe('AdamW', () => {
  const a: Slot = { name: 'a', dims: [2], values: [1, 1] };
  const b: Slot = { name: 'b', dims: [1], values: [1] };

  test('moves each weight by its learning rate at the first step, whatever the size of its gradient', async () => {
    const adam = await optimizerOf([a, b]);
    await adam.step(1, [[100, -0.01], [5]], (name) => (name === 'a' ? 0.1 : 0.5));
    const [first, second] = await adam.values();
    expect(first[0]).toBeCloseTo(0.9, 6);
    expect(first[1]).toBeCloseTo(1.1, 6);
    expect(second[0]).toBeCloseTo(0.5, 6);
  });

  test('follows the formula of the paper over several steps, with everything switched on', async () => {
    const settings: Partial<AdamWOptions> = { betas: [0.8, 0.95], eps: 1e-3, weightDecay: 0.2, maxGradNorm: 1.5 };
    const slots = [
      { name: 'm', dims: [1, 2], values: [0.5, -1] },
      { name: 'b', dims: [1], values: [0.25] },
    ];
    const adam = await optimizerOf(slots, settings);
    const expected = [0.5, -1, 0.25].map((value, i) => ({ value, mean: 0, square: 0, decay: i < 2 ? 0.2 : 0 }));
    for (const [t, gradient] of [
      [1, -2, 3],
      [0.1, 0.2, -0.3],
      [-2, 0, 1],
    ].entries()) {
      const norm = Math.hypot(...gradient);
      const rate = 0.1 / (t + 1);
      expect(await adam.step(t + 1, [gradient.slice(0, 2), gradient.slice(2)], () => rate)).toBeCloseTo(norm, 5);
      expected.forEach((weight, i) => {
        const g = gradient[i] * Math.min(1, 1.5 / norm);
        weight.mean = 0.8 * weight.mean + 0.2 * g;
        weight.square = 0.95 * weight.square + 0.05 * g * g;
        const [mean, square] = [weight.mean / (1 - 0.8 ** (t + 1)), weight.square / (1 - 0.95 ** (t + 1))];
        weight.value = weight.value * (1 - rate * weight.decay) - (rate * mean) / (Math.sqrt(square) + 1e-3);
      });
      for (const [i, value] of (await adam.values()).flat().entries()) expect(value).toBeCloseTo(expected[i].value, 5);
    }
  });

  test('decays matrices, and neither biases nor norms', async () => {
    const slots = [
      { name: 'weight', dims: [1, 2], values: [2, -4] },
      { name: 'bias', dims: [2], values: [2, -4] },
    ];
    const adam = await optimizerOf(slots, { weightDecay: 0.5 });
    await adam.step(
      1,
      [
        [0, 0],
        [0, 0],
      ],
      () => 0.1,
    );
    expect(await adam.values()).toEqual([[...Float32Array.of(1.9, -3.8)], [2, -4]]);
  });

  test('clips by the norm of all gradients, which it returns as it was before', async () => {
    const means = async (maxGradNorm: number, size: number, scale = 1) => {
      const slots = [
        { name: 'a', dims: [1], values: [0] },
        { name: 'b', dims: [1], values: [0] },
      ];
      const adam = await optimizerOf(slots, { maxGradNorm });
      const norm = await adam.step(1, [[3 * size], [4 * size]], () => 0.1, scale);
      const moments = await adam.moments();
      return { norm, mean: [moments[0][0], moments[2][0]] };
    };
    const clipped = await means(1, 1);
    expect(clipped.norm).toBe(5);
    expect(clipped.mean[0]).toBeCloseTo(0.1 * 0.6, 6);
    expect(clipped.mean[1]).toBeCloseTo(0.1 * 0.8, 6);
    // below the threshold, or without one, nothing is scaled
    expect((await means(1, 0.1)).mean[0]).toBeCloseTo(0.1 * 0.3, 6);
    expect((await means(0, 1)).mean[0]).toBeCloseTo(0.1 * 3, 6);
    // the norm is that of the scaled gradients
    const scaled = await means(1, 8, 1 / 8);
    expect(scaled.norm).toBe(5);
    expect(scaled.mean[0]).toBeCloseTo(0.1 * 0.6, 6);
  });

  test('refuses a gradient that is not finite before anything is changed', async () => {
    for (const bad of [Number.NaN, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY]) {
      const slots = [
        { name: 'a', dims: [2], values: [1, 2] },
        { name: 'b', dims: [5], values: [1, 2, 3, 4, 5] },
      ];
      const adam = await optimizerOf(slots, { maxGradNorm: 1 });
      await adam.step(
        1,
        [
          [1, 2],
          [0, 0, 0, 0, 0],
        ],
        () => 0.1,
      );
      const before = [await adam.values(), await adam.moments()];
      await expect(
        adam.step(
          7,
          [
            [1, 2],
            [0, 0, 0, 0, bad],
          ],
          () => 0.1,
        ),
      ).rejects.toThrow(/gradient of b is not finite .* step 7/);
      expect([await adam.values(), await adam.moments()]).toEqual(before);
    }
  });

  test('gives the same as a graph as with the kernel of the engine', async () => {
    const slots = [
      { name: 'weight', dims: [2, 2], values: [1, -2, 0.5, 3] },
      { name: 'bias', dims: [3], values: [0.1, 0, -1] },
    ];
    const both = [ort, createReferenceEngine()].map((engine) => optimizerOf(slots, { weightDecay: 0.1, maxGradNorm: 1 }, engine));
    const [kernel, graph] = await Promise.all(both);
    for (let step = 1; step <= 3; step++)
      for (const adam of [kernel, graph])
        await adam.step(
          step,
          [
            [0.3, -1, step, 0],
            [2, 1e-3, -0.5],
          ],
          () => 0.05,
          0.5,
        );
    const close = (x: number[][], y: number[][]) => {
      for (const [i, row] of x.entries()) for (const [j, value] of row.entries()) expect(value).toBeCloseTo(y[i][j], 6);
    };
    close(await kernel.values(), await graph.values());
    close(await kernel.moments(), await graph.moments());
    expect(kernel.names).toEqual(['weight.exp_avg', 'weight.exp_avg_sq', 'bias.exp_avg', 'bias.exp_avg_sq']);
  });
});
