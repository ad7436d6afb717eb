// The thread changes when a batch is made, never what is in it; what goes wrong in it is said where it
// belongs.

import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import sharp from 'sharp';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { type DataIndex, indexData } from '../data/data-set.ts';
import { loadEmojiConcepts } from '../data/emoji/glyphs.ts';
import { defaultAugmentation } from '../data/emoji/scene.ts';
import { splitConcepts, trainingArtists } from '../data/emoji/split.ts';
import { UserError } from '../errors.ts';
import { imageProcessorConfig } from '../images/processor.ts';
import { imageProcessorFor } from '../pretrained/processor.ts';
import type { BatchSource, MicroBatch } from './batch.ts';
import { openPictureReader } from './picture-threads.ts';
import { prefetchedBatches, startSourceThread } from './prefetch.ts';
import { openSource, type SourceDescription } from './source.ts';
import type { LlavaSource } from './sources/llava.ts';
import { startThread, ThreadDied } from './thread.ts';

const folder = mkdtempSync(join(tmpdir(), 'prefetch-'));
const thread = startSourceThread();
afterAll(async () => {
  await thread.close();
  rmSync(folder, { recursive: true, force: true });
});

const tokenizer = 'assets/tokenizer';
const SIZE = 24;
let data: DataIndex;
let descriptions: Record<string, SourceDescription>;

const llava = (more: Partial<LlavaSource> = {}): LlavaSource => ({
  task: 'llava',
  encodes: { rank: 0, size: 1 },
  seed: 3,
  stage: 'only',
  tokenizer,
  data,
  template: 'gemma',
  maxLength: 100,
  rowLength: 384,
  positions: 200,
  batchSize: 4,
  imageTokens: 3,
  processor: imageProcessorConfig.parse(imageProcessorFor(SIZE)),
  imageSize: SIZE,
  pictureThreads: 1,
  onBadSample: 'error',
  badPictures: new Map(),
  ...more,
});

const indexOf = (file: string) => indexData([{ path: join(folder, file), imageFolder: folder, share: 1 }]);

const saveSamples = (file: string, images: readonly string[], answer = 'a color') =>
  writeFileSync(
    join(folder, file),
    JSON.stringify(
      images.map((image, i) => ({
        id: `sample ${i}`,
        image,
        conversations: [
          { from: 'human', value: '<image>\nWhat is it?' },
          ...(answer === '' ? [] : [{ from: 'gpt', value: `${answer} ${i}` }]),
        ],
      })),
    ),
  );

/** Samples of which some have a picture that cannot be read, as it shows when it is decoded. */
async function damaged(): Promise<DataIndex> {
  const broken = (await sharp(join(folder, '3.png')).jpeg().toBuffer()).subarray(0, 200);
  for (const name of ['broken.jpg', 'broken too.jpg']) writeFileSync(join(folder, name), broken);
  saveSamples('damaged.json', ['0.png', 'broken.jpg', '1.png', '2.png', 'broken.jpg', '4.png', 'broken too.jpg', '5.png']);
  return indexOf('damaged.json');
}

beforeAll(async () => {
  const names: string[] = [];
  for (let i = 0; i < 10; i++) {
    names.push(`${i}.png`);
    const background = { r: 20 * i, g: 255 - 20 * i, b: 7 * i };
    await sharp({ create: { width: 30 + i, height: 20, channels: 3, background } }).toFile(join(folder, names[i]));
  }
  saveSamples('data.json', names);
  data = await indexOf('data.json');
  const emoji = await loadEmojiConcepts();
  const drawn = { concepts: splitConcepts(emoji).seen, artists: trainingArtists(emoji, 'twemoji') };
  const features = { folder: join(folder, 'cache'), fingerprint: 'toy', dtype: 'float32' as const, width: 2, mixup: 0.5 };
  descriptions = {
    contrastive: {
      task: 'contrastive',
      seed: 1,
      stage: 'a',
      tokenizer,
      batchSize: 3,
      ...drawn,
      counts: [1, 4],
      imageSize: 32,
      patchSize: 16,
      augmentation: defaultAugmentation,
      singlePatchChance: 0.5,
      captionWeight: 0.3,
      mean: [0.5, 0.4, 0.3],
      std: [0.2, 0.3, 0.4],
    },
    'instance discrimination': {
      task: 'instance-discrimination',
      seed: 3,
      stage: 'c',
      batchSize: 2,
      ...drawn,
      counts: [1, 3],
      imageSize: 32,
      patchSize: 16,
      augmentation: defaultAugmentation,
      singlePatchChance: 0.5,
      mean: [0.5, 0.4, 0.3],
      std: [0.2, 0.3, 0.4],
    },
    'language model': {
      task: 'language-model',
      seed: 2,
      stage: 'b',
      tokenizer,
      batchSize: 2,
      maxLength: 64,
      positions: 128,
      ...drawn,
      gridSide: 2,
      mixture: [
        { source: 'captions', weight: 1 },
        { source: 'glosses', weight: 1 },
      ],
    },
    'llava with pixels': llava(),
    'llava with pixels of three threads': llava({ pictureThreads: 3 }),
    'llava with features': llava({ features }),
  };
});

