// Numerics are compared with transformers in tests/goldens.test.ts; this file tests configs, names and sizes.

import { describe, expect, test } from 'vitest';
import { input } from '../graph/tensor.ts';
import { Parameters } from '../nn/parameters.ts';
import {
  patchesPerSide,
  VISION_MODEL_TYPES,
  visionConfigSchema,
  visionFolderSchema,
  visionHiddenStates,
  visionParameters,
} from './vision.ts';

const clip = { hidden_size: 8, intermediate_size: 6, num_hidden_layers: 2, num_attention_heads: 2, image_size: 12, patch_size: 4 };
const toy = { hidden_size: 8, intermediate_size: 6, num_hidden_layers: 2, num_attention_heads: 2, image_size: 14, patch_size: 4 };
const so400m = {
  model_type: 'siglip_vision_model',
  hidden_size: 1152,
  intermediate_size: 4304,
  num_hidden_layers: 27,
  num_attention_heads: 16,
  image_size: 384,
  patch_size: 14,
};
const dinov2Large = { model_type: 'dinov2', hidden_size: 1024, num_hidden_layers: 24, num_attention_heads: 16, image_size: 518 };

const parametersOf = (config: object) => {
  const p = new Parameters();
  visionParameters(p, visionConfigSchema.parse(config));
  return p.list();
};

describe('visionConfigSchema', () => {
  test('reads each family by its model_type, and CLIP where there is none', () => {
    expect(visionConfigSchema.parse(clip)).toMatchObject({
      model_type: 'clip_vision_model',
      layer_norm_eps: 1e-5,
      hidden_act: 'quick_gelu',
    });
    // a folder of the base model has no more fields than this
    expect(visionConfigSchema.parse({ model_type: 'siglip_vision_model' })).toMatchObject({
      hidden_size: 768,
      image_size: 224,
      patch_size: 16,
      hidden_act: 'gelu_pytorch_tanh',
      layer_norm_eps: 1e-6,
    });
    expect(visionConfigSchema.parse({ model_type: 'dinov2' })).toMatchObject({ patch_size: 14, hidden_act: 'gelu', layer_norm_eps: 1e-6 });
  });

  test('says what is supported when asked for something else', () => {
    for (const model_type of ['vit', 'siglip', 'siglip2_vision_model', 3, null]) {
      const { error } = visionConfigSchema.safeParse({ ...clip, model_type });
      const message = 'must be one of clip_vision_model, siglip_vision_model, dinov2';
      expect(error?.issues).toMatchObject([{ path: ['model_type'], message }]);
    }
  });

  test('names the field of the family that was asked for', () => {
    const { error } = visionConfigSchema.safeParse({ model_type: 'dinov2', mlp_ratio: 'four' });
    expect(error?.issues.map(({ path }) => path.join('.'))).toEqual(['mlp_ratio']);
  });
});

test.each(VISION_MODEL_TYPES)('%s names sizes that do not fit each other', (model_type) => {
  const problem = (fields: object) => visionConfigSchema.safeParse({ model_type, ...fields }).error?.issues[0];
  expect(problem({ hidden_size: 16 })).toMatchObject({
    path: ['num_attention_heads'],
    message: 'must divide hidden_size, which is 16; it is 12',
  });
  expect(problem({ image_size: 8 })).toMatchObject({ path: ['patch_size'] });
});

test('a whole CLIP or SigLIP gives its vision part', () => {
  const whole = { model_type: 'siglip', text_config: { hidden_size: 1152 }, vision_config: { hidden_size: 1152, num_attention_heads: 16 } };
  expect(visionFolderSchema.parse(whole)).toMatchObject({ model_type: 'siglip_vision_model', hidden_size: 1152, num_hidden_layers: 12 });
  expect(visionFolderSchema.parse({ model_type: 'clip', vision_config: clip })).toMatchObject({
    model_type: 'clip_vision_model',
    image_size: 12,
  });
  expect(visionFolderSchema.parse({ ...toy, model_type: 'siglip_vision_model' })).toMatchObject(toy);
  expect(visionFolderSchema.safeParse({ model_type: 'siglip2', vision_config: whole.vision_config }).success).toBe(false);
});

