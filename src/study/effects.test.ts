// The paper's own table through the analysis of a study: LLaVA-Gemma (arXiv 2404.01331 v2), table 1 and
// figure 1.

import { describe, expect, test } from 'vitest';
import { createRandom } from '../random.ts';
import { lenth } from '../statistics/unreplicated.ts';
import { combinations, fitEffects, type ModelFactor, type ModelRun } from './effects.ts';

const factors: ModelFactor[] = [
  { name: 'language model', levels: ['2b', '7b'] },
  { name: 'encoder', levels: ['CLIP', 'DINOv2'] },
  { name: 'stage 1', levels: ['yes', 'no'] },
];

/** In the order of the table: 2b CLIP yes, no, 2b DINOv2 yes, no, 7b ... */
const table = {
  GQA: [0.531, 0.481, 0.587, 0.501, 0.472, 0.472, 0.519, 0.459],
  // biome-ignore lint/suspicious/noApproximativeNumericConstant: a score
  POPE: [0.85, 0.784, 0.853, 0.793, 0.848, 0.782, 0.794, 0.693],
  SQA: [0.564, 0.549, 0.555, 0.568, 0.625, 0.636, 0.628, 0.598],
  VQAv2: [70.7, 61.7, 71.4, 61.7, 68.7, 65.1, 65.2, 57.4],
  'MM-Vet': [17.7, 13.1, 19.1, 14.5, 18.2, 19.1, 14.3, 12.2],
  'MME-C': [236, 249, 307, 309, 254, 278, 257, 226],
};

const modelOf = (scores: readonly number[]) =>
  fitEffects(
    factors,
    scores.map((score, i): ModelRun => ({ levels: [i >> 2, (i >> 1) & 1, i & 1], run: String(i), credits: [score] })),
    ['all'],
  )!;

describe("the paper's eight cells", () => {
  test.each([
    ['GQA', -0.049, 0.027, -0.045],
    ['POPE', -0.073, -0.032, -0.041],
    ['SQA', -0.005, -0.006, 0.063],
  ] as const)('%s: the effects of figure 1', (benchmark, skip, dinov2, size) => {
    const model = modelOf(table[benchmark]);
    const effects = [model.effect({ 'stage 1': 'no' }), model.effect({ encoder: 'DINOv2' }), model.effect({ 'language model': '7b' })];
    // both are rounded to three digits in print
    for (const [i, effect] of effects.entries()) expect(Math.abs(effect!.value - [skip, dinov2, size][i])).toBeLessThan(0.001);
    expect(model.runNoise).toBe(false);
  });

  test.each([
    ['POPE', 0.006, -0.072],
    ['VQAv2', 0.35, -5.6],
    ['MM-Vet', 1.4, -5.4],
    ['MME-C', 65, -25],
  ] as const)('%s: DINOv2 helps at 2b and hurts at 7b, which main effects hide', (benchmark, small, large) => {
    const model = modelOf(table[benchmark]);
    const at = (size: string) =>
      model.difference({ encoder: 'DINOv2', 'language model': size }, { encoder: 'CLIP', 'language model': size })!.value;
    expect(Math.abs(at('2b') / small - 1)).toBeLessThan(0.05);
    expect(Math.abs(at('7b') / large - 1)).toBeLessThan(0.05);
    expect(model.effect({ 'language model': '7b', encoder: 'DINOv2' })!.value).toBeCloseTo((at('7b') - at('2b')) / 2, 10);
  });

  test('POPE: the interaction of encoder and size is as large as both main effects', () => {
    const model = modelOf(table.POPE);
    expect(model.effect({ encoder: 'DINOv2', 'language model': '7b' })!.value).toBeCloseTo(-0.039, 3);
    const all = model.terms.flatMap((names) => combinations(factors, names).map((levels) => model.effect(levels)!.value));
    expect(all).toHaveLength(7);
    expect(lenth(all).se).toBeGreaterThan(0);
  });
});

