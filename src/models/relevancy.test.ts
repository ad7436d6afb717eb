import { describe, expect, test } from 'vitest';
import { float32 } from '../engine/engine.ts';
import { createReferenceEngine } from '../engine/reference.ts';
import { input } from '../graph/tensor.ts';
import { relevancyRow, rolloutRow } from './relevancy.ts';

// two layers of two heads over three tokens, computed by hand
const attentions = [
  [1, 0, 0, 0.4, 0.6, 0, 0.2, 0.3, 0.5, /* head 2 */ 1, 0, 0, 0.5, 0.5, 0, 0.6, 0.1, 0.3],
  [1, 0, 0, 0.9, 0.1, 0, 0.1, 0.7, 0.2, /* head 2 */ 1, 0, 0, 0.3, 0.7, 0, 0.25, 0.25, 0.5],
];
const gradients = [
  [0.1, 0, 0, 0.2, -0.1, 0, 0.5, 0.5, -1, /* head 2 */ 0, 0, 0, 0.4, 0.4, 0, -0.3, 2, 1],
  [0, 0, 0, 0.1, 0.1, 0, 1, -1, 0.5, /* head 2 */ 0, 0, 0, 0, 0, 0, 0.4, 0.8, 0],
];

async function rowsOf(start: number[]) {
  const layer = (name: string) => input(name, 'float32', ['batch', 2, 'n', 'n']);
  const a = [layer('a1'), layer('a2')];
  const g = [layer('g1'), layer('g2')];
  const first = input('start', 'float32', ['batch', 1, 'n']);
  const program = await createReferenceEngine().compile({ relevancy: relevancyRow(a, g, first), rollout: rolloutRow(a, first) });
  const value = (values: number[]) => float32(values, [1, 2, 3, 3]);
  const feeds = { a1: value(attentions[0]), a2: value(attentions[1]), g1: value(gradients[0]), g2: value(gradients[1]) };
  const { relevancy, rollout } = await program.run({ ...feeds, start: float32(start, [1, 1, 3]) });
  return { relevancy: [...(relevancy.data as Float32Array)], rollout: [...(rollout.data as Float32Array)] };
}

const close = (values: number[], digits = 6) => values.map((value) => expect.closeTo(value, digits));

describe('rules of gradient-weighted attention', () => {
  test('equations (5) and (6), the last row', async () => {
    const { relevancy } = await rowsOf([0, 0, 1]);
    expect(relevancy).toEqual(close([0.1715, 0.29375, 1.2075]));
  });

  test('rollout, whose rows sum to 1', async () => {
    const { rollout } = await rowsOf([0, 0, 1]);
    expect(rollout).toEqual(close([0.27594, 0.25156, 0.4725], 5));
    expect(rollout.reduce((sum, value) => sum + value, 0)).toBeCloseTo(1, 6);
  });

  test('a row of a product is linear in what it begins with', async () => {
    const [first, last, mixed] = await Promise.all([rowsOf([1, 0, 0]), rowsOf([0, 0, 1]), rowsOf([0.25, 0, 0.75])]);
    expect(mixed.relevancy).toEqual(close(first.relevancy.map((value, i) => 0.25 * value + 0.75 * last.relevancy[i])));
  });
});
