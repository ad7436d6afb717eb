import { describe, expect, it } from 'vitest';
import { createRandom } from '../random.ts';
import { mixFeatures } from './feature-mixing.ts';

describe('mixFeatures', () => {
  // picture i has a one at place i: what is at place j afterwards is the share of picture j
  const images = 50;
  const features = new Float32Array(images * images);
  for (let i = 0; i < images; i++) features[i * images + i] = 1;

  it('puts at most the given share of exactly one other picture into each', () => {
    const mixed = mixFeatures(features, images, 0.4, createRandom(1));
    const shares = Array.from({ length: images }, (_, i) => {
      const row = mixed.subarray(i * images, (i + 1) * images);
      const others = [...row.keys()].filter((j) => j !== i && row[j] > 0);
      expect(others).toHaveLength(1);
      expect(row[i] + row[others[0]]).toBeCloseTo(1, 6);
      return row[others[0]];
    });
    expect(Math.max(...shares)).toBeLessThanOrEqual(0.4);
    expect(Math.max(...shares)).toBeGreaterThan(0.3);
    expect(Math.min(...shares)).toBeLessThan(0.1);
  });

  it('lets each picture meet every other one, whatever the number of features', () => {
    const three = Float32Array.of(1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0);
    const met = new Set<string>();
    for (let seed = 0; seed < 40; seed++) {
      const mixed = mixFeatures(three, 3, 0.5, createRandom(seed));
      for (let i = 0; i < 3; i++) {
        const row = [...mixed.subarray(4 * i, 4 * i + 4)];
        const place = [0, 1, 2][i];
        expect(row[3]).toBe(0);
        expect(row[0] + row[1] + row[2]).toBeCloseTo(1, 6);
        for (const j of [0, 1, 2]) if (j !== place && row[j] > 0) met.add(`${i} ${j}`);
      }
    }
    expect(met.size).toBe(6);
  });

  it('mixes two pictures into each other', () => {
    const [a, b, c, d] = mixFeatures(Float32Array.of(1, 0, 0, 1), 2, 1, createRandom(3));
    expect(a + b).toBeCloseTo(1, 6);
    expect(c + d).toBeCloseTo(1, 6);
    expect(Math.min(b, c)).toBeGreaterThan(0);
  });

  it('leaves what it was given alone, and gives the same twice', () => {
    const before = features.slice();
    expect(mixFeatures(features, images, 0.4, createRandom(1))).toEqual(mixFeatures(features, images, 0.4, createRandom(1)));
    expect(mixFeatures(features, images, 0.4, createRandom(2))).not.toEqual(mixFeatures(features, images, 0.4, createRandom(1)));
    expect(features).toEqual(before);
  });

  it('keeps a picture that is alone, and all at a share of 0', () => {
    expect(mixFeatures(new Float32Array([1, 2, 3]), 1, 0.5, createRandom(1))).toEqual(new Float32Array([1, 2, 3]));
    expect(mixFeatures(features, images, 0, createRandom(1))).toEqual(features);
  });
});
