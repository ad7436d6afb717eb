import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { createRandom, type Random } from '../random.ts';
import { argmax, type Sampling, sampleToken } from './sampling.ts';

/** Always draws the same number. */
const drawing = (value: number): Random => ({ ...createRandom(0), uniform: () => value });

/** Share of each token in many draws. */
function shares(logits: Float32Array, sampling: Omit<Sampling, 'seed'>, previous: number[] = [], draws = 4000): number[] {
  const random = createRandom(7);
  const counts = new Array<number>(logits.length).fill(0);
  for (let i = 0; i < draws; i++) counts[sampleToken(logits, { seed: 7, ...sampling }, random, previous)]++;
  return counts.map((count) => count / draws);
}

function softmax(scores: readonly number[]): number[] {
  const weights = scores.map((score) => Math.exp(score));
  const total = weights.reduce((a, b) => a + b, 0);
  return weights.map((weight) => weight / total);
}

function expectShares(actual: number[], expected: number[]) {
  // three standard deviations of 4000 draws at most
  actual.forEach((share, token) => {
    expect(Math.abs(share - expected[token]), `token ${token}: ${share} of ${expected[token]}`).toBeLessThan(0.024);
  });
}

const logits = Float32Array.of(1, -0.5, 2, 0.3, -1, 1.5);