/** Encodes pictures, where the source asks for it: features of a picture are sums over some of its pixels. */
async function encode(source: BatchSource): Promise<number> {
  let encoded = 0;
  let done = 0;
  for (let next = await source.pictures(); next; next = await source.pictures()) {
    const { data } = next.pixels;
    expect(next.done).toBeGreaterThan(done);
    done = next.done;
    const size = data.length / next.keys.length;
    const features = next.keys.flatMap((_, i) => Array.from({ length: 6 }, (_, k) => Number(data[i * size + k * 100])));
    await source.keep(next.keys, Float32Array.from(features));
    encoded += next.keys.length;
  }
  expect(done).toBe(encoded > 0 ? 1 : 0);
  return encoded;
}

/** The batches of some steps as JSON can hold them, with the bits of every array. */
async function batchesOf(source: BatchSource, from: number, to: number, accumulation = 2, ahead = 1): Promise<unknown[]> {
  const batches = prefetchedBatches(source, { accumulation, totalSteps: to, ahead });
  const seen: unknown[] = [];
  for (let step = from; step < to; step++)
    for await (const { inputs, ...rest } of batches(step)) {
      const bits = Object.entries(inputs).map(([name, { dtype, dims, data }]) => {
        return [name, dtype, dims, data.constructor.name, Buffer.from(data.buffer, data.byteOffset, data.byteLength).toString('base64')];
      });
      // libvips has one place for the messages of all threads: what stands in brackets may be another's
      const skipped = rest.skipped?.map((fault) => ({ ...fault, reason: fault.reason.replace(/ \(.*\)$/, '') }));
      seen.push({ bits, ...rest, skipped });
    }
  return seen;
}

describe('batches of the thread', () => {
  test.each([
    'contrastive',
    'instance discrimination',
    'language model',
    'llava with pixels',
    'llava with pixels of three threads',
    'llava with features',
  ])('%s: are those made in place', async (name) => {
    const here = await openSource(descriptions[name]);
    const there = thread.open(descriptions[name]);
    if (name === 'llava with features') {
      expect(await encode(here)).toBe(10);
      // each is encoded once, whoever asks
      expect(await encode(there)).toBe(0);
    }
    // over the end of an epoch: 10 samples in batches of 4
    const expected = await batchesOf(here, 0, 4);
    expect(new Set(expected.map((batch) => JSON.stringify(batch))).size).toBe(8);
    expect(await batchesOf(there, 0, 4)).toEqual(expected);
    await there.close();
    // a run that was killed in the middle and goes on
    const restarted = startSourceThread();
    const resumed = restarted.open(descriptions[name]);
    await encode(resumed);
    expect(await batchesOf(resumed, 2, 4)).toEqual(expected.slice(4));
    await Promise.all([restarted.close(), here.close()]);
  });

  test('are the same for any number of threads that decode pictures, and of batches asked for ahead', async () => {
    const bad = { onBadSample: 'skip' as const, data: await damaged() };
    for (const more of [{}, bad]) {
      const one = thread.open(llava(more));
      const expected = await batchesOf(one, 0, 4);
      await one.close();
      for (const [pictureThreads, ahead] of [
        [1, 4],
        [4, 1],
        [4, 5],
      ]) {
        const several = thread.open(llava({ ...more, pictureThreads }));
        expect(await batchesOf(several, 0, 4, 2, ahead)).toEqual(expected);
        await several.close();
      }
    }
    expect(JSON.stringify(await batchesOf(thread.open(llava(bad)), 0, 2))).toContain('cannot be read as an image');
  });

  test('have features that the thread cached', async () => {
    const features = { folder: join(folder, 'other cache'), fingerprint: 'toy', dtype: 'float32' as const, width: 2, mixup: 0 };
    const source = thread.open(llava({ features }));
    expect(await encode(source)).toBe(10);
    const { inputs } = await source.batch(0);
    expect(inputs.image_features.dims).toEqual([4, 3, 2]);
    await source.close();
    const record = 32 + 6 * 4;
    expect(readFileSync(join(folder, 'other cache', 'toy.features'))).toHaveLength(10 * record);
  });
});

