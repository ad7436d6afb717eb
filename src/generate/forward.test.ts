// The numbers themselves are compared with transformers through the command line, in tests/forward.test.ts.
import { fileURLToPath } from 'node:url';
import { describe, expect, test } from 'vitest';
import { float32, float32Values, int32, type Value } from '../engine/engine.ts';
import { createOrtEngine } from '../engine/ort.ts';
import { languageConfigSchema } from '../models/language.ts';
import { llavaConfigSchema, llavaParameters } from '../models/llava.ts';
import type { Parameter } from '../nn/parameters.ts';
import { withCheckpoint } from '../pretrained/folder.ts';
import { readParameters } from '../pretrained/values.ts';
import { createRandom } from '../random.ts';
import { type ForwardInputs, type ForwardModel, type ForwardOptions, type ForwardOutput, forward, placeOf } from './forward.ts';

const folderOf = (golden: string) => fileURLToPath(new URL(`../../tests/reference/goldens/${golden}`, import.meta.url));
const engine = createOrtEngine({ threads: 1 });
const IMAGE = 63;
const image = Array<number>(16).fill(IMAGE);
const random = createRandom(5);
const picture = () => Float32Array.from({ length: 3 * 24 * 24 }, () => random.normal());

const llava = await withCheckpoint(folderOf('llava'), llavaConfigSchema, async (config, checkpoint) => ({
  config,
  values: await readParameters(checkpoint, llavaParameters(config)),
}));
/** The toy LLaVA over a Gemma of another family, whose local layers see four positions. */
const gemma3 = await withCheckpoint(folderOf('gemma3'), languageConfigSchema, async (text_config, checkpoint) => {
  const config = { ...llava.config, text_config };
  const own = llavaParameters(config).filter(({ name }) => name.startsWith('language_model.'));
  const values = await readParameters(checkpoint, own, (name) => name.replace('language_model.', ''));
  return { config, values: new Map([...llava.values, ...values]) };
});

async function collect(output: ForwardOutput): Promise<Float32Array> {
  const parts: number[] = [];
  for await (const piece of output.pieces()) parts.push(...piece);
  expect(parts).toHaveLength(output.dims.reduce((a, b) => a * b, 1));
  return Float32Array.from(parts);
}

/** Of all parameters of a LLaVA whose config has them. */
const sourceOf = ({ config, values }: typeof llava) => ({
  read: async (parameters: readonly Parameter[]) =>
    float32Values(
      llavaParameters(config).filter(({ name }) => parameters.some((asked) => asked.name === name)),
      values,
    ),
});

/** All outputs of a LLaVA whole. */
async function run(model: typeof llava, inputs: ForwardInputs, options?: ForwardOptions) {
  const outputs = await forward(engine, { kind: 'llava', config: model.config }, sourceOf(model), inputs, options);
  const collected: Record<string, { dims: readonly number[]; data: Float32Array }> = {};
  for (const [name, output] of outputs) collected[name] = { dims: output.dims, data: await collect(output) };
  return collected;
}

const matrix = (rows: readonly number[][]): Value => int32(rows.flat(), [rows.length, rows[0].length]);
const pixels = (pictures: readonly Float32Array[]): Value =>
  float32(
    pictures.flatMap((values) => [...values]),
    [pictures.length, 3, 24, 24],
  );

const largestDifference = (a: Float32Array, b: Float32Array) =>
  a.reduce((max, value, i) => Math.max(max, Math.abs(value - b[i])), a.length === b.length ? 0 : Number.POSITIVE_INFINITY);

describe('padding', () => {
  const prompts = [
    { ids: [2, 9, ...image, 10, 25, 40], pictures: [picture()] },
    { ids: [2, 17], pictures: [] },
    { ids: [2, ...image, 33, ...image, 5, 6], pictures: [picture(), picture()] },
    { ids: [2, 12, 44, 8, 30, 21, 50], pictures: [] },
  ];
  const longest = Math.max(...prompts.map(({ ids }) => ids.length));

  /** Prompts as one batch; where the first token of each stands is up to `start`. */
  function batch(start: (row: number, free: number) => number): { inputs: ForwardInputs; starts: number[] } {
    const starts = prompts.map(({ ids }, row) => start(row, longest - ids.length));
    const place = (row: number, tokens: readonly number[]) => {
      const padded = Array<number>(longest).fill(0);
      padded.splice(starts[row], tokens.length, ...tokens);
      return padded;
    };
    return {
      inputs: {
        input_ids: matrix(prompts.map(({ ids }, row) => place(row, ids))),
        attention_mask: matrix(
          prompts.map(({ ids }, row) =>
            place(
              row,
              ids.map(() => 1),
            ),
          ),
        ),
        pixel_values: pixels(prompts.flatMap(({ pictures }) => pictures)),
      },
      starts,
    };
  }

  test.each([
    ['right', llava, () => 0],
    ['left', llava, (_: number, free: number) => free],
    ['both sides', llava, (row: number, free: number) => Math.floor((free * row) / 4)],
    ['right, with windows', gemma3, () => 0],
    ['left, with windows', gemma3, (_: number, free: number) => free],
  ])('on the %s leaves every row as it is by itself', async (_, model, start) => {
    const { inputs, starts } = batch(start);
    const { logits } = await run(model, inputs);
    expect(logits.dims).toEqual([prompts.length, longest, model.config.text_config.vocab_size]);
    expect(logits.data.every(Number.isFinite)).toBe(true);
    const vocabulary = logits.dims[2];
    for (const [row, { ids, pictures }] of prompts.entries()) {
      const single = await run(model, {
        input_ids: matrix([ids]),
        ...(pictures.length > 0 ? { pixel_values: pixels(pictures) } : {}),
      });
      const from = (row * longest + starts[row]) * vocabulary;
      const inBatch = logits.data.subarray(from, from + ids.length * vocabulary);
      expect(largestDifference(inBatch, single.logits.data)).toBeLessThan(2e-5);
    }
  });

  test('of a whole row gives finite numbers', async () => {
    const hidden = matrix([[0, 0, 0, 0]]);
    const { logits } = await run(gemma3, { input_ids: matrix([[2, 5, 6, 7]]), attention_mask: hidden });
    expect(logits.data.every(Number.isFinite)).toBe(true);
  });
});

