import { describe, expect, test } from 'vitest';
import { UserError } from '../errors.ts';
import { fromHubConfig, isNativeConfig } from './hub-config.ts';
import { llavaConfigSchema } from './llava.ts';
import { shapeNamed } from './shapes.ts';

/** config.json of Intel/llava-gemma-2b before its conversion, reduced to the relevant fields. */
const native = {
  _name_or_path: 'google/gemma-2b-it',
  architectures: ['LlavaGemmaForCausalLM'],
  attention_bias: false,
  bos_token_id: 2,
  eos_token_id: 1,
  freeze_mm_mlp_adapter: false,
  head_dim: 256,
  hidden_act: 'gelu',
  hidden_size: 2048,
  image_aspect_ratio: 'pad',
  initializer_range: 0.02,
  intermediate_size: 16384,
  max_position_embeddings: 8192,
  mm_hidden_size: 1024,
  mm_projector_type: 'mlp2x_gelu',
  mm_use_im_patch_token: false,
  mm_use_im_start_end: false,
  mm_vision_select_feature: 'patch',
  mm_vision_select_layer: -2,
  mm_vision_tower: 'openai/clip-vit-large-patch14-336',
  model_type: 'llava_gemma',
  num_attention_heads: 8,
  num_hidden_layers: 18,
  num_key_value_heads: 1,
  pad_token_id: 0,
  rms_norm_eps: 1e-6,
  rope_theta: 10000.0,
  tokenizer_model_max_length: 2048,
  torch_dtype: 'bfloat16',
  transformers_version: '4.39.0.dev0',
  tune_mm_mlp_adapter: false,
  use_cache: true,
  use_mm_proj: true,
  vocab_size: 256000,
};
const parsed = (config: unknown, parts = {}) => llavaConfigSchema.parse(fromHubConfig(config, parts));

describe('the config of an original LLaVA folder', () => {
  test('becomes that of a Hugging Face folder, image rows scaled', () => {
    expect(isNativeConfig(native)).toBe(true);
    const config = parsed(native);
    expect(config).toMatchObject({
      model_type: 'llava',
      image_token_index: 256000,
      mm_projector_type: 'mlp2x_gelu',
      vision_feature_layer: -2,
      vision_feature_select_strategy: 'default',
      scale_image_features: true,
      vision_config: { model_type: 'clip_vision_model', hidden_size: 1024, num_hidden_layers: 24, image_size: 336, patch_size: 14 },
      text_config: { model_type: 'gemma', hidden_size: 2048, intermediate_size: 16384, num_hidden_layers: 18, vocab_size: 256000 },
    });
    expect(Object.keys(config.text_config).filter((name) => /^(mm_|image_|tokenizer_|use_mm|tune_|freeze_)/.test(name))).toEqual([]);
    expect(isNativeConfig(config)).toBe(false);
  });

  test('says what else LLaVA had to choose', () => {
    expect(parsed({ ...native, mm_vision_select_feature: 'cls_patch', mm_vision_select_layer: -1 })).toMatchObject({
      vision_feature_layer: -1,
      vision_feature_select_strategy: 'full',
    });
    const { mm_projector_type: _, ...oldest } = native;
    expect(parsed(oldest).mm_projector_type).toBe('linear');
    expect(parsed(native, { imageTokenId: 256001 }).image_token_index).toBe(256001);
    // named by its class or by its model_type
    const { architectures: __, ...unnamed } = native;
    expect(parsed(unnamed).text_config.model_type).toBe('gemma');
    expect(parsed({ ...native, model_type: 'llava_llama' }).text_config.model_type).toBe('gemma');
  });

  test('takes the shape of the vision tower from its own config, or from its name', () => {
    const tiny = shapeNamed('llava-gemma-tiny').config.vision_config;
    const unknown = { ...native, mm_vision_tower: '/home/me/towers/mine', mm_hidden_size: 32 };
    expect(parsed(unknown, { visionConfig: tiny }).vision_config).toMatchObject({ hidden_size: 32, image_size: 32 });
    const siglip = { model_type: 'siglip_vision_model', hidden_size: 32 };
    expect(fromHubConfig(unknown, { visionConfig: siglip })).toMatchObject({ vision_feature_select_strategy: 'full' });
    expect(() => fromHubConfig(unknown)).toThrow('mm_vision_tower: the shape of "/home/me/towers/mine" is not known here');
    for (const mm_vision_tower of ['google/gemma-2b', 'constructor', null])
      expect(() => fromHubConfig({ ...native, mm_vision_tower })).toThrow('is not known here');
    expect(() => fromHubConfig({ ...unknown, mm_hidden_size: 1024 }, { visionConfig: tiny })).toThrow(
      'mm_hidden_size is 1024: but the vision tower has hidden_size 32',
    );
  });

  test.each([
    [{ mm_use_im_start_end: true }, 'mm_use_im_start_end is true'],
    [{ image_aspect_ratio: 'anyres' }, 'image_aspect_ratio is "anyres"'],
    [{ mm_vision_select_feature: 'cls' }, 'mm_vision_select_feature is "cls": it must be patch or cls_patch'],
  ])('is refused with %j', (changes, message) => {
    expect(() => fromHubConfig({ ...native, ...changes })).toThrow(UserError);
    expect(() => fromHubConfig({ ...native, ...changes })).toThrow(message);
  });

  test('of another language model or connector fails where it differs', () => {
    const issue = (changes: object) =>
      llavaConfigSchema.safeParse(fromHubConfig({ ...native, ...changes })).error?.issues[0].path.join('.');
    expect(issue({ architectures: ['LlavaLlamaForCausalLM'], model_type: 'llava' })).toBe('text_config.model_type');
    expect(issue({ mm_projector_type: 'ldpnetv2' })).toBe('mm_projector_type');
  });
});

describe('the config of a Hugging Face folder', () => {
  const hub = (version: string | undefined, family: string) => ({
    model_type: 'llava',
    vision_config: {},
    text_config: { model_type: family },
    transformers_version: version,
  });

  test.each([
    ['4.39.0.dev0', 'gemma', true],
    ['4.57.6', 'gemma2', true],
    ['4.57.6', 'gemma3_text', false],
    ['5.18.0', 'gemma', undefined],
    [undefined, 'gemma', undefined],
  ])('written by transformers %s with %s: image rows scaled is %s', (version, family, scaled) => {
    expect((fromHubConfig(hub(version, family)) as { scale_image_features?: boolean }).scale_image_features).toBe(scaled);
  });

  test('is left alone where it says so itself, and so are those of other models', () => {
    const own = { ...hub('4.39.0', 'gemma'), scale_image_features: false };
    expect(fromHubConfig(own)).toEqual(own);
    for (const other of [null, 3, [], { model_type: 'gemma', transformers_version: '4.39.0' }]) expect(fromHubConfig(other)).toBe(other);
  });
});
