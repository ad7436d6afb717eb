// What transformers takes for each field that a config.json leaves out (tests/reference/make_defaults.py).

import { readFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import { clipConfigSchema, clipTextConfigSchema } from './clip.ts';
import { fromHubConfig } from './hub-config.ts';
import { LANGUAGE_MODEL_TYPES, languageConfigSchema } from './language.ts';
import { llavaConfigSchema } from './llava.ts';
import { VISION_MODEL_TYPES, visionConfigSchema, visionFolderSchema } from './vision.ts';

type Fields = Record<string, unknown>;
const { configs } = JSON.parse(readFileSync(new URL('../../tests/reference/defaults.json', import.meta.url), 'utf8')) as {
  configs: Record<string, Fields>;
};

/** Fields that only this project has, and older names of fields. */
const notInTransformers = ['hidden_act', 'mm_projector_type', 'scale_image_features', 'vision_use_head'];

/** Every field of `parsed` has the value in `expected`; numbers may be written in another way. */
function expectDefaults(parsed: Fields, expected: Fields) {
  for (const [name, value] of Object.entries(parsed)) {
    if (!(name in expected)) expect(notInTransformers).toContain(name);
    else if (typeof value === 'object' && value !== null) expectDefaults(value as Fields, expected[name] as Fields);
    else expect([name, value]).toEqual([name, expected[name]]);
  }
}

/** Fields that say how large a model is: without them, nothing can be loaded. */
const SIZES = /^(vocab_size|.*hidden_size|.*_heads|num_hidden_layers|intermediate_size|head_dim|image_size|patch_size|projection_dim)$/;

describe('a config that leaves out everything', () => {
  test.each([...LANGUAGE_MODEL_TYPES, ...VISION_MODEL_TYPES])('%s', (model_type) => {
    const schema = LANGUAGE_MODEL_TYPES.includes(model_type) ? languageConfigSchema : visionConfigSchema;
    const parsed = schema.parse({ model_type }) as Fields;
    expectDefaults(parsed, configs[model_type]);
    const sizes = Object.keys(configs[model_type]).filter((name) => SIZES.test(name) && name !== 'projection_dim');
    expect(Object.keys(parsed)).toEqual(expect.arrayContaining(sizes));
  });

  test('a whole CLIP, and its text tower', () => {
    expectDefaults(clipConfigSchema.parse({}), configs.clip);
    expectDefaults(clipTextConfigSchema.parse({}), configs.clip_text_model);
  });

  test('the encoder of a whole CLIP or SigLIP', () => {
    expectDefaults(visionFolderSchema.parse({ model_type: 'clip' }) as Fields, configs.clip_vision_model);
    expectDefaults(visionFolderSchema.parse({ model_type: 'siglip', vision_config: {} }) as Fields, configs.siglip_vision_model);
    const first = { model_type: 'clip', vision_config: { hidden_size: 12 }, vision_config_dict: { hidden_size: 24 } };
    expect(visionFolderSchema.parse(first)).toMatchObject({ hidden_size: 24, patch_size: 32 });
  });

  test('a LLaVA', () => {
    expectDefaults(llavaConfigSchema.parse({ text_config: { model_type: 'gemma' } }), configs.llava);
  });
});

test('the image token has two names', () => {
  const parsed = (fields: Fields) =>
    llavaConfigSchema.parse(fromHubConfig({ model_type: 'llava', text_config: { model_type: 'gemma' }, ...fields })).image_token_index;
  expect(parsed({})).toBe(32000);
  expect(parsed({ image_token_id: 5 })).toBe(5);
  expect(parsed({ image_token_index: 6 })).toBe(6);
  expect(parsed({ image_token_id: 5, image_token_index: 6 })).toBe(5);
});

test('what is not supported is refused by name', () => {
  const text_config = { model_type: 'gemma' };
  const problem = (config: Fields) =>
    llavaConfigSchema.safeParse(fromHubConfig({ model_type: 'llava', ...config })).error?.issues[0].path.join('.');
  expect(problem({ text_config, multimodal_projector_bias: false })).toBe('multimodal_projector_bias');
  expect(problem({ text_config: { ...text_config, use_bidirectional_attention: true } })).toBe('text_config.use_bidirectional_attention');
  expect(problem({})).toBe('text_config');
  // transformers takes a Llama
  for (const model_type of [undefined, null])
    expect(() => problem({ text_config: { model_type, hidden_size: 8 } })).toThrow(
      /^text_config\.model_type: it is missing, which means llama/,
    );
});
