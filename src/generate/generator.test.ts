import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { concatFloat32 } from '../arrays.ts';
import { type Engine, float32, float32Values, int32, type Program } from '../engine/engine.ts';
import { createOrtEngine } from '../engine/ort.ts';
import { flattenLeading } from '../graph/primitives.ts';
import { input } from '../graph/tensor.ts';
import { languageConfigSchema, logits } from '../models/language.ts';
import { type LlavaConfig, llava, llavaConfigSchema, llavaParameters } from '../models/llava.ts';
import { causalBias } from '../models/masks.ts';
import { Parameters } from '../nn/parameters.ts';
import { withCheckpoint } from '../pretrained/folder.ts';
import { readParameters } from '../pretrained/values.ts';
import { createRandom } from '../random.ts';
import { createBatchScheduler } from './batch-scheduler.ts';
import { createGenerator, type GenerateOptions, type Generator, type PrefixCache, type Prompt } from './generator.ts';
import { type Sampling, sampleToken } from './sampling.ts';

// A tiny LLaVA with wide random weights: its answers wander over the vocabulary, so a wrong logit soon gives
// another token.
const folderOf = (golden: string) => fileURLToPath(new URL(`../../tests/reference/goldens/${golden}`, import.meta.url));
const IMAGE = 63;
const PATCHES = 16;
const engine = createOrtEngine({ threads: 1 });

/** A LLaVA with prompts for it. */
interface Toy {
  config: LlavaConfig;
  generator: Generator;
  /** The whole model without a cache: logits of every position, for one prompt. */
  whole: Program;
  prompts: Prompt[];
}

async function toy(config: LlavaConfig, values: ReadonlyMap<string, Float32Array>): Promise<Toy> {
  const parameters = new Parameters();
  const positionIds = input('position_ids', 'int32', [1, 'tokens']);
  const { lastHidden } = llava(parameters, config, {
    inputIds: input('input_ids', 'int32', [1, 'tokens']),
    positionIds,
    attentionBias: causalBias(positionIds, positionIds),
    images: { rows: input('image_rows', 'float32', ['rows', config.text_config.hidden_size]) },
  });
  const outputs = { logits: parameters.module('language_model', (p) => logits(p, config.text_config, flattenLeading(lastHidden))) };
  const constants = float32Values(parameters.list(), values);
  const whole = await engine.compile(outputs, { constants });
  const generator = await createGenerator(engine, config, float32Values(llavaParameters(config), values));

  const random = createRandom(3);
  const pixels = () => Float32Array.from({ length: 3 * 24 * 24 }, () => random.normal());
  const image = Array<number>(PATCHES).fill(IMAGE);
  const rowsOf = async (...images: Float32Array[]) =>
    generator.imageRows(await generator.imageFeatures(Float32Array.from(images.flatMap((i) => [...i]))));
  const prompts = [
    { inputIds: [2, 9, ...image, 10, 25, 40], imageRows: await rowsOf(pixels()) },
    { inputIds: [2, 17] },
    { inputIds: [2, ...image, 33, ...image, 5, 6], imageRows: await rowsOf(pixels(), pixels()) },
    { inputIds: [2, 12, 44, 8, 30, 21, 50] },
    { inputIds: [2, ...image, 33], imageRows: await rowsOf(pixels()) },
  ];
  return { config, generator, whole, prompts };
}

async function dispose({ generator, whole }: Toy): Promise<void> {
  await generator.dispose();
  await whole.dispose();
}

let toyModel: Toy;
let { config, generator, prompts } = {} as Toy;

beforeAll(async () => {
  toyModel = await withCheckpoint(folderOf('llava'), llavaConfigSchema, async (config, checkpoint) =>
    toy(config, await readParameters(checkpoint, llavaParameters(config))),
  );
  ({ config, generator, prompts } = toyModel);
});
afterAll(() => dispose(toyModel));

const NEW_TOKENS = 20;
const greedy: GenerateOptions = { maxNewTokens: NEW_TOKENS, stopTokenIds: [] };
/**
 * The most likely token that is not yet there: greedy answers of random weights soon repeat one token, which
 * would hide mistakes.
 */
const wandering: GenerateOptions = { ...greedy, sampling: { seed: 0, temperature: 1e-6, repetitionPenalty: 5 } };

