// Numerics are compared with transformers in tests/goldens.test.ts, packing in data/packing.test.ts, masks in
// masks.test.ts; this file tests configs, names and sizes.

import { describe, expect, test } from 'vitest';
import { UserError } from '../errors.ts';
import { input } from '../graph/tensor.ts';
import { Parameters } from '../nn/parameters.ts';
import { connectorTypeSchema } from './connector.ts';
import {
  imageRows,
  imageSize,
  imageTokenCount,
  type LlavaConfig,
  llavaConfigSchema,
  llavaParameters,
  visionFeatureSize,
  visionFeatures,
} from './llava.ts';

/**
 * CLIP ViT-L/14-336 and Gemma 2B, as in the hub's llava-gemma-2b: fields that equal a default are left out.
 */
const hub = {
  architectures: ['LlavaForConditionalGeneration'],
  image_token_index: 256000,
  model_type: 'llava',
  projector_hidden_act: 'gelu',
  text_config: {
    head_dim: 256,
    hidden_act: 'gelu_pytorch_tanh',
    hidden_activation: 'gelu',
    hidden_size: 2048,
    intermediate_size: 16384,
    max_position_embeddings: 8192,
    model_type: 'gemma',
    num_attention_heads: 8,
    num_hidden_layers: 18,
    num_key_value_heads: 1,
    vocab_size: 256064,
  },
  vision_config: {
    hidden_size: 1024,
    image_size: 336,
    intermediate_size: 4096,
    model_type: 'clip_vision_model',
    num_attention_heads: 16,
    num_hidden_layers: 24,
    patch_size: 14,
    projection_dim: 768,
    vocab_size: 32000,
  },
  vision_feature_layer: -2,
  vision_feature_select_strategy: 'default',
};
const configured = (changes: Partial<LlavaConfig> = {}) => llavaConfigSchema.parse({ ...hub, ...changes });

const siglip = { model_type: 'siglip_vision_model', image_size: 384, patch_size: 14 };
const dinov2 = { model_type: 'dinov2', image_size: 518, patch_size: 14 };
const over = (vision_config: object, changes: object = {}) => llavaConfigSchema.parse({ ...hub, vision_config, ...changes });

const sizeOf = (config: LlavaConfig, module: string) =>
  llavaParameters(config)
    .filter(({ name }) => name.startsWith(`${module}.`))
    .reduce((sum, { dims }) => sum + dims.reduce((a, b) => a * b, 1), 0);

const pixels = (config: LlavaConfig) => input('pixel_values', 'float32', ['images', 3, imageSize(config), imageSize(config)]);

