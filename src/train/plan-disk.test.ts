import { describe, expect, it } from 'vitest';
import { featureBytesOf, neededBytes } from './plan-disk.ts';

describe('the disk that a plan counts', () => {
  const features = (encoder: string, sources: string[], bytes: number) => ({ encoder, sources, bytes, kept: 'float32' as const });

  it('has features of the same encoder and data once', () => {
    const first = features('a', ['one'], 100);
    expect(featureBytesOf([first, first, undefined, first])).toBe(100);
    expect(featureBytesOf([first, features('a', ['two', 'one'], 150)])).toBe(150);
    expect(featureBytesOf([features('a', ['two', 'one'], 150), first])).toBe(150);
    expect(featureBytesOf([first, features('a', ['two'], 30)])).toBe(130);
    expect(featureBytesOf([first, features('b', ['one'], 100)])).toBe(200);
    // a stage that holds samples out encodes these too
    expect(featureBytesOf([first, features('a', ['one'], 120), first])).toBe(120);
    expect(featureBytesOf([undefined])).toBe(0);
  });

  it('has what is kept, and room for a checkpoint beside the one that it replaces', () => {
    const disk = { features: 100, checkpoint: 20, kept: 5 };
    const one = features('a', ['one'], 100);
    expect(neededBytes([disk, { ...disk, checkpoint: 30 }], [one, one])).toBe(100 + 25 + 35 + 30);
  });
});