/** Generation as it is defined: the whole sequence from the start for every token. */
async function recompute({ config, whole }: Toy, { inputIds, imageRows }: Prompt, sampling?: Sampling): Promise<number[]> {
  const random = createRandom(sampling?.seed ?? 0);
  const generated: number[] = [];
  const hidden = config.text_config.hidden_size;
  const rows = imageRows ?? new Float32Array(0);
  while (generated.length < NEW_TOKENS) {
    const ids = [...inputIds, ...generated];
    const { logits } = await whole.run({
      input_ids: int32(ids, [1, ids.length]),
      position_ids: int32([...ids.keys()], [1, ids.length]),
      image_rows: float32(rows, [rows.length / hidden, hidden]),
    });
    const last = (logits.data as Float32Array).slice(-config.text_config.vocab_size);
    last[IMAGE] = Number.NEGATIVE_INFINITY;
    generated.push(sampleToken(last, sampling, random, ids));
  }
  return generated;
}

async function expectRecomputed(model: Toy): Promise<void> {
  const { generator, prompts } = model;
  for (const prompt of prompts) {
    expect(await generator.generate([prompt], greedy)).toEqual([await recompute(model, prompt)]);
    const expected = await recompute(model, prompt, wandering.sampling);
    expect(new Set(expected).size).toBeGreaterThan(10);
    expect(await generator.generate([prompt], wandering)).toEqual([expected]);
  }
}

async function expectBatchOfSingles({ generator, prompts }: Toy): Promise<void> {
  const single: number[][] = [];
  for (const prompt of prompts) single.push(...(await generator.generate([prompt], wandering)));
  expect(await generator.generate(prompts, wandering)).toEqual(single);
  expect(await generator.generate([...prompts].reverse(), wandering)).toEqual([...single].reverse());
  expect(await generator.generate([prompts[3], prompts[1]], wandering)).toEqual([single[3], single[1]]);
}

/** Prompts that come together, some again, to a batch of three rows that reads so many tokens at a time. */
async function expectScheduled({ config, generator, prompts }: Toy, readTokens: number): Promise<void> {
  const scheduler = createBatchScheduler(generator, { slots: 3, prefixBytes: 2 ** 20, readTokens, breathe: async () => {} });
  const size = PATCHES * config.text_config.hidden_size;
  const asked = [...prompts, ...prompts.toReversed(), ...prompts];
  const answers = asked.map(({ inputIds, imageRows = new Float32Array(0) }, ticket) => {
    const rows = Array.from({ length: imageRows.length / size }, (_, i) => imageRows.subarray(i * size, (i + 1) * size));
    const pictures = rows.map((rows) => ({ key: rows.slice(0, 4).join(), rows }));
    const maxNewTokens = NEW_TOKENS - (ticket % 7);
    const { stopTokenIds, sampling } = wandering;
    return scheduler.answer({ stopTokenIds, sampling, ticket, inputIds, pictures, maxNewTokens });
  });
  for (const [i, { tokens, finish, cachedTokens }] of (await Promise.all(answers)).entries()) {
    const [expected] = await generator.generate([asked[i]], wandering);
    expect(tokens).toEqual(expected.slice(0, NEW_TOKENS - (i % 7)));
    expect(finish).toBe('length');
    expect(cachedTokens).toBeLessThan(asked[i].inputIds.length);
  }
  expect((await answers.at(-1)!).cachedTokens).toBeGreaterThan(PATCHES);
}

