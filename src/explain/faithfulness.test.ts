import { describe, expect, test } from 'vitest';
import { createRandom } from '../random.ts';
import type { Explainer } from './explainer.ts';
import type { AnsweredQuestion, Removal } from './explanation.ts';
import { areaUnder, KEPT_SHARES, LEAST_GAIN, type MapsOfTarget, measureFaithfulness, RANDOM_ORDERS } from './faithfulness.ts';
import { boxMap, chanceOf, isInside, point } from './pointing.ts';

const HIDDEN = 2;
const question = (rows: number): AnsweredQuestion => ({
  prompt: '',
  answer: '',
  promptIds: [],
  answerIds: [0, 1],
  pixelValues: new Float32Array(0),
  imageRows: new Float32Array(rows * HIDDEN),
});

/**
 * A model whose log P of token 0 is the sum of the weights of what it sees, and of token 1 a tenth of that.
 */
function additive(weights: readonly number[], asked: string[] = []): Explainer {
  return {
    config: { text_config: { hidden_size: HIDDEN } },
    layout: { rowOf: (token: number) => token, patchOf: (row: number) => row },
    async logProbabilities(_question: AnsweredQuestion, kept: readonly Uint8Array[], { removal = 'mean' }: { removal?: Removal } = {}) {
      asked.push(...kept.map((mask) => `${removal} ${mask.join('')}`));
      return kept.map((mask) => {
        const sum = mask.reduce((total, isKept, i) => total + isKept * weights[i], 0);
        return Float32Array.of(sum, sum / 10);
      });
    },
  } as unknown as Explainer;
}

const weights = [2, 8, 1, 4];
const ideal = Float32Array.from(weights);
const worst = ideal.map((value) => -value);

describe('deletion and insertion', () => {
  test('areas under the curves of a sum are those computed by hand', async () => {
    const [{ full, blank, scores, curves }] = await measureFaithfulness(
      additive(weights),
      question(4),
      [{ tokens: [0], maps: { ideal, worst } }],
      { seed: 1, steps: 4, perturbation: true },
    );
    expect([full, blank]).toEqual([15, 0]);
    const close = (values: number[]) => values.map((value) => expect.closeTo(value, 6));
    expect(curves!.ideal.deletion).toEqual(close([1, 7 / 15, 3 / 15, 1 / 15, 0]));
    expect(curves!.ideal.insertion).toEqual(close([0, 8 / 15, 12 / 15, 14 / 15, 1]));
    expect(scores!.ideal.deletion).toBeCloseTo((0.5 + 7 / 15 + 3 / 15 + 1 / 15) / 4, 6);
    expect(scores!.ideal.insertion).toBeCloseTo((0.5 + 8 / 15 + 12 / 15 + 14 / 15) / 4, 6);
    // the worst order deletes as the ideal one would insert, from behind
    expect(scores!.worst.deletion).toBeCloseTo(scores!.ideal.insertion, 6);
    expect(scores!.worst.insertion).toBeCloseTo(scores!.ideal.deletion, 6);
    expect(scores!.random.deletion).toBeGreaterThan(scores!.ideal.deletion);
    expect(scores!.random.insertion).toBeLessThan(scores!.ideal.insertion);
    // shares 1 .75 .5 .25 .2 .15 .1 .05 0 of four rows keep 4 3 2 1 1 1 0 0 0 of them
    expect(curves!.ideal.positive).toEqual(close([1, 7, 3, 1, 1, 1, 0, 0, 0].map((sum, i) => (i === 0 ? 1 : sum / 15))));
    expect(curves!.ideal.negative).toEqual(close([15, 14, 12, 8, 8, 8, 0, 0, 0].map((sum) => sum / 15)));
    expect(scores!.ideal.positive!).toBeLessThan(scores!.ideal.negative!);
  });

  test('no mask is asked about twice, and targets share them', async () => {
    const asked: string[] = [];
    const targets: MapsOfTarget[] = [
      { tokens: [0], maps: { ideal } },
      { tokens: [0, 1], maps: { ideal, worst } },
    ];
    const found = await measureFaithfulness(additive(weights, asked), question(4), targets, { seed: 1, steps: 4 });
    expect(new Set(asked).size).toBe(asked.length);
    expect(asked.length).toBeLessThan((2 + 1 + RANDOM_ORDERS) * 10);
    expect(found[1].full).toBeCloseTo(16.5);
    expect(found[1].scores!.ideal.deletion).toBeCloseTo(found[0].scores!.ideal.deletion);
  });

  test('where the picture is worth little, there are no scores', async () => {
    const small = weights.map((weight) => (weight / 15) * (LEAST_GAIN - 0.01));
    const [found] = await measureFaithfulness(additive(small), question(4), [{ tokens: [0], maps: { ideal } }], { seed: 1 });
    expect(found.scores).toBeUndefined();
    expect(found.full).toBeCloseTo(LEAST_GAIN - 0.01);
  });

  test('a map without differences is no better than the random orders, whatever the layout', async () => {
    const many = Array.from({ length: 48 }, (_, i) => (i < 12 ? 4 : 0));
    const flat = new Float32Array(48);
    const areas: number[] = [];
    for (let seed = 0; seed < 30; seed++) {
      const [{ scores }] = await measureFaithfulness(additive(many), question(48), [{ tokens: [0], maps: { flat } }], { seed });
      areas.push(scores!.flat.deletion);
    }
    // ties in the order of the patches would give 0.17
    const mean = areas.reduce((sum, area) => sum + area, 0) / areas.length;
    expect(Math.abs(mean - 0.5)).toBeLessThan(0.05);
  });

  test('the trapezoid rule over uneven shares', () => {
    expect(
      areaUnder(
        KEPT_SHARES.map(() => 1),
        KEPT_SHARES,
      ),
    ).toBeCloseTo(1);
    expect(areaUnder([...KEPT_SHARES], KEPT_SHARES)).toBeCloseTo(0.5);
  });
});

describe('pointing', () => {
  const grid = { rows: 3, columns: 3, patch: 10, size: 30 };
  const box = { left: 8, top: 0, right: 20, bottom: 16 };

  test('a patch is inside where its center is', () => {
    const inside = Array.from({ length: 9 }, (_, patch) => isInside(patch, box, grid));
    expect(inside).toEqual([false, true, false, false, true, false, false, false, false]);
    expect(chanceOf(box, grid)).toBeCloseTo(2 / 9);
  });

  test('a box covers patches by area', () => {
    expect([...boxMap(box, grid)]).toEqual([0.2, 1, 0, 0.12, 0.6, 0, 0, 0, 0].map((value) => expect.closeTo(value, 6)));
  });

  test('the peak decides, and ties are drawn', () => {
    const random = createRandom(1);
    expect(point(Float32Array.of(0, 0, 0, 0, 5, 0, 1, 0, 0), box, grid, random)).toEqual({ hit: true, mass: expect.closeTo(0.5, 6) });
    expect(point(Float32Array.of(0, 0, 0, 0, 5, 6, 0, 0, 0), box, grid, random).hit).toBe(false);
    const hits = Array.from({ length: 600 }, () => Number(point(new Float32Array(9), box, grid, random).hit));
    expect(Math.abs(hits.reduce((sum, hit) => sum + hit, 0) / 600 - 2 / 9)).toBeLessThan(0.06);
    expect(point(new Float32Array(9), box, grid, random).mass).toBeNaN();
  });
});