describe('parameters', () => {
  const count = (config: object) => parametersOf(config).reduce((sum, { dims }) => sum + dims.reduce((a, b) => a * b, 1), 0);
  const names = (config: object) => parametersOf(config).map(({ name }) => name);

  test('are as many as those of the released models', () => {
    expect(count({ model_type: 'siglip_vision_model' })).toBe(92_884_224);
    expect(count(so400m)).toBe(428_225_600);
    expect(count({ ...so400m, vision_use_head: false })).toBe(412_987_248);
    expect(count({ model_type: 'dinov2', image_size: 518 })).toBe(86_580_480);
    expect(count(dinov2Large)).toBe(304_368_640);
    const giant = { hidden_size: 1536, num_hidden_layers: 40, num_attention_heads: 24, use_swiglu_ffn: true };
    expect(count({ ...dinov2Large, ...giant })).toBe(1_136_480_768);
  });

  test('have the names of hub files', () => {
    expect(names({ ...toy, model_type: 'siglip_vision_model' })).toEqual(
      expect.arrayContaining([
        'vision_model.embeddings.patch_embedding.bias',
        'vision_model.encoder.layers.1.self_attn.out_proj.weight',
        'vision_model.post_layernorm.weight',
        'vision_model.head.probe',
        'vision_model.head.attention.in_proj_weight',
      ]),
    );
    const dinov2 = { ...toy, model_type: 'dinov2' };
    expect(names(dinov2)).toEqual(
      expect.arrayContaining([
        'embeddings.cls_token',
        'embeddings.mask_token',
        'embeddings.patch_embeddings.projection.weight',
        'encoder.layer.1.attention.output.dense.bias',
        'encoder.layer.1.layer_scale2.lambda1',
        'encoder.layer.1.mlp.fc1.weight',
        'layernorm.bias',
      ]),
    );
    const swiGlu = names({ ...dinov2, use_swiglu_ffn: true, use_mask_token: false, qkv_bias: false });
    expect(swiGlu).toContain('encoder.layer.0.mlp.weights_in.weight');
    expect(swiGlu).not.toContain('encoder.layer.0.mlp.fc1.weight');
    expect(swiGlu).not.toContain('embeddings.mask_token');
    expect(swiGlu).not.toContain('encoder.layer.0.attention.attention.key.bias');
  });
});

describe('pictures', () => {
  const hidden = (config: object, height: number, width = height) =>
    visionHiddenStates(new Parameters(), visionConfigSchema.parse(config), input('pixel_values', 'float32', ['images', 3, height, width]));

  test('have one row a whole patch, behind a class token but for SigLIP', () => {
    expect(hidden(clip, 12).map(({ dims }) => dims[1])).toEqual([10, 10, 10]);
    expect(hidden({ ...toy, model_type: 'siglip_vision_model' }, 14)[0].dims).toEqual(['images', 9, 8]);
    expect(hidden(so400m, 384)[0].dims).toEqual(['images', 729, 1152]);
    expect(patchesPerSide(visionConfigSchema.parse(so400m), 384)).toBe(27);
  });

  test('have one size, but any for DINOv2', () => {
    expect(() => hidden(clip, 16)).toThrow('pixels must be 12 x 12');
    expect(() => hidden({ ...toy, model_type: 'siglip_vision_model' }, 12)).toThrow('pixels must be 14 x 14');
    expect(hidden(dinov2Large, 224)[0].dims).toEqual(['images', 257, 1024]);
    expect(hidden(dinov2Large, 336)[0].dims).toEqual(['images', 577, 1024]);
    expect(hidden({ ...toy, model_type: 'dinov2' }, 9, 21)[0].dims).toEqual(['images', 11, 8]);
  });
});
