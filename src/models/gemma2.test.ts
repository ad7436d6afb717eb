// Numerics are compared with transformers in tests/goldens.test.ts; this file tests configs, parameters at
// full size, and which layer gets which window.

import { describe, expect, test } from 'vitest';
import { lower } from '../engine/onnx/lower.ts';
import { UserError } from '../errors.ts';
import { input } from '../graph/tensor.ts';
import { Parameters } from '../nn/parameters.ts';
import { gemma2ConfigSchema } from './gemma2.ts';
import { embedTokens, languageModel, logits } from './language.ts';
import { causalBias } from './masks.ts';

/** config.json of google/gemma-2-2b-it, written by transformers 4. */
const hub = {
  architectures: ['Gemma2ForCausalLM'],
  attention_bias: false,
  attn_logit_softcapping: 50.0,
  cache_implementation: 'hybrid',
  final_logit_softcapping: 30.0,
  head_dim: 256,
  hidden_act: 'gelu_pytorch_tanh',
  hidden_activation: 'gelu_pytorch_tanh',
  hidden_size: 2304,
  initializer_range: 0.02,
  intermediate_size: 9216,
  max_position_embeddings: 8192,
  model_type: 'gemma2',
  num_attention_heads: 8,
  num_hidden_layers: 26,
  num_key_value_heads: 4,
  query_pre_attn_scalar: 256,
  rms_norm_eps: 1e-6,
  rope_theta: 10000.0,
  sliding_window: 4096,
  torch_dtype: 'bfloat16',
  vocab_size: 256000,
};
const of9b = { hidden_size: 3584, intermediate_size: 14336, num_hidden_layers: 42, num_attention_heads: 16, num_key_value_heads: 8 };

function build(changes: object) {
  const config = gemma2ConfigSchema.parse({ ...hub, ...changes });
  const parameters = new Parameters();
  const ids = (name: string) => input(name, 'int32', ['batch', 'tokens']);
  const positionIds = ids('position_ids');
  const bias = causalBias(positionIds, positionIds);
  const windows: (number | undefined)[] = [];
  const attentionBias = (window?: number) => {
    windows.push(window);
    return bias(window);
  };
  const inputsEmbeds = embedTokens(parameters, config, ids('input_ids'));
  const { lastHidden, present } = languageModel(parameters, config, { inputsEmbeds, positionIds, attentionBias });
  return { parameters: parameters.list(), windows, present, outputs: { logits: logits(parameters, config, lastHidden) } };
}

const small = { vocab_size: 11, hidden_size: 8, intermediate_size: 6, num_hidden_layers: 4, head_dim: 4, max_position_embeddings: 16 };

describe('gemma2', () => {
  test('has the parameters of the released models', () => {
    const sizes = [{}, of9b].map((changes) => {
      const { parameters } = build({ ...changes, max_position_embeddings: 16 });
      return parameters.reduce((sum, { dims }) => sum + dims.reduce((a, b) => a * b, 1), 0);
    });
    expect(sizes).toEqual([2_614_341_888, 9_241_705_984]);
  });

  test('names them as the hub does, four norms a block', () => {
    const { parameters, present, outputs } = build({ max_position_embeddings: 16 });
    const names = parameters.map(({ name }) => name).filter((name) => name.startsWith('model.layers.25.') && name.endsWith('norm.weight'));
    expect(names.map((name) => name.split('.')[3]).sort()).toEqual([
      'input_layernorm',
      'post_attention_layernorm',
      'post_feedforward_layernorm',
      'pre_feedforward_layernorm',
    ]);
    expect(parameters.length).toBe(26 * 11 + 2);
    expect(outputs.logits.dims).toEqual(['batch', 'tokens', 256000]);
    expect(present.map(({ key }) => key.dims)).toEqual(Array(26).fill(['batch', 4, 'tokens', 256]));
  });

  test('every second layer sees all, beginning with the second, unless layers are listed', () => {
    expect(build(small).windows).toEqual([4096, undefined, 4096, undefined]);
    const layer_types = ['full_attention', 'full_attention', 'sliding_attention', 'full_attention'];
    expect(build({ ...small, sliding_window: 3, layer_types }).windows).toEqual([undefined, undefined, 3, undefined]);
    expect(() => build({ ...small, layer_types: layer_types.slice(1) })).toThrow(UserError);
    expect(() => build({ ...small, layer_types: layer_types.slice(1) })).toThrow('layer_types lists 3 layers, but num_hidden_layers is 4');
  });

  test('is the same model in the fields of transformers 4 and 5, and with defaults left out', () => {
    const { rope_theta, ...rest } = { ...hub, ...small };
    const model = (config: object) => Buffer.from(lower(build(config).outputs)).toString('base64');
    const layer_types = ['sliding_attention', 'full_attention', 'sliding_attention', 'full_attention'];
    const five = { ...rest, rope_theta: undefined, rope_parameters: { rope_theta, rope_type: 'default' }, layer_types };
    expect(model(five)).toBe(model(small));
    const absent = ['attn_logit_softcapping', 'final_logit_softcapping', 'sliding_window', 'query_pre_attn_scalar', 'rope_theta'];
    expect(model({ ...small, ...Object.fromEntries(absent.map((name) => [name, undefined])) })).toBe(model(small));
    for (const change of [
      { attn_logit_softcapping: null },
      { final_logit_softcapping: null },
      { query_pre_attn_scalar: 144 },
      { rope_parameters: { rope_theta: 500 } },
      { rope_scaling: { rope_type: 'linear', factor: 2 } },
    ])
      expect(model({ ...small, ...change }), JSON.stringify(change)).not.toBe(model(small));
  });

  test('refuses what it would compute wrongly', () => {
    for (const change of [
      { model_type: 'gemma' },
      { attention_bias: true },
      { use_bidirectional_attention: true },
      { layer_types: ['chunked_attention'] },
      { rope_scaling: { rope_type: 'dynamic', factor: 2 } },
      { attn_logit_softcapping: 0 },
      { hidden_activation: 'silu' },
      { tie_word_embeddings: false },
    ])
      expect(gemma2ConfigSchema.safeParse({ ...hub, ...change }).success, JSON.stringify(change)).toBe(false);
  });
});
