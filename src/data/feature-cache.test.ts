import { mkdtempSync, readdirSync, statSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { beforeEach, describe, expect, it } from 'vitest';
import { encoderFingerprint, openFeatureCache } from './feature-cache.ts';

const size = 3;
let folder: string;
let encoded: string[];

const image = (name: string, content = name) => {
  const path = join(folder, name);
  writeFileSync(path, content);
  return path;
};
const featuresOf = (path: string) => [statSync(path).size, path.length, 0.5];
/** An encoder that notes what it was asked for. */
const encode = async (paths: readonly string[]) => {
  encoded.push(...paths);
  return Float32Array.from(paths.flatMap(featuresOf));
};
const open = (fingerprint = 'clip', batchSize?: number) =>
  openFeatureCache({ folder: join(folder, 'cache'), fingerprint, size, batchSize });
const file = (fingerprint = 'clip') => join(folder, 'cache', `${fingerprint}.features`);

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'features-'));
  encoded = [];
});

describe('the feature cache', () => {
  it('encodes each picture once, by content and not by name, in batches', async () => {
    const pictures = ['a', 'b', 'c', 'd', 'e'].map((name) => image(name, name.repeat(3)));
    const copy = image('copy of a', 'aaa');
    const cache = open('clip', 2);
    const progress: string[] = [];
    await cache.add([...pictures, copy, pictures[0]], encode, (done, total) => progress.push(`${done}/${total}`));
    expect(encoded).toHaveLength(5);
    expect(progress).toEqual(['2/5', '4/5', '5/5']);
    expect(cache.read([copy])).toEqual(cache.read([pictures[0]]));
    expect([...cache.read([pictures[4], pictures[1]])]).toEqual([pictures[4], pictures[1]].flatMap(featuresOf));
    await cache.add(pictures, encode);
    expect(encoded).toHaveLength(5);
    cache.close();
  });

  it('lasts, and a changed picture under an old name is another picture', async () => {
    const [a, b] = [image('a'), image('b')];
    const first = open();
    await first.add([a, b], encode);
    const before = first.read([a, b]);
    first.close();
    const second = open();
    encoded = [];
    await second.add([a, b], encode);
    expect(encoded).toEqual([]);
    expect(second.read([a, b])).toEqual(before);
    second.close();
    image('a', 'something else');
    const third = open();
    await third.add([a, b], encode);
    expect(encoded).toEqual([a]);
    expect([...third.read([a])]).toEqual(featuresOf(a));
    third.close();
  });

  it.each([1, 31, 32, 40, 43])('drops a record of which a killed run wrote %i bytes only', async (written) => {
    const [a, b, c] = [image('a'), image('b'), image('c')];
    const first = open();
    await first.add([a, b], encode);
    first.close();
    truncateSync(file(), 44 + written);
    const second = open();
    encoded = [];
    await second.add([a, b, c], encode);
    expect(encoded).toEqual([b, c]);
    expect([...second.read([a, b, c])]).toEqual([a, b, c].flatMap(featuresOf));
    second.close();
    expect(statSync(file()).size).toBe(3 * 44);
  });

  it('keeps encoders apart', async () => {
    const a = image('a');
    const [one, other] = [open('one'), open('other')];
    await one.add([a], encode);
    expect(() => other.read([a])).toThrow('was not encoded');
    await other.add([a], async () => Float32Array.of(7, 8, 9));
    expect([...other.read([a])]).toEqual([7, 8, 9]);
    expect([...one.read([a])]).toEqual(featuresOf(a));
    expect(readdirSync(join(folder, 'cache')).sort()).toEqual(['one.features', 'other.features']);
    one.close();
    other.close();
  });

  it('takes features and weights that are part of a larger array', async () => {
    const [a, b] = [image('a'), image('b')];
    const cache = open();
    await cache.add([a, b], async (paths) => Float32Array.from([9, 9, ...paths.flatMap(featuresOf), 9]).subarray(2, 8));
    expect([...cache.read([b, a])]).toEqual([b, a].flatMap(featuresOf));
    cache.close();
    const inside = Uint8Array.of(7, 1, 2, 8).subarray(1, 3);
    expect(await encoderFingerprint({}, [inside])).toBe(await encoderFingerprint({}, [Uint8Array.of(1, 2)]));
  });

  it('encodes 32 pictures at a time unless told otherwise', async () => {
    const pictures = Array.from({ length: 33 }, (_, i) => image(`picture ${i}`));
    const sizes: number[] = [];
    const cache = open();
    await cache.add(pictures, (paths) => {
      sizes.push(paths.length);
      return encode(paths);
    });
    expect(sizes).toEqual([32, 1]);
    expect([...cache.read(pictures)]).toEqual(pictures.flatMap(featuresOf));
    cache.close();
  });

  it('writes nothing when the encoder fails or gives something else than features', async () => {
    const a = image('a');
    const cache = open();
    await expect(cache.add([a], async () => new Float32Array(2))).rejects.toThrow('2 numbers for 1 images');
    await expect(cache.add([a], () => Promise.reject(new Error('no memory')))).rejects.toThrow('no memory');
    expect(statSync(file()).size).toBe(0);
    await cache.add([a], encode);
    expect([...cache.read([a])]).toEqual(featuresOf(a));
    cache.close();
  });

  it('never mixes up pictures when two runs fill it at once', async () => {
    const [a, b, c] = [image('a'), image('b'), image('c')];
    const [one, other] = [open(), open()];
    await one.add([a, b], encode);
    await other.add([c, a], encode);
    expect(encoded).toEqual([a, b, c]);
    for (const cache of [one, other]) expect([...cache.read([b, a])]).toEqual([b, a].flatMap(featuresOf));
    one.close();
    other.close();
    const late = open();
    await late.add([a, b, c], encode);
    expect([...late.read([a, b, c])]).toEqual([a, b, c].flatMap(featuresOf));
    late.close();
  });
});

describe('the fingerprint of an encoder', () => {
  const weights = [Uint8Array.of(1, 2), Uint8Array.of(3)];
  it('depends on its description and on every byte of the weights', async () => {
    const fingerprint = await encoderFingerprint({ layer: -2 }, weights);
    expect(await encoderFingerprint({ layer: -2 }, [Uint8Array.of(1), Uint8Array.of(2, 3)])).toBe(fingerprint);
    expect(await encoderFingerprint({ layer: -1 }, weights)).not.toBe(fingerprint);
    expect(await encoderFingerprint({ layer: -2 }, [weights[0], Uint8Array.of(4)])).not.toBe(fingerprint);
    expect(fingerprint).toMatch(/^[0-9a-f]{32}$/);
  });
});
