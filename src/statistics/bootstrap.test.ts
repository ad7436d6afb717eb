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

  it('reads interval, error and p off the draws', () => {
    // the statistic counts: -10 of the data, then -9, -8, ... of the draws
    const counting = (draws: number, level: number) => {
      let next = -10;
      return clusterBootstrap(3, () => next++, { seed: 1, draws, level });
    };
    const of101 = counting(101, 0.9);
    expect(of101).toMatchObject({ value: -10, p: (2 * (10 + 1)) / 102 });
    expect(of101.low).toBeCloseTo(-4, 12);
    expect(of101.high).toBeCloseTo(86, 12);
    expect(of101.se).toBeCloseTo(Math.sqrt((101 * 102) / 12), 12);
    // between two draws: 0.1 * 9 of the way through -9 ... 0
    expect(counting(10, 0.8).low).toBeCloseTo(-8.1, 12);
    expect(counting(10, 0.8).high).toBeCloseTo(-0.9, 12);
    expect(counting(1, 0.95)).toMatchObject({ low: -9, high: -9 });
  });

  it('draws as many clusters as there are, each as often as others', () => {
    const drawn: number[][] = [];
    clusterBootstrap(5, (counts) => drawn.push([...counts]), { seed: 3, draws: 2000 });
    expect(drawn[0]).toEqual([1, 1, 1, 1, 1]);
    expect(drawn).toHaveLength(2001);
    for (const counts of drawn) expect(counts.reduce((sum, count) => sum + count)).toBe(5);
    for (let cluster = 0; cluster < 5; cluster++)
      expect(drawn.slice(1).reduce((sum, counts) => sum + counts[cluster], 0) / 2000).toBeCloseTo(1, 1);
    expect(clusterBootstrap(1, (counts) => counts[0], { seed: 1, draws: 1 }).value).toBe(1);
  });

  it('refuses no clusters and no draws', () => {
    expect(() => clusterBootstrap(0, () => 0, { seed: 1 })).toThrow(RangeError);
    expect(() => clusterBootstrap(2, () => 0, { seed: 1, draws: 0 })).toThrow(RangeError);
    expect(() => clusterBootstrap(2, () => 0, { seed: 1, level: 95 })).toThrow(RangeError);
  });
});
