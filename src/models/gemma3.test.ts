// Numerics are compared with transformers in tests/goldens.test.ts; this file tests configs in their old and
// new form, and parameters at full size.

import { readFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import { lower } from '../engine/onnx/lower.ts';
import { input } from '../graph/tensor.ts';
import { Parameters } from '../nn/parameters.ts';
import { gemma3ConfigSchema } from './gemma3.ts';
import { embedTokens, languageModel, logits } from './language.ts';
import { causalBias } from './masks.ts';

/**
 * config.json of google/gemma-3-1b-it, and `text_config` of gemma-3-4b-it, which leaves out fields that equal
 * a default.
 */
const hub1b = {
  architectures: ['Gemma3ForCausalLM'],
  attention_bias: false,
  attn_logit_softcapping: null,
  final_logit_softcapping: null,
  head_dim: 256,
  hidden_activation: 'gelu_pytorch_tanh',
  hidden_size: 1152,
  initializer_range: 0.02,
  intermediate_size: 6912,
  max_position_embeddings: 32768,
  model_type: 'gemma3_text',
  num_attention_heads: 4,
  num_hidden_layers: 26,
  num_key_value_heads: 1,
  query_pre_attn_scalar: 256,
  rms_norm_eps: 1e-6,
  rope_local_base_freq: 10000,
  rope_scaling: null,
  rope_theta: 1000000,
  sliding_window: 512,
  sliding_window_pattern: 6,
  vocab_size: 262144,
};
const hub4b = {
  hidden_size: 2560,
  intermediate_size: 10240,
  model_type: 'gemma3_text',
  num_hidden_layers: 34,
  rope_scaling: { factor: 8.0, rope_type: 'linear' },
  sliding_window: 1024,
};
/** Tables of all positions of a released model take a second to fill. */
const FEW = { max_position_embeddings: 16 };

function build(json: object) {
  const config = gemma3ConfigSchema.parse(json);
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
  const { lastHidden } = languageModel(parameters, config, { inputsEmbeds, positionIds, attentionBias });
  return { config, parameters: parameters.list(), windows, outputs: { logits: logits(parameters, config, lastHidden) } };
}

describe('gemma3', () => {
  test('has the parameters of the released models', () => {
    const sizes = [hub1b, hub4b].map((json) => {
      const { parameters } = build({ ...json, ...FEW });
      return parameters.reduce((sum, { dims }) => sum + dims.reduce((a, b) => a * b, 1), 0);
    });
    expect(sizes).toEqual([999_885_952, 3_880_263_168]);
  });

  test('norms queries and keys, a weight for each unit of a head', () => {
    const { parameters } = build({ ...hub1b, ...FEW });
    const dims = new Map(parameters.map((p) => [p.name, p.dims]));
    expect(dims.get('model.layers.25.self_attn.q_norm.weight')).toEqual([256]);
    expect(dims.get('model.layers.0.self_attn.k_norm.weight')).toEqual([256]);
    expect(dims.size).toBe(26 * 13 + 2);
  });

  test('fills in what the text_config of multimodal folders leaves out', () => {
    expect(gemma3ConfigSchema.parse(hub4b)).toMatchObject({
      vocab_size: 262208,
      num_attention_heads: 8,
      num_key_value_heads: 4,
      head_dim: 256,
      query_pre_attn_scalar: 256,
      max_position_embeddings: 131072,
      final_logit_softcapping: null,
    });
  });

  test('every sixth layer sees all, unless the config says otherwise', () => {
    const small = { ...hub1b, ...FEW, num_hidden_layers: 7 };
    const local = 512;
    expect(build(small).windows).toEqual([local, local, local, local, local, undefined, local]);
    expect(build({ ...small, sliding_window_pattern: undefined }).windows).toEqual(build(small).windows);
    expect(build({ ...small, sliding_window_pattern: 2 }).windows).toEqual([local, undefined, local, undefined, local, undefined, local]);
    const layer_types = ['full_attention', ...Array(6).fill('sliding_attention')];
    expect(build({ ...small, layer_types }).windows).toEqual([undefined, ...Array(6).fill(local)]);
  });

  test('is the same model in the fields of transformers 4 and 5', () => {
    // tests/reference/make_goldens.py gave transformers the old fields, and it saved these
    const golden = new URL('../../tests/reference/goldens/gemma3/config.json', import.meta.url);
    const five = JSON.parse(readFileSync(golden, 'utf8')) as Record<string, unknown>;
    const { rope_parameters, layer_types, ...rest } = five;
    expect([rope_parameters, layer_types]).not.toContain(undefined);
    const four = { ...rest, rope_theta: 10, rope_local_base_freq: 200, rope_scaling: { rope_type: 'linear', factor: 2.5 } };
    const model = (config: object) => Buffer.from(lower(build(config).outputs)).toString('base64');
    expect(model(four)).toBe(model(five));
    for (const change of [
      { rope_theta: 11 },
      { rope_local_base_freq: 201 },
      { rope_scaling: null },
      { rope_scaling: { rope_type: 'linear', factor: 2 } },
      { query_pre_attn_scalar: 8 },
      { final_logit_softcapping: 30 },
    ])
      expect(model({ ...four, ...change }), JSON.stringify(change)).not.toBe(model(four));
  });

  test('refuses what it would compute wrongly', () => {
    for (const change of [
      { model_type: 'gemma3' },
      { use_bidirectional_attention: true },
      // transformers would not read RoPE parameters that are not given by kind of layer
      { rope_parameters: { rope_type: 'linear', rope_theta: 1e6, factor: 8 } },
      { rope_parameters: { full_attention: { rope_type: 'linear', rope_theta: 1e6 } } },
      { rope_parameters: { full_attention: { rope_type: 'yarn', rope_theta: 1e6, factor: 8 } } },
      { sliding_window: 0 },
    ])
      expect(gemma3ConfigSchema.safeParse({ ...hub1b, ...change }).success, JSON.stringify(change)).toBe(false);
  });
});
