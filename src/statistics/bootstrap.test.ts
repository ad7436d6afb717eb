import { describe, expect, it } from 'vitest';
import { createRandom } from '../random.ts';
import { bootstrapMean, clusterBootstrap } from './bootstrap.ts';
import { clustersOf, sumsByCluster } from './clusters.ts';
import { differencesOf, pairedDifference } from './paired.ts';

/** Answers of two systems to 600 questions on 200 pictures, some of them easy. */
function answers() {
  const random = createRandom(4);
  const ease = Array.from({ length: 200 }, () => 0.6 * random.uniform());
  const pictures = Array.from({ length: 600 }, (_, i) => i % 200);
  const of = (bonus: number) => pictures.map((picture) => (random.uniform() < 0.2 + ease[picture] + bonus ? 1 : 0));
  return { a: of(0.12), b: of(0), pictures };
}

describe('bootstrapMean', () => {
  const { a, b, pictures } = answers();
  const differences = differencesOf(a, b);

  it('agrees with the formula on many clusters', () => {
    const drawn = bootstrapMean(differences, { clusters: pictures, seed: 1 });
    const { value, se, low, high } = pairedDifference(a, b, { clusters: pictures });
    expect(drawn.value).toBeCloseTo(value, 12);
    expect(drawn.se / se).toBeCloseTo(1, 1);
    expect(drawn.low).toBeCloseTo(low, 2);
    expect(drawn.high).toBeCloseTo(high, 2);
    expect(drawn.draws).toBe(10_000);
  });

  it('is the same for a seed, and another for another', () => {
    const draw = (seed: number) => bootstrapMean(differences, { clusters: pictures, seed, draws: 500 });
    expect(draw(1)).toEqual(draw(1));
    expect(draw(1).low).not.toBe(draw(2).low);
  });

  it('has a p that is never 0, and 1 where nothing differs', () => {
    expect(bootstrapMean([1, 1, 1], { seed: 1, draws: 99 })).toMatchObject({ p: 2 / 100, low: 1, high: 1, se: 0 });
    expect(bootstrapMean([0, 0, 0], { seed: 1, draws: 99 }).p).toBe(1);
  });

  it('takes 1,000 draws of 9,000 questions in a blink', () => {
    const start = process.cpuUsage().user;
    bootstrapMean(new Float64Array(9000), { seed: 1, draws: 1000 });
    expect((process.cpuUsage().user - start) / 1e6).toBeLessThan(2);
  });
});

describe('clusterBootstrap', () => {
  it('draws a score that is no mean, of two systems at once', () => {
    const { a, b, pictures } = answers();
    const clusters = clustersOf(pictures);
    const truth = pictures.map((picture) => picture % 2);
    const sums = [a, b].map((said) => ({
      hits: sumsByCluster(
        said.map((yes, i) => yes * truth[i]),
        clusters,
      ),
      said: sumsByCluster(said, clusters),
      there: sumsByCluster(truth, clusters),
    }));
    const f1 = ({ hits, said, there }: (typeof sums)[0], drawn: Uint32Array) => {
      const total = (by: Float64Array) => by.reduce((sum, each, i) => sum + each * drawn[i], 0);
      return (2 * total(hits)) / (total(said) + total(there));
    };
    const same = clusterBootstrap(clusters.count, (drawn) => f1(sums[0], drawn) - f1(sums[0], drawn), { seed: 1, draws: 200 });
    expect(same).toMatchObject({ value: 0, low: 0, high: 0, p: 1 });
    const { value, low, high } = clusterBootstrap(clusters.count, (drawn) => f1(sums[0], drawn) - f1(sums[1], drawn), {
      seed: 1,
      draws: 500,
    });
    expect(low).toBeLessThan(value);
    expect(high).toBeGreaterThan(value);
    expect(high - low).toBeLessThan(0.2);
  });

  it('refuses no clusters and no draws', () => {
    expect(() => clusterBootstrap(0, () => 0, { seed: 1 })).toThrow(RangeError);
    expect(() => clusterBootstrap(2, () => 0, { seed: 1, draws: 0 })).toThrow(RangeError);
  });
});
