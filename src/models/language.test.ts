import { describe, expect, test } from 'vitest';
import { LANGUAGE_MODEL_TYPES, languageConfigSchema } from './language.ts';

const sizes = {
  vocab_size: 11,
  hidden_size: 8,
  intermediate_size: 6,
  num_hidden_layers: 1,
  num_attention_heads: 2,
  num_key_value_heads: 1,
  head_dim: 4,
};

describe('languageConfigSchema', () => {
  test('reads each family by its model_type, and Gemma 1 where there is none', () => {
    expect(languageConfigSchema.parse(sizes).model_type).toBe('gemma');
    for (const model_type of LANGUAGE_MODEL_TYPES) expect(languageConfigSchema.parse({ ...sizes, model_type }).model_type).toBe(model_type);
    expect(languageConfigSchema.parse({ ...sizes, model_type: 'gemma2' })).toMatchObject({ attn_logit_softcapping: 50 });
    expect(languageConfigSchema.parse({ ...sizes, model_type: 'gemma3_text' })).toMatchObject({ final_logit_softcapping: null });
  });

  test('says what is supported when asked for something else', () => {
    for (const model_type of ['llama', 'gemma3', 3, null]) {
      const { error } = languageConfigSchema.safeParse({ ...sizes, model_type });
      expect(error?.issues).toMatchObject([{ path: ['model_type'], message: 'must be one of gemma, gemma2, gemma3_text' }]);
    }
  });

  test('names the field of the family that was asked for', () => {
    const { error } = languageConfigSchema.safeParse({ ...sizes, model_type: 'gemma2', sliding_window: 'wide' });
    expect(error?.issues.map(({ path }) => path.join('.'))).toEqual(['sliding_window']);
  });

  test('names sizes that do not fit each other', () => {
    const problem = (fields: object) => languageConfigSchema.safeParse({ ...sizes, model_type: 'gemma', ...fields }).error?.issues[0];
    // Gemma 1's default is 16
    expect(problem({ num_key_value_heads: undefined })).toMatchObject({
      path: ['num_key_value_heads'],
      message: 'must divide num_attention_heads, which is 2; it is 16',
    });
    expect(problem({ head_dim: 5 })).toMatchObject({ path: ['head_dim'] });
  });
});