describe('prefetching', () => {
  const batch = (index: number): MicroBatch => ({ inputs: {}, weight: index, tokens: 1 });

  test.each([1, 3])('asks for %i batches more than the one that is taken, and for none behind the end', async (ahead) => {
    const asked: number[] = [];
    const source = {
      async batch(index: number) {
        asked.push(index);
        return batch(index);
      },
    };
    const batches = prefetchedBatches(source, { accumulation: 2, totalSteps: 3, ahead });
    const seen: [number, number][] = [];
    for (const step of [0, 1, 2]) for await (const { weight } of batches(step)) seen.push([weight, asked.at(-1)!]);
    expect(seen).toEqual([0, 1, 2, 3, 4, 5].map((index) => [index, Math.min(5, index + ahead)]));
    expect(asked).toEqual([0, 1, 2, 3, 4, 5]);
  });

  test('of a share, goes from one step to the share of the next', async () => {
    const asked: number[] = [];
    const source = {
      async batch(index: number) {
        asked.push(index);
        return batch(index);
      },
    };
    const batches = prefetchedBatches(source, { accumulation: 4, totalSteps: 3, share: { first: 2, count: 2 } });
    const seen: [number, number][] = [];
    for (const step of [0, 1, 2]) for await (const { weight } of batches(step)) seen.push([weight, asked.at(-1)!]);
    expect(seen).toEqual([
      [2, 3],
      [3, 6],
      [6, 7],
      [7, 10],
      [10, 11],
      [11, 11],
    ]);
    expect(asked).toEqual([2, 3, 6, 7, 10, 11]);
  });

  test('fails at the batch that fails, not before', async () => {
    const source = {
      async batch(index: number) {
        if (index === 2) throw new UserError('sample x is wrong');
        return batch(index);
      },
    };
    const batches = prefetchedBatches(source, { accumulation: 1, totalSteps: 9 });
    const taken: number[] = [];
    const all = async () => {
      for (let step = 0; step < 9; step++) for await (const { weight } of batches(step)) taken.push(weight);
    };
    await expect(all()).rejects.toThrow('sample x is wrong');
    expect(taken).toEqual([0, 1]);
  });
});

