import { once } from 'node:events';
import { appendFileSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, statSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Worker } from 'node:worker_threads';
import { beforeEach, describe, expect, it } from 'vitest';
import { UserError } from '../errors.ts';
import { encoderFingerprint, type FeatureCache, featureBytes, openFeatureCache } from './feature-cache.ts';

const size = 3;
let folder: string;
let encoded: string[];

const image = (name: string, content = name) => {
  const path = join(folder, name);
  writeFileSync(path, content);
  return path;
};
const featuresOf = (path: string) => [statSync(path).size, path.length, 0.5];
/** Adds what is not there, one picture at a time, and notes it. */
const add = (cache: FeatureCache, paths: readonly string[], featuresFor = featuresOf) => {
  for (const { path, key } of cache.missing(paths)) {
    encoded.push(path);
    cache.write([key], Float32Array.from(featuresFor(path)));
  }
};
const open = (fingerprint = 'clip') => openFeatureCache({ folder: join(folder, 'cache'), fingerprint, size });
const file = (fingerprint = 'clip') => join(folder, 'cache', `${fingerprint}.features`);

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'features-'));
  encoded = [];
});

describe('the feature cache', () => {
  it('keeps float16 in half the bytes, apart from float32, and refuses what is beyond it', () => {
    const options = { folder: join(folder, 'cache'), fingerprint: 'clip', size };
    const half = openFeatureCache({ ...options, dtype: 'float16' });
    const path = image('a');
    const [{ key }] = [...half.missing([path])];
    half.write([key], Float32Array.of(1 / 3, -2, 65504));
    expect([...half.read([path])]).toEqual([0.333251953125, -2, 65504]);
    expect(statSync(join(folder, 'cache', 'clip.float16.features')).size).toBe(featureBytes(size, 'float16'));
    expect(featureBytes(size, 'float32') - featureBytes(size, 'float16')).toBe(2 * size);
    expect([...open().missing([path])]).toHaveLength(1);
    expect(() => half.write([key], Float32Array.of(1, 70000, 1))).toThrow('the encoder gives 70000, which is beyond float16');
    half.close();
    const again = openFeatureCache({ ...options, dtype: 'float16' });
    expect([...again.missing([path])]).toEqual([]);
    expect([...again.read([path])]).toEqual([0.333251953125, -2, 65504]);
  });

  it('reads what another process has added since it was opened', () => {
    const [reader, writer] = [open(), open()];
    const path = image('a');
    add(writer, [path]);
    expect([...reader.read([path])]).toEqual([...writer.read([path])]);
    expect(() => reader.read([image('b')])).toThrow('was not encoded');
  });

  it('asks for each picture once, by content and not by name, with its bytes', () => {
    const pictures = ['a', 'b', 'c', 'd', 'e'].map((name) => image(name, name.repeat(3)));
    const copy = image('copy of a', 'aaa');
    const cache = open();
    const missing = [...cache.missing([...pictures, copy, pictures[0]])];
    expect(missing.map(({ path }) => path)).toEqual(pictures);
    expect(missing.map(({ bytes }) => Buffer.from(bytes).toString())).toEqual(['aaa', 'bbb', 'ccc', 'ddd', 'eee']);
    // all at once, as batches of an encoder are
    cache.write(
      missing.map(({ key }) => key),
      Float32Array.from(pictures.flatMap(featuresOf)),
    );
    expect(cache.read([copy])).toEqual(cache.read([pictures[0]]));
    expect([...cache.read([pictures[4], pictures[1]])]).toEqual([pictures[4], pictures[1]].flatMap(featuresOf));
    expect([...cache.missing(pictures)]).toEqual([]);
    cache.close();
  });

  it('lasts, and a changed picture under an old name is another picture', () => {
    const [a, b] = [image('a'), image('b')];
    const first = open();
    add(first, [a, b]);
    const before = first.read([a, b]);
    first.close();
    const second = open();
    encoded = [];
    add(second, [a, b]);
    expect(encoded).toEqual([]);
    expect(second.read([a, b])).toEqual(before);
    second.close();
    image('a', 'something else');
    const third = open();
    add(third, [a, b]);
    expect(encoded).toEqual([a]);
    expect([...third.read([a])]).toEqual(featuresOf(a));
    third.close();
  });

  it.each([1, 31, 32, 40, 43])('drops a record of which a killed run wrote %i bytes only', (written) => {
    const [a, b, c] = [image('a'), image('b'), image('c')];
    const first = open();
    add(first, [a, b]);
    first.close();
    truncateSync(file(), 44 + written);
    const second = open();
    encoded = [];
    add(second, [a, b, c]);
    expect(encoded).toEqual([b, c]);
    expect([...second.read([a, b, c])]).toEqual([a, b, c].flatMap(featuresOf));
    second.close();
    expect(statSync(file()).size).toBe(3 * 44);
  });

  it('cuts off nothing of a record that another run is writing', async () => {
    const [a, b] = [image('a'), image('b')];
    const first = open();
    add(first, [a, b]);
    first.close();
    const whole = readFileSync(file());
    truncateSync(file(), 44 + 40);
    const rest = whole.subarray(44 + 40);
    const script = `const { workerData } = require('node:worker_threads');
      setTimeout(() => require('node:fs').appendFileSync(workerData.file, workerData.rest), 300);`;
    const writer = new Worker(script, { eval: true, workerData: { file: file(), rest } });
    await once(writer, 'online');
    const second = open();
    expect([...second.read([a, b])]).toEqual([a, b].flatMap(featuresOf));
    second.close();
    expect(readFileSync(file())).toEqual(whole);
  });

  it('cuts off what another run that is killed leaves while this one has the cache open', () => {
    const [a, b, c] = [image('a'), image('b'), image('c')];
    const survivor = open();
    add(survivor, [a]);
    appendFileSync(file(), Buffer.alloc(17, 1));
    add(survivor, [b, c]);
    expect([...survivor.read([a, b, c])]).toEqual([a, b, c].flatMap(featuresOf));
    survivor.close();
    expect(statSync(file()).size).toBe(3 * 44);
  });

  it('keeps encoders apart', () => {
    const a = image('a');
    const [one, other] = [open('one'), open('other')];
    add(one, [a]);
    expect(() => other.read([a])).toThrow('was not encoded');
    add(other, [a], () => [7, 8, 9]);
    expect([...other.read([a])]).toEqual([7, 8, 9]);
    expect([...one.read([a])]).toEqual(featuresOf(a));
    expect(readdirSync(join(folder, 'cache')).sort()).toEqual(['one.features', 'other.features']);
    one.close();
    other.close();
  });

  it('takes features and weights that are part of a larger array', async () => {
    const [a, b] = [image('a'), image('b')];
    const cache = open();
    const keys = [...cache.missing([a, b])].map(({ key }) => key);
    cache.write(keys, Float32Array.from([9, 9, ...[a, b].flatMap(featuresOf), 9]).subarray(2, 8));
    expect([...cache.read([b, a])]).toEqual([b, a].flatMap(featuresOf));
    cache.close();
    const inside = Uint8Array.of(7, 1, 2, 8).subarray(1, 3);
    expect(await encoderFingerprint({}, [inside])).toBe(await encoderFingerprint({}, [Uint8Array.of(1, 2)]));
  });

  it('writes nothing that is not the features of the pictures', () => {
    const a = image('a');
    const cache = open();
    const [{ key }] = cache.missing([a]);
    expect(() => cache.write([key], new Float32Array(2))).toThrow('2 numbers for 1 images');
    expect(statSync(file()).size).toBe(0);
    cache.write([key], Float32Array.from(featuresOf(a)));
    expect([...cache.read([a])]).toEqual(featuresOf(a));
    cache.close();
  });

  it('never mixes up pictures when two runs fill it at once', () => {
    const [a, b, c] = [image('a'), image('b'), image('c')];
    const [one, other] = [open(), open()];
    add(one, [a, b]);
    add(other, [c, a]);
    expect(encoded).toEqual([a, b, c]);
    for (const cache of [one, other]) expect([...cache.read([b, a])]).toEqual([b, a].flatMap(featuresOf));
    one.close();
    other.close();
    const late = open();
    add(late, [a, b, c]);
    expect([...late.read([a, b, c])]).toEqual([a, b, c].flatMap(featuresOf));
    late.close();
  });
});

it('names a picture that is not there', () => {
  const cache = open();
  expect(() => [...cache.missing([join(folder, 'gone.png')])]).toThrow(/gone\.png: there is no such image file/);
  const unreadable: string[] = [];
  expect([...cache.missing([join(folder, 'gone.png')], (path) => unreadable.push(path))]).toEqual([]);
  expect(unreadable).toEqual([join(folder, 'gone.png')]);
  expect(() => cache.read([join(folder, 'gone.png')])).toThrow(UserError);
  cache.close();
});

it('names a folder that cannot be', () => {
  const file = join(folder, 'file');
  writeFileSync(file, '');
  const cache = (path: string) => openFeatureCache({ folder: path, fingerprint: 'f', size: 1 });
  expect(() => cache(file)).toThrow(`${file}: there is something already`);
  expect(() => cache(join(file, 'below'))).toThrow('below: what it is said to lie in is no folder');
  mkdirSync(join(folder, 'taken', 'f.features'), { recursive: true });
  expect(() => cache(join(folder, 'taken'))).toThrow('f.features: it is a folder');
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
