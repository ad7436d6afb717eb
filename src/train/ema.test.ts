import { expect, test } from 'vitest';
import { float32, type State } from '../engine/engine.ts';
import { createOrtEngine } from '../engine/ort.ts';
import { createReferenceEngine } from '../engine/reference.ts';
import { createWeightAverage, decayAt } from './ema.ts';

const numbers = async (state: State) => Array.from((await state.read()).data as Float32Array);

test('the decay grows to its value', () => {
  expect([1, 2, 10].map((step) => decayAt(0.9, step))).toEqual([2 / 11, 3 / 12, 11 / 20]);
  expect(decayAt(0.9, 81)).toBe(0.9);
});

test.each([createOrtEngine({ threads: 1 }), createReferenceEngine()])(
  'follows the weights, goes on from a checkpoint, and becomes them',
  async (engine) => {
    const weight = engine.state(float32([1, -2], [2]));
    const trained = new Map([['w', weight]]);
    const average = await createWeightAverage(engine, trained, 0.5);
    const expected = [1, -2];
    const step = async (to: number[], at: number, of = average) => {
      await weight.write(float32(to, [2]));
      await of.update(at);
      to.forEach((value, i) => {
        expected[i] += (1 - decayAt(0.5, at)) * (value - expected[i]);
      });
    };
    await step([3, 5], 1);
    await step([4, 0], 2);
    for (const [i, value] of (await numbers(average.values.get('w')!)).entries()) expect(value).toBeCloseTo(expected[i], 6);
    // the weights themselves are as they were
    expect(await numbers(weight)).toEqual([4, 0]);
    const saved = new Map([...average.saved].map(([name, state]) => [name, float32([...expected], state.dims)]));
    expect([...saved.keys()]).toEqual(['w.ema']);
    const resumed = await createWeightAverage(engine, trained, 0.5, saved);
    // they are not in memory twice
    expect(saved.size).toBe(0);
    await step([1, 1], 50, resumed);
    await resumed.apply();
    for (const [i, value] of (await numbers(weight)).entries()) expect(value).toBeCloseTo(expected[i], 6);
    await expect(createWeightAverage(engine, trained, 0.5, new Map())).rejects.toThrow('the checkpoint has no average of w');
    await average.dispose();
    await resumed.dispose();
  },
);