describe('llava', () => {
  test('has the parameters of LLaVA-Gemma 2B', () => {
    const config = configured();
    expect(sizeOf(config, 'vision_tower')).toBe(303_507_456);
    expect(sizeOf(config, 'multi_modal_projector')).toBe(6_295_552);
    // 64 more rows than Gemma's, one of which is <image>
    expect(sizeOf(config, 'language_model')).toBe(2_506_172_416 + 64 * 2048);
    expect(config.scale_image_features).toBe(false);
  });

  test('counts image tokens and feature widths', () => {
    expect(imageTokenCount(configured())).toBe(24 ** 2);
    expect(imageTokenCount(configured({ vision_feature_select_strategy: 'full' }))).toBe(24 ** 2 + 1);
    const several = configured({ vision_feature_layer: [-2, 3], vision_feature_select_strategy: 'full' });
    expect(visionFeatureSize(several)).toBe(2048);
    expect(visionFeatures(new Parameters(), several, pixels(several)).dims).toEqual(['images', 577, 2048]);
  });

  test('counts what each encoder gives', () => {
    const features = (config: LlavaConfig) => visionFeatures(new Parameters(), config, pixels(config)).dims[1];
    const cases: [LlavaConfig, number][] = [
      [over(siglip, { vision_feature_select_strategy: 'full' }), 27 ** 2],
      // like transformers, which takes SigLIP's first patch for a class token
      [over(siglip, { vision_feature_select_strategy: 'default' }), 27 ** 2 - 1],
      [over(dinov2), 37 ** 2],
      [over(dinov2, { image_size: 336 }), 24 ** 2],
      [over(dinov2, { image_size: 224, vision_feature_select_strategy: 'full' }), 16 ** 2 + 1],
    ];
    for (const [config, tokens] of cases) {
      expect(imageTokenCount(config)).toBe(tokens);
      expect(features(config)).toBe(tokens);
    }
  });

  test('shows no encoder a picture that it cannot take', () => {
    expect(imageSize(over(dinov2, { image_size: 336 }))).toBe(336);
    expect(imageSize(over(siglip, { image_size: 384 }))).toBe(384);
    expect(() => imageSize(over(siglip, { image_size: 224 }))).toThrow(UserError);
    expect(() => imageTokenCount(configured({ image_size: 224 }))).toThrow(
      'pictures of 224 x 224 pixels do not fit the encoder, which takes 336 x 336',
    );
  });

  test('builds no encoder layer behind the last one that it reads', () => {
    const last = (layer: number | [number, ...number[]]) => {
      const config = configured({ vision_feature_layer: layer });
      const p = new Parameters();
      visionFeatures(p, config, pixels(config));
      return Math.max(...p.list().map(({ name }) => Number(/encoder\.layers\.(\d+)\./.exec(name)?.[1] ?? -1)));
    };
    expect([last(-2), last(-1), last(24), last(0), last([3, -4])]).toEqual([22, 23, 23, -1, 20]);
    expect(() => last(25)).toThrow(UserError);
    expect(() => last(-26)).toThrow('vision_feature_layer -26 is outside');
  });

  test('lists the whole encoder among its parameters, read or not', () => {
    const names = llavaParameters(configured({ vision_feature_layer: 0 })).map(({ name }) => name);
    expect(names).toContain('vision_tower.vision_model.encoder.layers.23.mlp.fc2.bias');
    expect(names).toContain('vision_tower.vision_model.post_layernorm.weight');
    expect(new Set(names).size).toBe(names.length);
  });

  test('a folder may lack what is never run, and nothing else', () => {
    const optional = (config: LlavaConfig) => llavaParameters(config).flatMap(({ name, optional }) => (optional ? name : []));
    expect(
      optional(over(siglip)).every((name) => /^vision_tower\.vision_model\.(encoder\.layers\.11|post_layernorm|head)\./.test(name)),
    ).toBe(true);
    expect(optional(over(siglip)).length).toBe(16 + 2 + 11);
    expect(optional(over(dinov2, { vision_feature_layer: -1 })).sort()).toEqual([
      'vision_tower.embeddings.mask_token',
      'vision_tower.layernorm.bias',
      'vision_tower.layernorm.weight',
    ]);
  });

  test('has connectors of any depth', () => {
    const layers = (type: string) => {
      const config = configured({ mm_projector_type: type });
      const p = new Parameters();
      const rows = imageRows(p, config, { features: input('features', 'float32', ['images', 576, 1024]) });
      expect(rows.dims).toEqual(['576*images', 2048]);
      return p.list().map(({ name, dims }) => [name.replace('multi_modal_projector.', ''), dims.join('x')]);
    };
    expect(layers('linear')).toEqual([
      ['linear_1.weight', '2048x1024'],
      ['linear_1.bias', '2048'],
    ]);
    expect(layers('mlp2x_gelu').map(([name]) => name)).toEqual(['linear_1.weight', 'linear_1.bias', 'linear_2.weight', 'linear_2.bias']);
    expect(layers('mlp3x_gelu').at(-2)).toEqual(['linear_3.weight', '2048x2048']);
    expect(layers('mlp1x_gelu')).toEqual(layers('linear'));
    for (const type of ['mlp0x_gelu', 'mlp2x_relu', 'mlp-2x_gelu', 'linear2', ''])
      expect(connectorTypeSchema.safeParse(type).success, type).toBe(false);
  });

  test('says which side pictures must have', () => {
    const config = configured();
    const small = input('pixel_values', 'float32', ['images', 3, 224, 224]);
    expect(() => visionFeatures(new Parameters(), config, small)).toThrow('pixels must be 336 x 336');
  });
});
