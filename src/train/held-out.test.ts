import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { createGrouping, type DataIndex, subset } from '../data/data-set.ts';
import { float32, int32 } from '../engine/engine.ts';
import { UserError } from '../errors.ts';
import { type HeldOutSize, heldOutRank, heldOutSamples, withOtherPictures } from './held-out.ts';

/** An index of files with so many samples, whose pictures have these numbers. */
function indexOf(files: readonly (readonly (number | undefined)[])[], folder = '/pictures') {
  const groupOf = createGrouping();
  const samples = files.flat().map((picture) => ({ images: picture === undefined ? [] : [join(folder, `${picture}.jpg`)] }));
  const index: DataIndex = {
    files: files.map(({ length }, i) => ({ path: `${i}.json`, imageFolder: folder, share: 1, samples: length, stamp: '' })),
    offsets: Float64Array.from(samples.keys()),
    lengths: Uint32Array.from(samples.keys()),
    groups: Uint32Array.from(samples, groupOf),
    pictures: Uint32Array.from(samples, ({ images }) => images.length),
  };
  const heldOut = (size: HeldOutSize, seed = 1) => {
    const ranks = samples.map((sample, i) => heldOutRank(sample, folder, String(i), seed));
    return heldOutSamples(ranks, size, index, 'stage s: held_out');
  };
  return { index, heldOut };
}

const pictures = Array.from({ length: 300 }, (_, i) => i % 100);
const numbersOf = (flags: readonly boolean[]) => flags.flatMap((flag, i) => (flag ? [i] : []));

describe('what is held out', () => {
  test('is as many samples as asked for, and the others of their pictures', () => {
    const { heldOut } = indexOf([pictures]);
    const numbers = numbersOf(heldOut({ samples: 20 }));
    expect(numbers).toHaveLength(21);
    const shown = new Set(numbers.map((i) => pictures[i]));
    expect(shown.size).toBe(7);
    expect(numbers).toEqual([...pictures.keys()].filter((i) => shown.has(pictures[i])));
    // a share is one of pictures, about
    const few = numbersOf(heldOut({ share: 0.1 })).length;
    expect(few).toBeGreaterThan(9);
    expect(few).toBeLessThan(51);
    expect(numbersOf(heldOut({ share: 1e-9 }))).toHaveLength(3);
  });

  test('depends on seed and picture alone: not on file, order or folder', () => {
    const of = (picked: readonly number[], folder?: string, seed?: number) => {
      const { heldOut } = indexOf([picked], folder);
      return new Set(numbersOf(heldOut({ share: 0.1 }, seed)).map((i) => picked[i]));
    };
    const first = of(pictures);
    expect(of(pictures.toReversed(), '/elsewhere')).toEqual(first);
    expect(of(pictures, undefined, 2)).not.toEqual(first);
    // another stage shows some pictures once and some not at all
    const others = pictures.filter((picture) => picture % 3 > 0).slice(0, 80);
    expect(of(others)).toEqual(new Set(others.filter((picture) => first.has(picture))));
  });

  test('may be samples without pictures', () => {
    const { heldOut } = indexOf([Array.from({ length: 50 }, () => undefined)]);
    expect(numbersOf(heldOut({ samples: 5 }))).toHaveLength(5);
  });

  test('leaves something of every file', () => {
    const { heldOut } = indexOf([pictures, [7]]);
    expect(() => heldOut({ samples: 301 })).toThrow(UserError);
    expect(() => heldOut({ samples: 1000 })).toThrow(
      'stage s: held_out: 1000 samples are all of 0.json: nothing of it would be trained on',
    );
  });
});

test('a subset has the places of the whole, and groups of its own', () => {
  const { index } = indexOf([
    [5, 6, 5],
    [7, 6],
  ]);
  const part = subset(index, (number) => [1, 2, 4].includes(number));
  expect(part.files.map(({ samples }) => samples)).toEqual([2, 1]);
  expect([...part.offsets]).toEqual([1, 2, 4]);
  expect([...part.positions!]).toEqual([1, 2, 1]);
  expect([...part.groups]).toEqual([0, 1, 0]);
  expect([...part.pictures]).toEqual([1, 1, 1]);
  expect([...subset(part, (number) => number === 2).positions!]).toEqual([1]);
});

describe('other pictures', () => {
  const inputs = { labels: int32([1], [1]) };
  const pictureRows = (...values: number[]) => ({ ...inputs, image_features: float32(values, [values.length / 2, 2]) });
  const features = (of: ReturnType<typeof withOtherPictures>) => Array.from(of!.image_features.data as Float32Array);

  test('are those of half a round further', () => {
    expect(features(withOtherPictures(pictureRows(1, 2, 3, 4, 5, 6), undefined))).toEqual([5, 6, 1, 2, 3, 4]);
    expect(features(withOtherPictures(pictureRows(1, 2, 3, 4), undefined))).toEqual([3, 4, 1, 2]);
    expect(withOtherPictures(pictureRows(1, 2, 3, 4), undefined)!.labels).toBe(inputs.labels);
  });

  test('are that of the batch before where there is one alone', () => {
    const spare = float32([8, 9], [1, 2]);
    expect(features(withOtherPictures(pictureRows(1, 2), spare))).toEqual([8, 9]);
    expect(withOtherPictures(pictureRows(1, 2), undefined)).toBeUndefined();
    expect(withOtherPictures(pictureRows(), spare)).toBeUndefined();
    expect(withOtherPictures(inputs, spare)).toBeUndefined();
  });
});