describe('what goes wrong in the thread', () => {
  /** The error of the first call. */
  async function errorOf(description: SourceDescription): Promise<Error> {
    const source = thread.open(description);
    try {
      await encode(source);
      await source.batch(0);
    } catch (error) {
      return error as Error;
    } finally {
      await source.close();
    }
    throw new Error('nothing went wrong');
  }

  test('is the UserError that it would be here', async () => {
    saveSamples('unanswered.json', ['0.png'], '');
    saveSamples('gone.json', ['gone.png']);
    writeFileSync(join(folder, 'gone.png'), '');
    saveSamples('text.json', ['data.json']);
    saveSamples('nowhere.json', ['0.png']);
    saveSamples('changed.json', ['0.png']);
    const cases: [string, string][] = [
      ['unanswered.json', `${join(folder, 'unanswered.json')}: sample sample 0: nothing of it would be trained`],
      ['gone.json', `${join(folder, 'gone.png')}: there is no such image file`],
      ['text.json', `${join(folder, 'data.json')}: cannot be read as an image`],
      ['nowhere.json', `${join(folder, 'nowhere.json')}: cannot be read: there is no such file or folder`],
      ['changed.json', `${join(folder, 'changed.json')}: has changed since it was read`],
    ];
    const features = { folder: join(folder, 'cache'), fingerprint: 'errors', dtype: 'float32' as const, width: 2, mixup: 0 };
    const indexes = new Map(await Promise.all(cases.map(async ([file]) => [file, await indexOf(file)] as const)));
    for (const file of ['gone.png', 'nowhere.json']) rmSync(join(folder, file));
    saveSamples('changed.json', ['0.png', '1.png']);
    for (const [file, message] of cases) {
      const withCache = file === 'text.json' || file === 'gone.json';
      const error = await errorOf(llava({ data: indexes.get(file), ...(withCache ? { features } : {}) }));
      expect(error).toBeInstanceOf(UserError);
      expect(error.message).toContain(message);
    }
  });

  test('is an error with its own stack where it is a mistake of ours', async () => {
    const source = thread.open(llava());
    const error = await source.keep([], new Float32Array(0)).catch((reason) => reason);
    expect(error).not.toBeInstanceOf(UserError);
    expect(error.message).toBe('there are no features to keep');
    expect(error.stack).toContain('sources/llava.js');
    await source.close();
  });

  test.each([
    ['process.exit(3)', 'ended with code 3'],
    ["throw new Error('a mistake')", 'failed: a mistake'],
  ])('is one sentence when the thread dies of %s, also for those who come later', async (fault, how) => {
    const file = join(folder, 'dying.mjs');
    const head = "import { parentPort } from 'node:worker_threads';";
    writeFileSync(file, `${head}\nparentPort.on('message', () => { ${fault} });\n`);
    const dying = startSourceThread(pathToFileURL(file));
    const source = dying.open(llava());
    const died = 'the thread that prepares the data ';
    for (const index of [0, 1]) {
      const error = await source.batch(index).catch((reason) => reason);
      expect(error).toBeInstanceOf(UserError);
      expect(error.message.slice(0, died.length)).toBe(died);
      expect(error.message.slice(died.length)).toMatch(how);
    }
    await source.close();
    await dying.close();
  });

  test('of pictures that several threads decode is said of the picture; a thread that dies is one sentence', async () => {
    const reader = openPictureReader(imageProcessorConfig.parse(imageProcessorFor(SIZE)), 2);
    const gone = await reader.read('nowhere.png').catch((reason) => reason);
    expect(gone).toBeInstanceOf(UserError);
    expect(gone.message).toContain('nowhere.png: there is no such image file');
    const pixels = await Promise.all(Array.from({ length: 6 }, (_, i) => reader.read(join(folder, `${i}.png`))));
    const bytes = readFileSync(join(folder, '5.png'));
    expect(await reader.read('named.png', bytes)).toEqual(pixels[5]);
    const waiting = Array.from({ length: 5 }, () => reader.read(join(folder, '0.png')).catch((reason) => reason));
    await reader.close();
    for (const error of await Promise.all(waiting)) expect(error.message).toBe('a thread that decodes pictures was closed');
    const file = join(folder, 'dying reader.mjs');
    writeFileSync(file, "import { parentPort } from 'node:worker_threads'; parentPort.on('message', () => process.exit(4));");
    const dying = openPictureReader(imageProcessorConfig.parse({}), 2, pathToFileURL(file));
    const died = await dying.read('0.png').catch((reason) => reason);
    // no picture is to blame, so that none is left out for it
    expect(died).toBeInstanceOf(ThreadDied);
    expect(died.message).toBe('a thread that decodes pictures ended with code 4');
    await dying.close();
  });

  test('batches go on beside each other, and what comes behind them waits', async () => {
    const file = join(folder, 'recording.mjs');
    const side = new URL('../../dist/train/thread-side.js', import.meta.url);
    writeFileSync(
      file,
      `import { answerRequests } from ${JSON.stringify(side.href)};
       const done = [];
       answerRequests(async (method, [wait]) => {
         if (method === 'done') return [...done];
         await new Promise((resolve) => setTimeout(resolve, wait));
         done.push(method + wait);
       }, (method) => method === 'batch');`,
    );
    const { call, close } = startThread(pathToFileURL(file), 'the thread');
    for (const [method, wait] of [
      ['open', 60],
      ['batch', 90],
      ['batch', 5],
      ['keep', 30],
      ['batch', 6],
    ] as const)
      call(method, wait);
    expect(await call('done')).toEqual(['open60', 'batch5', 'batch90', 'keep30', 'batch6']);
    await close();
  });

  test('closing ends what is under way', async () => {
    const busy = startSourceThread();
    const source = busy.open({ ...descriptions.contrastive, batchSize: 100_000 } as SourceDescription);
    const batch = source.batch(0);
    await busy.close();
    await expect(batch).rejects.toThrow('the thread that prepares the data was closed');
    await expect(source.batch(1)).rejects.toThrow('was closed');
    await source.close();
  });
});
