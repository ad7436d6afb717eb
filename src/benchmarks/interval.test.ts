import { describe, expect, it } from 'vitest';
import type { Benchmark, BenchmarkQuestion, Judged } from './benchmark.ts';
import { guessesOf } from './guesses.ts';
import { headlineInterval } from './interval.ts';
import { letterAnswer } from './prompts.ts';

const question = (id: number, cluster = String(id), references = ['A'], options?: string[]): BenchmarkQuestion => ({
  id: String(id),
  prompt: letterAnswer('Which?'),
  pictures: [],
  references,
  cluster,
  groups: {},
  options,
});
const judged = (credits: readonly number[], clusterOf: (i: number) => string = String): Judged[] =>
  credits.map((credit, i) => ({ question: question(i, clusterOf(i)), answer: '', parsed: '', credit }));

/** Percent of right answers, and of pairs that are right. */
const benchmark = (headline: 'accuracy' | 'pairs'): Benchmark => ({
  name: 'test',
  title: 'Test',
  source: '',
  files: [],
  harnesses: [{ name: 'own', about: '' }],
  headline: { name: headline, best: 100 },
  maxNewTokens: 1,
  questions: async () => [],
  answers: async () => [],
  judge: (answered) =>
    answered.map(({ question, answer }) => ({ question, answer, parsed: answer, credit: Number(answer === question.references[0]) })),
  summarize(all) {
    const right = new Map<string, boolean>();
    for (const { question, credit } of all) right.set(question.cluster, (right.get(question.cluster) ?? true) && credit === 1);
    const pairs = [...right.values()];
    const accuracy = (100 * all.reduce((sum, { credit }) => sum + credit, 0)) / all.length;
    return { scores: { accuracy, pairs: (100 * pairs.filter(Boolean).length) / pairs.length }, groups: {} };
  },
});

describe('the interval of a headline', () => {
  it("is Wilson's for questions of pictures of their own", () => {
    const all = judged([...new Array(90).fill(1), ...new Array(10).fill(0)]);
    const { low, high, method } = headlineInterval(benchmark('accuracy'), all, 'own', 90)!;
    expect(method).toBe('wilson');
    // study.md section 6: 90 of 100
    expect(low).toBeCloseTo(82.6, 1);
    expect(high).toBeCloseTo(94.5, 1);
  });

  it('is wider where questions share pictures and are answered alike', () => {
    const credits = Array.from({ length: 200 }, (_, i) => Number((i >> 2) % 2 === 0));
    const alone = headlineInterval(benchmark('accuracy'), judged(credits), 'own', 50)!;
    const shared = headlineInterval(
      benchmark('accuracy'),
      judged(credits, (i) => String(i >> 2)),
      'own',
      50,
    )!;
    expect(shared.method).toBe('clustered');
    expect((shared.high - shared.low) / (alone.high - alone.low)).toBeGreaterThan(1.8);
    expect((shared.high - shared.low) / (alone.high - alone.low)).toBeLessThan(2.2);
  });

  it('of a score that is no mean of credit draws whole clusters again', () => {
    const credits = Array.from({ length: 200 }, (_, i) => Number((i >> 1) % 4 !== 0 || i % 2 === 0));
    const all = judged(credits, (i) => String(i >> 1));
    const { low, high, method } = headlineInterval(benchmark('pairs'), all, 'own', 75)!;
    expect(method).toBe('bootstrap');
    // 75 of 100 pairs: 1.96 sqrt(.75 x .25 / 100) = 8.5
    expect(75 - low).toBeGreaterThan(6.5);
    expect(75 - low).toBeLessThan(10.5);
    expect(high - 75).toBeGreaterThan(6.5);
    expect(high - 75).toBeLessThan(10.5);
    expect(headlineInterval(benchmark('pairs'), all, 'own', 75)).toEqual({ low, high, method });
  });
});

describe('where all pairs are wrong, or all right, every draw is the same: Wilson over pairs', () => {
  it.each([
    [0, 0, 16.11],
    [1, 83.89, 100],
  ])('credit %d', (credit, low, high) => {
    const all = judged(new Array(40).fill(credit), (i) => String(i >> 1));
    // the headline of half a pair right is no mean of credit
    const half = judged(
      Array.from({ length: 40 }, (_, i) => Number(credit === 1 || i % 2 === 0)),
      (i) => String(i >> 1),
    );
    const got = headlineInterval(benchmark('pairs'), half, 'own', 100 * credit)!;
    // study.md section 6: 20 of 20 or none
    expect(got.low).toBeCloseTo(low, 2);
    expect(got.high).toBeCloseTo(high, 2);
    expect(got.method).toBe(credit === 1 ? 'clustered' : 'wilson');
    const same = headlineInterval(benchmark('pairs'), all, 'own', 100 * credit)!;
    expect(same.low).toBeCloseTo(low, 2);
    expect(same.high).toBeCloseTo(high, 2);
  });
});

describe('guessing', () => {
  it('chooses among the options, or among all that is right somewhere', async () => {
    const letters = Array.from({ length: 400 }, (_, i) => question(i, String(i), [i % 4 === 0 ? 'B' : 'A'], ['A', 'B', 'C', 'D']));
    const found = await guessesOf(benchmark('accuracy'), letters, 'own');
    expect(found!.majority).toEqual({ answer: 'A', score: 75 });
    expect(found!.credits.majority).toBe(0.75);
    expect(found!.credits.random).toBeCloseTo(found!.random / 100, 12);
    expect(found!.random).toBeGreaterThan(22);
    expect(found!.random).toBeLessThan(28);
    const words = Array.from({ length: 400 }, (_, i) => question(i, String(i), [i % 2 ? 'cat' : 'dog']));
    const open = await guessesOf(benchmark('accuracy'), words, 'own');
    expect(open!.random).toBeGreaterThan(46);
    expect(open!.random).toBeLessThan(54);
    expect(await guessesOf({ ...benchmark('accuracy'), judged: 'always' as const }, words, 'own')).toBeUndefined();
    expect(await guessesOf(benchmark('accuracy'), [question(1, '1', [])], 'own')).toBeUndefined();
  });
});