describe('generate', () => {
  test('with the cache gives what recomputing everything gives', async () => {
    await expectRecomputed(toyModel);
    const sampling = { seed: 4, temperature: 1.5, topK: 30, topP: 0.95, repetitionPenalty: 1.2 };
    expect(await generator.generate([prompts[0]], { ...greedy, sampling })).toEqual([await recompute(toyModel, prompts[0], sampling)]);
  });

  test('a batch of ragged prompts with and without images gives what single prompts give', () => expectBatchOfSingles(toyModel));

  test.each([3, 256])('so does one that rows join and leave, reading %d tokens at a time', (tokens) => expectScheduled(toyModel, tokens));

  test('ends each row before its first stop token, without touching the others', async () => {
    const free = await generator.generate(prompts, wandering);
    const stopTokenIds = [free[0][4], free[3][9]];
    const cut = (row: number[]) => {
      const end = row.findIndex((token) => stopTokenIds.includes(token));
      return end < 0 ? row : row.slice(0, end);
    };
    const stopped = await generator.generate(prompts, { ...wandering, stopTokenIds });
    expect(stopped).toEqual(free.map(cut));
    expect(new Set(stopped.map((row) => row.length)).size).toBeGreaterThan(1);
    expect(await generator.generate(prompts, { ...wandering, maxNewTokens: 3 })).toEqual(free.map((row) => row.slice(0, 3)));
  });

  test('streams exactly the tokens of the result, step by step', async () => {
    const streamed: number[][] = prompts.map(() => []);
    const lengths: number[] = [];
    const free = await generator.generate(prompts, wandering);
    const result = await generator.generate(prompts, {
      ...wandering,
      stopTokenIds: [free[1][6]],
      async onToken(row, token) {
        await Promise.resolve();
        streamed[row].push(token);
        lengths.push(streamed[row].length);
      },
    });
    expect(streamed).toEqual(result);
    expect(lengths).toEqual([...lengths].sort((a, b) => a - b));
  });

  test('samples alike with one seed and differently with another', async () => {
    const sample = (seed: number) => generator.generate(prompts, { ...greedy, sampling: { seed, temperature: 2 } });
    const first = await sample(1);
    expect(await sample(1)).toEqual(first);
    expect(await sample(2)).not.toEqual(first);
  });

  test('nothing in, nothing out', async () => {
    expect(await generator.generate([], greedy)).toEqual([]);
    expect(await generator.generate(prompts.slice(0, 2), { ...greedy, maxNewTokens: 0 })).toEqual([[], []]);
  });

  test('ends a row where the context ends, without touching the others', async () => {
    const context = config.text_config.max_position_embeddings;
    const results = await generator.generate(prompts, { ...wandering, maxNewTokens: 100 });
    expect(results.map((row, i) => row.length + prompts[i].inputIds.length)).toEqual(prompts.map(() => context));
    for (const [row, prompt] of prompts.entries())
      expect(await generator.generate([prompt], { ...wandering, maxNewTokens: 100 })).toEqual([results[row]]);
    const full = { inputIds: Array<number>(context).fill(5) };
    await expect(generator.generate([full], greedy)).rejects.toThrow('the prompt has 64 tokens, but the model reads 64');
  });

  test('refuses images that do not fit the image tokens of their own prompt', async () => {
    const [one, , two] = prompts;
    const swapped = [
      { ...one, imageRows: two.imageRows },
      { ...two, imageRows: one.imageRows },
    ];
    await expect(generator.generate(swapped, greedy)).rejects.toThrow('places for 16 image rows, but its images give 32');
    await expect(generator.generate([{ inputIds: one.inputIds }], greedy)).rejects.toThrow(
      'places for 16 image rows, but its images give 0',
    );
  });

  test('never answers with the image token', async () => {
    const results = await generator.generate(prompts, { ...greedy, maxNewTokens: 25, sampling: { seed: 1, temperature: 1e6 } });
    expect(new Set(results.flat()).size).toBeGreaterThan(40);
    expect(results.flat()).not.toContain(IMAGE);
  });
});

