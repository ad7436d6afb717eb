import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { describe, expect, test } from 'vitest';
import { float32Values } from '../engine/engine.ts';
import { createOrtEngine } from '../engine/ort.ts';
import { llavaConfigSchema, llavaParameters } from '../models/llava.ts';
import { withCheckpoint } from '../pretrained/folder.ts';
import { readParameters } from '../pretrained/values.ts';
import { openSafetensors } from '../weights/safetensors.ts';
import { type GenerationConfig, generationConfigSchema, generationDefaultsOf, greedySampling, notFollowed, seeded } from './defaults.ts';
import { createGenerator } from './generator.ts';

const reference = new URL('../../tests/reference/', import.meta.url);
const readJson = (name: string) => JSON.parse(readFileSync(new URL(name, reference), 'utf8'));
const defaultsOf = (fields: object, eos?: number | number[]) => generationDefaultsOf(generationConfigSchema.parse(fields), eos);

test('where no seed is asked for, each answer has its own', () => {
  expect(seeded({ seed: 7, temperature: 1 })).toEqual({ seed: 7, temperature: 1 });
  const seeds = [{}, { seed: undefined }].map((wishes) => seeded(wishes).seed);
  expect(new Set(seeds.filter(Number.isInteger)).size).toBe(2);
});

describe('generation_config.json', () => {
  const cases = readJson('generation.json') as { fields: GenerationConfig; answer: number[] }[];

  test('gives the greedy answers of transformers (tests/reference/make_generation.py)', async () => {
    const golden = fileURLToPath(new URL('goldens/llava', reference));
    const file = await openSafetensors(`${golden}/inputs.safetensors`);
    const bytes = async (name: string) => (await file.read(name)).data.slice().buffer;
    const [length] = file.info('input_ids').shape.slice(1);
    const isReal = new BigInt64Array(await bytes('attention_mask')).subarray(0, length);
    const inputIds = [...new BigInt64Array(await bytes('input_ids')).subarray(0, length)].filter((_, i) => isReal[i] === 1n).map(Number);
    const pixels = new Float32Array(await bytes('pixel_values'));
    const [images] = file.info('pixel_values').shape;
    await file.close();
    const generator = await withCheckpoint(golden, llavaConfigSchema, async (config, checkpoint) => {
      const values = float32Values(llavaParameters(config), await readParameters(checkpoint, llavaParameters(config)));
      return createGenerator(createOrtEngine({ threads: 1 }), config, values);
    });
    const imageRows = await generator.imageRows(await generator.imageFeatures(pixels.subarray(0, pixels.length / images)));
    for (const { fields, answer } of cases) {
      const { stopTokenIds, maxNewTokens = 12, repetitionPenalty } = defaultsOf(fields);
      const options = { stopTokenIds, maxNewTokens, sampling: greedySampling(repetitionPenalty) };
      expect([fields, await generator.generate([{ inputIds, imageRows }], options)]).toEqual([fields, [answer]]);
    }
    await generator.dispose();
  });

  test('leaves out what transformers has by default', () => {
    const { all } = readJson('defaults.json').generation;
    expect(all).toEqual({ do_sample: false, temperature: 1, top_k: 50, top_p: 1, repetition_penalty: 1 });
    expect(defaultsOf({})).toEqual({ stopTokenIds: [], temperature: 0 });
    expect(defaultsOf({ do_sample: true })).toEqual({ stopTokenIds: [], temperature: 1, topK: 50 });
    // what is not sampled is greedy, whatever the temperature
    expect(defaultsOf({ temperature: 0.7, top_p: 0.9 })).toEqual({ stopTokenIds: [], temperature: 0, topP: 0.9 });
  });

  test('says where answers end; without it, the model does', () => {
    expect(defaultsOf({ eos_token_id: 1 }, 7).stopTokenIds).toEqual([1]);
    expect(defaultsOf({ eos_token_id: [1, 107] }, 7).stopTokenIds).toEqual([1, 107]);
    expect(defaultsOf({ eos_token_id: null }, [7, 8]).stopTokenIds).toEqual([7, 8]);
  });

  test.each([{ eos_token_id: 'x' }, { temperature: -1 }, { top_p: 1.5 }, { max_new_tokens: 0 }])('refuses %j', (fields) => {
    expect(generationConfigSchema.safeParse(fields).error?.issues[0].path).toEqual(Object.keys(fields));
  });
});

test('fields that would change answers and are not followed are named', () => {
  const named = (fields: object) => notFollowed(generationConfigSchema.parse(fields));
  expect(named({ num_beams: 4, suppress_tokens: [5], temperature: 0.5, cache_implementation: 'hybrid' })).toEqual([
    'num_beams',
    'suppress_tokens',
  ]);
  // what changes nothing
  expect(
    named({
      ...readJson('defaults.json').generation.all,
      num_beams: 1,
      suppress_tokens: [],
      min_p: null,
      no_repeat_ngram_size: 0,
      typical_p: 1,
    }),
  ).toEqual([]);
});

test('a temperature of 0 is what greedy answers are written with', () => {
  expect(defaultsOf({ do_sample: false, temperature: 0, top_p: 0 })).toMatchObject({ temperature: 0 });
  expect(defaultsOf({ do_sample: true, temperature: 0 })).toMatchObject({ temperature: 0 });
});
