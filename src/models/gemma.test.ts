// Numerics are compared with transformers in tests/goldens.test.ts; this file tests configs, and parameters
// at full size, which cost nothing as graphs.

import { describe, expect, test } from 'vitest';
import { input } from '../graph/tensor.ts';
import { Parameters } from '../nn/parameters.ts';
import { type GemmaConfig, gemmaConfigSchema } from './gemma.ts';
import { embedTokens, languageModel } from './language.ts';
import { causalBias } from './masks.ts';

/** config.json of google/gemma-2b-it and gemma-7b-it. */
const hub = {
  architectures: ['GemmaForCausalLM'],
  attention_bias: false,
  head_dim: 256,
  hidden_act: 'gelu',
  hidden_activation: null,
  initializer_range: 0.02,
  max_position_embeddings: 8192,
  model_type: 'gemma',
  rms_norm_eps: 1e-6,
  rope_scaling: null,
  rope_theta: 10000.0,
  torch_dtype: 'bfloat16',
  vocab_size: 256000,
};
const gemma2b = {
  ...hub,
  hidden_size: 2048,
  intermediate_size: 16384,
  num_attention_heads: 8,
  num_hidden_layers: 18,
  num_key_value_heads: 1,
};
const gemma7b = {
  ...hub,
  hidden_size: 3072,
  intermediate_size: 24576,
  num_attention_heads: 16,
  num_hidden_layers: 28,
  num_key_value_heads: 16,
};

function build(config: GemmaConfig) {
  const parameters = new Parameters();
  const ids = (name: string) => input(name, 'int32', ['batch', 'tokens']);
  const positionIds = ids('position_ids');
  const inputsEmbeds = embedTokens(parameters, config, ids('input_ids'));
  const outputs = languageModel(parameters, config, { inputsEmbeds, positionIds, attentionBias: causalBias(positionIds, positionIds) });
  return { parameters: parameters.list(), outputs };
}

describe('gemma', () => {
  test('has the parameters of the released models', () => {
    const sizes = [gemma2b, gemma7b].map((config) => {
      const { parameters } = build(gemmaConfigSchema.parse(config));
      return parameters.reduce((sum, { dims }) => sum + dims.reduce((a, b) => a * b, 1), 0);
    });
    expect(sizes).toEqual([2_506_172_416, 8_537_680_896]);
  });

  test('names them as the hub does, in layouts [out, in]', () => {
    const { parameters, outputs } = build(gemmaConfigSchema.parse(gemma2b));
    const dims = new Map(parameters.map((p) => [p.name, p.dims]));
    expect(dims.get('model.layers.17.self_attn.k_proj.weight')).toEqual([256, 2048]);
    expect(dims.get('model.layers.0.self_attn.o_proj.weight')).toEqual([2048, 2048]);
    expect(dims.get('model.layers.3.mlp.down_proj.weight')).toEqual([2048, 16384]);
    expect(dims.size).toBe(18 * 9 + 2);
    expect(outputs.lastHidden.dims).toEqual(['batch', 'tokens', 2048]);
    expect(outputs.hiddenStates.length).toBe(19);
    expect(outputs.present.map(({ key }) => key.dims)).toEqual(Array(18).fill(['batch', 1, 'tokens', 256]));
  });

  test('refuses what it would compute wrongly', () => {
    expect(gemmaConfigSchema.safeParse({ ...gemma2b, model_type: 'gemma2' }).success).toBe(false);
    expect(gemmaConfigSchema.safeParse({ ...gemma2b, tie_word_embeddings: false }).success).toBe(false);
    expect(gemmaConfigSchema.safeParse({ ...gemma2b, hidden_act: 'silu' }).success).toBe(false);
    expect(gemmaConfigSchema.safeParse({ ...gemma2b, attention_bias: true }).success).toBe(false);
    expect(gemmaConfigSchema.safeParse({ ...gemma2b, rope_scaling: { rope_type: 'yarn', factor: 4 } }).success).toBe(false);
    expect(gemmaConfigSchema.safeParse({ ...gemma2b, rope_scaling: { type: 'linear' } }).success).toBe(false);
    expect(gemmaConfigSchema.safeParse({ ...gemma2b, head_dim: null }).success).toBe(false);
    expect(gemmaConfigSchema.safeParse({ ...gemma2b, use_bidirectional_attention: true }).success).toBe(false);
  });
});