test('image rows are the image features times sqrt(hidden) where the config says so, in the order of the images', async () => {
  const pictures = [picture(), picture(), picture()];
  const inputs = {
    input_ids: matrix([
      [2, ...image, 9, ...image],
      [2, 5, ...image, ...Array(16).fill(7)],
    ]),
    pixel_values: pixels(pictures),
  };
  const options = { hiddenStates: true, imageFeatures: true };
  const scaled = (scale_image_features: boolean) => run({ ...llava, config: { ...llava.config, scale_image_features } }, inputs, options);
  const [plain, times] = [await scaled(false), await scaled(true)];
  const hidden = 24;
  expect(plain.image_features.dims).toEqual([3, 16, hidden]);
  expect(times.image_features.data).toEqual(plain.image_features.data);
  expect(Object.keys(plain).sort()).toEqual(['hidden_states.0', 'hidden_states.1', 'hidden_states.2', 'image_features', 'logits']);
  const rowsOf = ({ data }: { data: Float32Array }) =>
    [...(inputs.input_ids.data as Int32Array).entries()].flatMap(([at, id]) =>
      id === IMAGE ? [...data.subarray(at * hidden, (at + 1) * hidden)] : [],
    );
  expect(rowsOf(plain['hidden_states.0'])).toEqual([...plain.image_features.data]);
  const factor = Math.fround(Math.sqrt(hidden));
  expect(rowsOf(times['hidden_states.0'])).toEqual(Array.from(plain.image_features.data, (value) => Math.fround(value * factor)));
  // words are the same in both
  expect(times['hidden_states.0'].data.subarray(0, hidden)).toEqual(plain['hidden_states.0'].data.subarray(0, hidden));
});

test('logits come in pieces of whole rows, however many at a time', async () => {
  const inputs = {
    input_ids: matrix([
      [2, 5, 6, 7, 8],
      [2, 9, 10, 11, 12],
    ]),
  };
  const whole = await run(llava, inputs);
  for (const logitsAtOnce of [1, 64 * 3, 64 * 10]) {
    const outputs = await forward(engine, { kind: 'llava', config: llava.config }, sourceOf(llava), inputs, { logitsAtOnce });
    const lengths: number[] = [];
    const values: number[] = [];
    for await (const piece of outputs.get('logits')!.pieces()) {
      lengths.push(piece.length / 64);
      values.push(...piece);
    }
    expect(lengths).toEqual({ 1: Array(10).fill(1), 192: [3, 3, 3, 1], 640: [10] }[logitsAtOnce]);
    expect(largestDifference(Float32Array.from(values), whole.logits.data)).toBeLessThan(1e-5);
  }
});

test('only what is run is read, the encoder apart from the language model', async () => {
  const reads: string[][] = [];
  const source = {
    read(parameters: readonly Parameter[]) {
      reads.push([...new Set(parameters.map(({ name }) => name.split('.')[0]))]);
      return sourceOf(llava).read(parameters);
    },
  };
  const model: ForwardModel = { kind: 'llava', config: llava.config };
  await forward(engine, model, source, { input_ids: matrix([[2, ...image]]), pixel_values: pixels([picture()]) });
  expect(reads).toEqual([['vision_tower', 'multi_modal_projector'], ['language_model']]);
  reads.length = 0;
  await forward(engine, model, source, { input_ids: matrix([[2, 5]]) });
  expect(reads).toEqual([['language_model']]);
});

test('wrong inputs are refused before anything is read', async () => {
  const model: ForwardModel = { kind: 'llava', config: llava.config };
  const source = { read: async () => expect.unreachable() };
  await expect(forward(engine, model, source, { input_ids: matrix([[2, 64]]) })).rejects.toThrow(
    'the inputs: tensor "input_ids": id 64 at [0, 1] is not in the vocabulary, which has 0 to 63',
  );
});

test('an image token behind the vocabulary is an id of its own', async () => {
  const config = { ...llava.config, image_token_index: 70 };
  const ids = [2, ...Array<number>(16).fill(70), 5];
  const { logits } = await run({ ...llava, config }, { input_ids: matrix([ids]), pixel_values: pixels([picture()]) });
  expect(logits.data.every(Number.isFinite)).toBe(true);
  await expect(run({ ...llava, config }, { input_ids: matrix([[2, 71]]) })).rejects.toThrow('which has 0 to 63, and 70 for images');
});

test('placeOf', () => {
  expect(placeOf(0, [2, 3])).toBe('[0, 0]');
  expect(placeOf(5, [2, 3])).toBe('[1, 2]');
  expect(placeOf(13, [2, 3, 4])).toBe('[1, 0, 1]');
  expect(placeOf(4, [7])).toBe('[4]');
});
