import { describe, expect, it } from 'vitest';
import { aScoreOf, likelihoodRetrieval } from './likelihood.ts';
import { fittingParts } from './model.ts';

const losses = (...lists: number[][]) => lists.map((list) => Float32Array.from(list));

describe('the A score', () => {
  const own = losses([1, 2, 3], [0.5], [1, 1]);
  const blank = losses([2, 2, 4], [0.5], [3, 1]);

  it('is minus the mean loss over all tokens, whatever captions they are in', () => {
    const score = aScoreOf({ own, blank, owners: [0, 1, 1] }, 1);
    expect(score).toMatchObject({ version: 'v3', tokens: 6, captions: 3, value: -8.5 / 6, blank: -12.5 / 6 });
    expect(score.imageGain.value).toBeCloseTo(4 / 6, 10);
  });

  it('takes more captions than a call could have arguments', () => {
    const one = Float32Array.of(1);
    const many = new Array<Float32Array>(200_000).fill(one);
    expect(aScoreOf({ own: many, blank: many, owners: many.map(() => 0) }, 1)).toMatchObject({ captions: 200_000, value: -1 });
  });

  it('has the spread over pictures as its interval', () => {
    // two pictures that differ by nothing have none
    const equal = aScoreOf({ own: losses([1, 2], [1, 2]), blank: losses([2, 2], [2, 2]), owners: [0, 1] }, 1);
    expect([equal.low, equal.high]).toEqual([equal.value, equal.value]);
    const { low, value, high } = aScoreOf({ own, blank, owners: [0, 1, 2] }, 1);
    expect(low).toBeLessThan(value);
    expect(high).toBeGreaterThan(value);
    // the worst and the best picture bound it
    expect(low).toBeGreaterThanOrEqual(-2);
    expect(high).toBeLessThanOrEqual(-0.5);
  });
});

describe('likelihood among K', () => {
  it('is fooled by likely words until what a blank picture says of them is taken away', () => {
    // text 0 is likely whatever is seen; each picture makes its own text likelier by 1
    const blank = [-1, -4, -4];
    const given = [0, 1, 2].map((picture) => blank.map((prior, text) => prior + Number(picture === text)));
    const { ways, raw, withoutPrior } = likelihoodRetrieval([{ given, blank }]);
    expect(ways).toBe(3);
    expect(raw.imageToText.recall[1]).toBeCloseTo(1 / 3, 10);
    expect(withoutPrior.imageToText.recall[1]).toBe(1);
    // the prior is the same for all pictures of a text
    expect([raw.textToImage.recall[1], withoutPrior.textToImage.recall[1]]).toEqual([1, 1]);
    expect(raw.imageToText.chance[1]).toBeCloseTo(1 / 3, 10);
  });

  it('is the mean over groups, and chance for a model that does not look', () => {
    const right = {
      given: [
        [0, -1],
        [-1, 0],
      ],
      blank: [0, 0],
    };
    const wrong = {
      given: [
        [-1, 0],
        [0, -1],
      ],
      blank: [0, 0],
    };
    const blind = {
      given: [
        [-3, -2],
        [-3, -2],
      ],
      blank: [-3, -2],
    };
    expect(likelihoodRetrieval([right, right, right, wrong]).withoutPrior.imageToText.recall[1]).toBe(0.75);
    const { withoutPrior, raw } = likelihoodRetrieval([blind]);
    expect([withoutPrior.imageToText.recall[1], raw.imageToText.recall[1], raw.textToImage.recall[1]]).toEqual([0.5, 0.5, 0.5]);
    expect(withoutPrior.imageToText.pessimistic[1]).toBe(0);
  });
});

it('texts that share a beginning are read in rows no longer than the model has positions', () => {
  const text = (prefixLength: number, own: number) => ({ inputIds: new Array<number>(prefixLength + own).fill(7), prefixLength });
  const texts = [3, 4, 2, 9, 1].map((own) => text(5, own));
  const lengths = (most: number) => fittingParts(texts, most).map((part) => part.map(({ inputIds }) => inputIds.length - 5));
  expect(lengths(100)).toEqual([[3, 4, 2, 9, 1]]);
  expect(lengths(14)).toEqual([[3, 4, 2], [9], [1]]);
  expect(lengths(15)).toEqual([
    [3, 4, 2],
    [9, 1],
  ]);
  // one that fits in no row by itself stands alone
  expect(lengths(6)).toEqual([[3], [4], [2], [9], [1]]);
  // without a picture nothing is shared
  expect(fittingParts([text(0, 2), text(0, 2)], 3)).toHaveLength(2);
});
