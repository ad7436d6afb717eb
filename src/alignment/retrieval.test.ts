import { describe, expect, it } from 'vitest';
import { createRandom } from '../random.ts';
import { csls, foundAt, neighborCounts, retrievalOf, type Scores, skewness } from './retrieval.ts';
import { cosineScores, lateScores, maxCosine, meanCosineAcross, modalityGap, neighborOverlap, pooledScores } from './similarity.ts';

const scoresOf = (rows: readonly (readonly number[])[], owners = rows[0].map((_, i) => i)): Scores => ({
  data: Float64Array.from(rows.flat()),
  pictures: rows.length,
  texts: rows[0].length,
  owners,
});

const rowsOf = (rows: readonly (readonly number[])[]) => ({
  data: Float64Array.from(rows.flat()),
  count: rows.length,
  width: rows[0].length,
});

const constant = (pictures: number, perPicture: number): Scores => ({
  data: new Float64Array(pictures * pictures * perPicture).fill(0.5),
  pictures,
  texts: pictures * perPicture,
  owners: Array.from({ length: pictures * perPicture }, (_, i) => Math.floor(i / perPicture)),
});

describe('chance', () => {
  it('is k / N for texts, and exact for the five texts of a picture', () => {
    const { imageToText, textToImage } = retrievalOf(constant(1000, 5));
    expect(imageToText.chance).toEqual({ 1: expect.closeTo(0.001, 10), 5: expect.closeTo(0.00499, 5), 10: expect.closeTo(0.00996, 5) });
    expect(textToImage.chance).toEqual({ 1: expect.closeTo(0.001, 10), 5: expect.closeTo(0.005, 10), 10: expect.closeTo(0.01, 10) });
    expect(textToImage.chanceRank).toBe(500.5);
  });

  it.each([
    [20, 1],
    [20, 5],
  ])('is what equal scores get: %i pictures of %i texts', (pictures, perPicture) => {
    for (const scores of [constant(pictures, perPicture), csls(constant(pictures, perPicture))])
      for (const way of Object.values(retrievalOf(scores))) {
        for (const k of [1, 5, 10]) expect(way.recall[k]).toBeCloseTo(way.chance[k], 12);
        expect(way.pessimistic).toEqual({ 1: 0, 5: 0, 10: 0 });
        expect(way.medianRank).toBeCloseTo(way.chanceRank, 12);
        expect(way.hubness).toBe(0);
      }
  });

  it('is what constant vectors get, whatever the score', () => {
    const same = (count: number) => Array.from({ length: 15 }, () => rowsOf(Array.from({ length: count }, () => [1, 2, 3])));
    const sets = { pictures: same(4), texts: same(2), owners: [...Array(15).keys()] };
    const single = { ...sets, pictures: same(1), texts: same(1) };
    const broken = { ...single, pictures: single.pictures.map(() => rowsOf([[Number.NaN, 1, 2]])) };
    for (const scores of [pooledScores(sets), lateScores(sets), cosineScores(single), cosineScores(broken)])
      for (const way of Object.values(retrievalOf(scores))) {
        expect(way.recall).toEqual({ 1: expect.closeTo(1 / 15, 12), 5: expect.closeTo(1 / 3, 12), 10: expect.closeTo(2 / 3, 12) });
        expect(way.pessimistic[1]).toBe(0);
      }
  });

  it('is near what random scores get', () => {
    const random = createRandom(3);
    const scores = { ...constant(300, 1), data: Float64Array.from({ length: 90_000 }, () => random.normal()) };
    const { imageToText, textToImage } = retrievalOf(scores);
    for (const { recall } of [imageToText, textToImage]) expect(Math.abs(recall[10] - 10 / 300)).toBeLessThan(0.035);
    expect(Math.abs(imageToText.medianRank - 150.5)).toBeLessThan(30);
  });
});

describe('intervals', () => {
  const identity = (n: number, right: number): Scores =>
    scoresOf(Array.from({ length: n }, (_, i) => Array.from({ length: n }, (_, j) => Number(i < right ? i === j : (i + 1) % n === j))));

  it('are those of the share of queries', () => {
    const { imageToText } = retrievalOf(identity(50, 40));
    expect(imageToText.recall[1]).toBe(0.8);
    expect(imageToText.interval[1].low).toBeGreaterThan(0.65);
    expect(imageToText.interval[1].low).toBeLessThan(0.72);
    expect(imageToText.interval[1].high).toBeLessThan(0.9);
  });

  it('take what belongs together as one: the queries of a set are no more than a set', () => {
    const width = ({ low, high }: { low: number; high: number }) => high - low;
    const sets = [identity(10, 10), identity(10, 0), identity(10, 10), identity(10, 0), identity(10, 10)];
    const together = retrievalOf(...sets).imageToText;
    expect(together.recall[1]).toBe(0.6);
    expect(width(together.interval[1])).toBeGreaterThan(2 * width(retrievalOf(identity(50, 30)).imageToText.interval[1]));
  });
});