describe('a prefix cache', () => {
  /** Counts the positions that are given to the decoder. */
  function counting(): { engine: Engine; read: number[] } {
    const read: number[] = [];
    const counted: Engine = {
      ...engine,
      async compile(outputs, options) {
        const program = await engine.compile(outputs, options);
        return {
          ...program,
          run(inputs, wanted) {
            if (inputs.input_ids) read.push(inputs.input_ids.dims[1]);
            return program.run(inputs, wanted);
          },
        };
      },
    };
    return { engine: counted, read };
  }

  test('answers as without one, and reads only what is new', async () => {
    const { engine: counted, read } = counting();
    const values = await withCheckpoint(folderOf('llava'), llavaConfigSchema, (_, checkpoint) =>
      readParameters(checkpoint, llavaParameters(config)),
    );
    const own = await createGenerator(counted, config, float32Values(llavaParameters(config), values));
    const [one, , two] = prompts;
    const asked = (...ids: number[]) => ({ ...one, inputIds: [...one.inputIds, ...ids] });
    const prefix: PrefixCache = {};
    const answers: number[][] = [];
    for (const prompt of [one, asked(7, 8), asked(7, 9), asked(7, 9), two, prompts[1], one]) {
      read.length = 0;
      const [answer] = await own.generate([prompt], { ...wandering, prefix });
      answers.push([read[0], ...answer]);
      expect([answer]).toEqual(await generator.generate([prompt], wandering));
    }
    const wholes = [one, two, prompts[1]].map(({ inputIds }) => inputIds.length);
    // the image and what stands around it are known to the second question and the third; of a prompt that
    // was read, the last token is new; the others begin alike in their first token
    expect(answers.map(([tokens]) => tokens)).toEqual([wholes[0], 2, 1, 1, wholes[1] - 1, wholes[2] - 1, wholes[0] - 1]);
    await own.dispose();
  });

  test('goes on from what was answered', async () => {
    const [one] = prompts;
    const prefix: PrefixCache = {};
    const [answer] = await generator.generate([one], { ...wandering, maxNewTokens: 6, prefix });
    // the last token of an answer is never read
    expect(prefix.inputIds).toEqual([...one.inputIds, ...answer.slice(0, 5)]);
    const next = { ...one, inputIds: [...one.inputIds, ...answer, 3, 4] };
    expect(await generator.generate([next], { ...wandering, prefix })).toEqual(await generator.generate([next], wandering));
  });

  test('reads another image at the same place anew', async () => {
    const [one, , , , last] = prompts;
    const prefix: PrefixCache = {};
    const other = { inputIds: one.inputIds, imageRows: last.imageRows };
    await generator.generate([one], { ...wandering, prefix });
    const expected = await generator.generate([other], wandering);
    expect(expected).not.toEqual(await generator.generate([one], wandering));
    expect(await generator.generate([other], { ...wandering, prefix })).toEqual(expected);
    // the same image in other memory
    const copy = { ...other, imageRows: other.imageRows!.slice() };
    expect(await generator.generate([copy], { ...wandering, prefix })).toEqual(expected);
  });

  test('knows the first of two images where only the second is another', async () => {
    const { engine: counted, read } = counting();
    const values = await withCheckpoint(folderOf('llava'), llavaConfigSchema, (_, checkpoint) =>
      readParameters(checkpoint, llavaParameters(config)),
    );
    const own = await createGenerator(counted, config, float32Values(llavaParameters(config), values));
    const two = prompts[2];
    const size = two.imageRows!.length / 2;
    const other = { ...two, imageRows: concatFloat32([two.imageRows!.slice(0, size), prompts[0].imageRows!]) };
    const prefix: PrefixCache = {};
    await own.generate([two], { ...wandering, prefix });
    read.length = 0;
    expect(await own.generate([other], { ...wandering, prefix })).toEqual(await generator.generate([other], wandering));
    // <bos>, the first image and what stands between the two are known
    expect(read[0]).toBe(two.inputIds.length - 2 - PATCHES);
    // the same two images in other memory are known altogether
    read.length = 0;
    const copy = { ...other, imageRows: other.imageRows.slice() };
    await own.generate([copy], { ...wandering, prefix });
    expect(read[0]).toBe(1);
    await own.dispose();
  });

  test('holds nothing after an answer was broken off', async () => {
    const prefix: PrefixCache = {};
    const broken = { ...wandering, prefix, onToken: () => Promise.reject(new Error('enough')) };
    await expect(generator.generate([prompts[0]], broken)).rejects.toThrow('enough');
    expect(prefix.cache).toBeUndefined();
    expect(await generator.generate([prompts[0]], { ...wandering, prefix })).toEqual(await generator.generate([prompts[0]], wandering));
  });

  test('is for one prompt at a time', async () => {
    await expect(generator.generate(prompts, { ...greedy, prefix: {} })).rejects.toThrow('one prompt at a time');
  });
});

// prompts of 2 to 36 tokens and a window of 4: a key's place in the cache is not its position, and most keys
// are out of local layers' sight
describe.each(['gemma2', 'gemma3'])('generate with %s as the language model', (family) => {
  let model: Toy;
  beforeAll(async () => {
    model = await withCheckpoint(folderOf('llava'), llavaConfigSchema, (llava, visual) =>
      withCheckpoint(folderOf(family), languageConfigSchema, async (text_config, language) => {
        const config = { ...llava, text_config };
        const [own, rest] = [true, false].map((own) =>
          llavaParameters(config).filter(({ name }) => name.startsWith('language_model.') === own),
        );
        const values = [
          ...(await readParameters(visual, rest)),
          ...(await readParameters(language, own, (name) => name.replace('language_model.', ''))),
        ];
        return toy(config, new Map(values));
      }),
    );
  });
  afterAll(() => dispose(model));

  test('with the cache gives what recomputing everything gives', () => expectRecomputed(model));
  test('a batch of ragged prompts gives what single prompts give', () => expectBatchOfSingles(model));
  test.each([3, 256])('so does one that rows join and leave, reading %d tokens at a time', (tokens) => expectScheduled(model, tokens));
});