describe('a model of answers', () => {
  const questions = Array.from({ length: 60 }, (_, i) => `picture ${i >> 1}`);

  /** Runs of a 2 x 3 grid with a planted effect of b = z, and of both together. */
  function runs(seeds: number, cells = [0, 1].flatMap((a) => [0, 1, 2].map((b) => [a, b]))): ModelRun[] {
    const random = createRandom(3);
    return cells.flatMap((levels) =>
      Array.from({ length: seeds }, (_, seed) => {
        const chance = 0.4 + (levels[1] === 2 ? 0.3 : 0) - (levels[0] === 1 && levels[1] === 2 ? 0.3 : 0);
        return { levels, run: `${levels} ${seed}`, credits: questions.map(() => (random.uniform() < chance ? 1 : 0)) };
      }),
    );
  }
  const grid: ModelFactor[] = [
    { name: 'a', levels: ['p', 'q'] },
    { name: 'b', levels: ['x', 'y', 'z'] },
  ];

  test('tells factors of three levels, and where an effect is', () => {
    const model = fitEffects(grid, runs(4), questions)!;
    expect(model.runNoise).toBe(true);
    const [atP, atQ] = ['p', 'q'].map((a) => model.difference({ a, b: 'z' }, { a, b: 'x' })!);
    expect(atP.low).toBeLessThan(0.3);
    expect(atP.high).toBeGreaterThan(0.3);
    expect(atP.p).toBeLessThan(0.001);
    expect(atQ.low).toBeLessThan(0);
    expect(atQ.high).toBeGreaterThan(0);
    expect(model.effect({ a: 'q', b: 'z' })!.value).toBeCloseTo((atQ.value - atP.value) / 2, 10);
  });

  test('says what a list of cells cannot tell', () => {
    const oneAtATime = [
      [0, 0],
      [1, 0],
      [0, 1],
      [0, 2],
    ];
    const model = fitEffects(grid, runs(2, oneAtATime), questions)!;
    expect(model.terms).toEqual([['a'], ['b']]);
    expect(model.notTold).toEqual([{ term: 'a x b', from: 'the effects before it' }]);
    expect(model.effect({ a: 'q', b: 'z' })).toBeUndefined();
  });

  test('takes runs that begin with the same checkpoint for what they are', () => {
    // stage 1 does nothing; what a checkpoint has by chance is in all runs that begin with it
    const factors: ModelFactor[] = [
      { name: 'stage 1', levels: ['yes', 'no'] },
      { name: 'rate', levels: ['a', 'b', 'c', 'd'] },
    ];
    const held = (isKnown: boolean, draw: number) => {
      const random = createRandom(11, 'bases', draw);
      const shifts = Array.from({ length: 5 }, () => 0.08 * random.normal());
      const made = [0, 1].flatMap((stage) =>
        [0, 1, 2, 3].flatMap((rate) =>
          shifts.map((shift, seed): ModelRun => {
            const chance = 0.5 + (stage === 0 ? shift : 0.08 * random.normal());
            const credits = questions.map(() => (random.uniform() < chance ? 1 : 0));
            return {
              levels: [stage, rate],
              run: `${stage} ${rate} ${seed}`,
              ...(isKnown && stage === 0 ? { base: `${seed}` } : {}),
              credits,
            };
          }),
        ),
      );
      const { low, high } = fitEffects(factors, made, questions)!.effect({ 'stage 1': 'no' })!;
      return low <= 0 && high >= 0;
    };
    const share = (isKnown: boolean) => Array.from({ length: 120 }, (_, draw) => Number(held(isKnown, draw))).reduce((a, b) => a + b) / 120;
    expect(share(false)).toBeLessThan(0.88);
    expect(share(true)).toBeGreaterThan(0.92);
  });

  test('keeps its degrees of freedom for what varies within checkpoints, and an interval where runs are lost', () => {
    const random = createRandom(5);
    const two: ModelFactor[] = [
      { name: 'stage 1', levels: ['long', 'short'] },
      { name: 'rate', levels: ['a', 'b', 'c', 'd'] },
    ];
    const made = [0, 1].flatMap((stage) =>
      [0, 1, 2, 3].flatMap((rate) =>
        Array.from({ length: 5 }, (_, seed): ModelRun => {
          const credits = questions.map(() => (random.uniform() < 0.5 ? 1 : 0));
          return { levels: [stage, rate], run: `${stage} ${rate} ${seed}`, base: `${stage} ${seed}`, credits };
        }),
      ),
    );
    const without = (runs: ModelRun[]) => runs.map(({ base: _, ...run }) => run);
    const [shared, apart] = [made, without(made)].map((runs) => fitEffects(two, runs, questions)!.effect({ rate: 'b' })!);
    expect(shared).toEqual(apart);
    // every checkpoint has lost another run
    const kept = made.filter(({ levels: [, rate] }, i) => rate !== i % 5);
    const { df, low } = fitEffects(two, kept, questions)!.effect({ 'stage 1': 'short' })!;
    expect(df).toBeGreaterThan(1);
    expect(Number.isFinite(low)).toBe(true);
  });

  test('leaves out a level of which there is no run', () => {
    const model = fitEffects(
      grid,
      runs(2, [
        [0, 0],
        [0, 2],
        [1, 0],
        [1, 2],
      ]),
      questions,
    )!;
    expect(model.factors[1].levels).toEqual(['x', 'z']);
    expect(model.difference({ b: 'y' }, { b: 'x' })).toBeUndefined();
    expect(fitEffects(grid, runs(2, [[0, 0]]), questions)).toBeUndefined();
  });
});