describe('sampleToken', () => {
  test('is greedy without sampling, the first of equals', () => {
    expect(sampleToken(logits, undefined, createRandom(1), [])).toBe(2);
    expect(argmax(Float32Array.of(0, 3, 3, 1))).toBe(1);
    expect(argmax(Float32Array.of(4, 3, 3, 1))).toBe(0);
    expect(argmax(Float32Array.of(-3, -2, -1))).toBe(2);
    expect(argmax(Float32Array.of(-1))).toBe(0);
  });

  test('draws from the softmax at its temperature', () => {
    for (const temperature of [0.5, 1, 3]) {
      const expected = softmax([...logits].map((logit) => logit / temperature));
      expectShares(shares(logits, { temperature }), expected);
    }
  });

  test('keeps the k most likely tokens', () => {
    const kept = [-Infinity, -Infinity, 2, -Infinity, -Infinity, 1.5];
    expectShares(shares(logits, { temperature: 1, topK: 2 }), softmax(kept));
    expect(shares(logits, { temperature: 5, topK: 1 }, [], 50)[2]).toBe(1);
    // more than there are
    expectShares(shares(logits, { temperature: 1, topK: 100 }), softmax([...logits]));
  });

  test('keeps the smallest set of most likely tokens that reaches top-p, at the given temperature', () => {
    const scores = fc.array(fc.float({ min: -4, max: 4, noNaN: true }), { minLength: 1, maxLength: 12 });
    fc.assert(
      fc.property(scores, fc.double({ min: 0.01, max: 0.99, noNaN: true }), fc.constantFrom(0.5, 1, 2), (scores, topP, temperature) => {
        const probabilities = softmax(scores.map((score) => score / temperature));
        // the last token that can be drawn is the least likely one of the set
        const drawn = sampleToken(Float32Array.from(scores), { seed: 0, temperature, topP }, drawing(1 - 1e-12), []);
        const likelier = probabilities.filter((p) => p > probabilities[drawn]).reduce((a, b) => a + b, 0);
        const atLeastAsLikely = probabilities.filter((p) => p >= probabilities[drawn]).reduce((a, b) => a + b, 0);
        expect(likelier).toBeLessThan(topP + 1e-9);
        expect(atLeastAsLikely).toBeGreaterThan(topP - 1e-9);
        // and the first is the most likely one
        const first = sampleToken(Float32Array.from(scores), { seed: 0, temperature, topP }, drawing(0), []);
        expect(probabilities[first]).toBe(Math.max(...probabilities));
      }),
    );
  });

  test('weighs tokens that were generated before', () => {
    // 2 and 2 again count once; 4 has a negative logit
    const penalised = [1, -0.5, 2 / 1.8, 0.3, -1 * 1.8, 1.5];
    expectShares(shares(logits, { temperature: 1, repetitionPenalty: 1.8 }, [2, 4, 2]), softmax(penalised));
    expect(sampleToken(logits, { seed: 0, temperature: 1, topK: 1, repetitionPenalty: 1.8 }, createRandom(1), [2])).toBe(5);
    // a small positive logit becomes smaller too; below 1, a penalty is a reward
    expectShares(shares(logits, { temperature: 1, repetitionPenalty: 2 }, [2, 3]), softmax([1, -0.5, 1, 0.15, -1, 1.5]));
    expectShares(shares(logits, { temperature: 1, repetitionPenalty: 0.2 }, [3]), softmax([1, -0.5, 2, 1.5, -1, 1.5]));
  });

  test('weighs nothing unless it is told to', () => {
    for (const previous of [[2], [0, 1, 2, 3, 4, 5]]) expectShares(shares(logits, { temperature: 1 }, previous), softmax([...logits]));
    expect(sampleToken(logits, { seed: 0, temperature: 1, topK: 1 }, createRandom(1), [2])).toBe(2);
  });

  test('takes logits of any size', () => {
    for (const offset of [1000, -1000]) {
      const moved = logits.map((logit) => logit + offset);
      expectShares(shares(moved, { temperature: 1 }), softmax([...logits]));
      expectShares(shares(moved, { temperature: 1, topP: 0.999 }), softmax([...logits]));
    }
  });

  test('keeps exactly k of equals, the first ones', () => {
    const equal = Float32Array.of(1, 2, 2, 2, 2, 0);
    expectShares(shares(equal, { temperature: 1, topK: 2 }), [0, 0.5, 0.5, 0, 0, 0]);
    expectShares(shares(equal, { temperature: 1, topP: 0.5 }), softmax([-Infinity, 2, 2, 2, -Infinity, -Infinity]));
  });

  test('top-k is that of sorting, for any scores and any k', () => {
    const scores = fc.array(fc.integer({ min: -3, max: 3 }), { minLength: 1, maxLength: 20 });
    fc.assert(
      fc.property(scores, fc.integer({ min: 1, max: 21 }), fc.double({ min: 0, max: 0.999, noNaN: true }), (list, topK, draw) => {
        const order = [...list.keys()].sort((a, b) => list[b] - list[a] || a - b).slice(0, topK);
        const allowed = new Set(topK < list.length ? order : list.keys());
        expect(allowed).toContain(sampleToken(Float32Array.from(list), { seed: 0, temperature: 1, topK }, drawing(draw), []));
        // the least likely token of the set is reached by the last draw
        const last = sampleToken(Float32Array.from(list), { seed: 0, temperature: 1, topK }, drawing(1 - 1e-9), []);
        if (topK < list.length) expect(last).toBe(order.at(-1));
      }),
    );
  });

  test('leaves the logits as they were and follows its random numbers alone', () => {
    const sampling = { seed: 3, temperature: 2, topK: 4, topP: 0.9, repetitionPenalty: 1.3 };
    const draw = (seed: number) => {
      const random = createRandom(seed);
      return Array.from({ length: 30 }, () => sampleToken(logits, sampling, random, [0]));
    };
    expect(draw(3)).toEqual(draw(3));
    expect(draw(4)).not.toEqual(draw(3));
    expect([...logits]).toEqual([...Float32Array.of(1, -0.5, 2, 0.3, -1, 1.5)]);
  });

  test('never draws a token that was ruled out', () => {
    const ruledOut = Float32Array.of(0, Number.NEGATIVE_INFINITY, 0);
    expect(shares(ruledOut, { temperature: 100, repetitionPenalty: 2 }, [0, 1], 300)[1]).toBe(0);
    const first = Float32Array.of(Number.NEGATIVE_INFINITY, 0, 0);
    expect(sampleToken(first, { seed: 0, temperature: 1 }, drawing(0), [])).toBe(1);
    // and gives a token where rounding carries a draw beyond the last
    expect(sampleToken(first, { seed: 0, temperature: 1 }, drawing(1), [])).toBe(2);
  });
});

test('with a large top-k takes no longer than sorting, whatever the vocabulary', () => {
  const logits = Float32Array.from({ length: 262_144 }, (_, token) => (token * 7919) % 262_144);
  const began = performance.now();
  const token = sampleToken(logits, { seed: 0, temperature: 1e4, topK: 100_000 }, createRandom(1), []);
  expect(performance.now() - began).toBeLessThan(2000);
  expect(logits[token]).toBeGreaterThanOrEqual(262_144 - 100_000);
});