describe('ranks', () => {
  it('are those of the best of a query, both ways', () => {
    const scores = scoresOf(
      [
        [0.9, 0.1, 0.8, 0.2],
        [0.1, 0.3, 0.4, 0.2],
      ],
      [0, 0, 1, 1],
    );
    const { imageToText, textToImage } = retrievalOf(scores);
    expect(imageToText.recall[1]).toBe(1);
    expect(imageToText.medianRank).toBe(1);
    // the second text is closer to the other picture, the third too; the last one is tied
    expect(textToImage.recall[1]).toBe((1 + 0 + 0 + 0.5) / 4);
    expect(textToImage.pessimistic[1]).toBe(1 / 4);
  });

  it('of a tie are the mean over its orders', () => {
    expect(foundAt({ before: 2, tied: 0, own: 1 }, 2)).toBe(0);
    expect(foundAt({ before: 2, tied: 0, own: 1 }, 3)).toBe(1);
    expect(foundAt({ before: 1, tied: 3, own: 1 }, 3)).toBe(0.5);
    expect(foundAt({ before: 0, tied: 2, own: 2 }, 1)).toBe(0.5);
    expect(foundAt({ before: 0, tied: 2, own: 2 }, 2)).toBeCloseTo(5 / 6, 12);
    expect(foundAt({ before: 0, tied: 2, own: 2 }, 3)).toBe(1);
  });
});

describe('hubs', () => {
  it('are near many queries', () => {
    const queries = [
      [3, 2, 1],
      [3, 1, 2],
      [3, 2, 1],
    ].map((row) => Float64Array.from(row));
    expect([...neighborCounts(queries, 1)]).toEqual([3, 0, 0]);
    expect([...neighborCounts(queries, 2)]).toEqual([3, 2, 1]);
    expect([...neighborCounts([Float64Array.of(1, 1, 1, 0)], 2)]).toEqual([2 / 3, 2 / 3, 2 / 3, 0]);
    expect(skewness(Float64Array.of(3, 0, 0))).toBeCloseTo(Math.SQRT1_2, 10);
    expect(skewness(Float64Array.of(2, 2, 2))).toBe(0);
  });

  it('lose their lead under CSLS', () => {
    // text 0 is everybody's neighbor, and each picture's own text is its second
    const pictures = 12;
    const row = (i: number) => Array.from({ length: pictures }, (_, j) => (j === 0 ? 0.9 : i === j ? 0.8 : 0.1 + 0.01 * ((i * j) % 7)));
    const scores = scoresOf(Array.from({ length: pictures }, (_, i) => row(i)));
    expect(retrievalOf(scores).imageToText.recall[1]).toBeCloseTo(1 / pictures, 12);
    expect(retrievalOf(csls(scores)).imageToText.recall[1]).toBe(1);
  });
});

describe('pictures among themselves', () => {
  const apart = [
    rowsOf([
      [1, 0],
      [1, 0],
    ]),
    rowsOf([
      [0, 1],
      [0, 2],
    ]),
  ];

  it('have the mean cosine of rows of different pictures', () => {
    expect(meanCosineAcross(apart)).toBeCloseTo(0, 12);
    expect(meanCosineAcross([apart[0], apart[0]])).toBeCloseTo(1, 12);
    const mixed = [
      rowsOf([
        [1, 0],
        [0, 1],
      ]),
      rowsOf([[3, 0]]),
    ];
    expect(meanCosineAcross(mixed)).toBeCloseTo(0.5, 12);
  });

  it('keep their neighbors, or do not', () => {
    const line = (places: readonly number[]) => places.map((x) => rowsOf([[x, 0]]));
    expect(neighborOverlap(line([0, 1, 2, 3]), line([0, 10, 20, 30]), 1)).toEqual({ overlap: 1, chance: 1 / 3 });
    expect(neighborOverlap(line([0, 1, 10, 11]), line([0, 10, 1, 11]), 1).overlap).toBe(0);
  });

  it('are measured against a reference row by row', () => {
    expect(
      maxCosine(
        rowsOf([
          [1, 0],
          [1, 1],
        ]),
        rowsOf([
          [2, 0],
          [0, 5],
        ]),
      ),
    ).toBeCloseTo((1 + Math.SQRT1_2) / 2, 12);
  });

  it('stand in a gap of modalities, whatever their lengths', () => {
    const image = rowsOf([
      [3, 0],
      [0, 4],
    ]);
    expect(modalityGap(image, image)).toBe(0);
    // unit rows have the means (1/2, 1/2) and (-1, 0)
    expect(modalityGap(image, rowsOf([[-7, 0]]))).toBeCloseTo(Math.hypot(1.5, 0.5), 12);
    expect(modalityGap(rowsOf([[1, 0]]), rowsOf([[-1, 0]]))).toBe(2);
  });
});
