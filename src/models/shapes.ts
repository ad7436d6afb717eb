// Named model shapes as Hugging Face configs: what `llava-gemma init` writes, and what the name of a vision
// tower in an original LLaVA config.json stands for. Fields as in the config.json of the hub folder of that
// name. To add a shape, add an entry below.
import { UserError } from '../errors.ts';

/** A model's config.json. */
export type ModelConfig = Record<string, unknown> & { model_type: string };

export interface Shape {
  /** Shown by --help. */
  summary: string;
  config: ModelConfig;
  /** Folder of a matching tokenizer, if one is bundled. */
  tokenizer?: string;
}

const gemma = {
  architectures: ['GemmaForCausalLM'],
  model_type: 'gemma',
  attention_bias: false,
  head_dim: 256,
  hidden_act: 'gelu_pytorch_tanh',
  initializer_range: 0.02,
  max_position_embeddings: 8192,
  rms_norm_eps: 1e-6,
  rope_theta: 10000,
  tie_word_embeddings: true,
  vocab_size: 256000,
  pad_token_id: 0,
  eos_token_id: 1,
  bos_token_id: 2,
};

const gemma2b = {
  ...gemma,
  hidden_size: 2048,
  intermediate_size: 16384,
  num_hidden_layers: 18,
  num_attention_heads: 8,
  num_key_value_heads: 1,
};

const gemma7b = {
  ...gemma,
  hidden_size: 3072,
  intermediate_size: 24576,
  num_hidden_layers: 28,
  num_attention_heads: 16,
  num_key_value_heads: 16,
};

const gemma2 = {
  architectures: ['Gemma2ForCausalLM'],
  model_type: 'gemma2',
  attention_bias: false,
  attn_logit_softcapping: 50,
  final_logit_softcapping: 30,
  head_dim: 256,
  hidden_activation: 'gelu_pytorch_tanh',
  initializer_range: 0.02,
  max_position_embeddings: 8192,
  query_pre_attn_scalar: 256,
  rms_norm_eps: 1e-6,
  rope_theta: 10000,
  sliding_window: 4096,
  tie_word_embeddings: true,
  vocab_size: 256000,
  pad_token_id: 0,
  eos_token_id: 1,
  bos_token_id: 2,
};

const gemma2Of2b = {
  ...gemma2,
  hidden_size: 2304,
  intermediate_size: 9216,
  num_hidden_layers: 26,
  num_attention_heads: 8,
  num_key_value_heads: 4,
};

const gemma2Of9b = {
  ...gemma2,
  hidden_size: 3584,
  intermediate_size: 14336,
  num_hidden_layers: 42,
  num_attention_heads: 16,
  num_key_value_heads: 8,
};

const tinyGemma = {
  ...gemma,
  hidden_size: 32,
  intermediate_size: 64,
  num_hidden_layers: 2,
  num_attention_heads: 4,
  num_key_value_heads: 2,
  head_dim: 8,
  max_position_embeddings: 512,
  // 4,096 tokens and `<image>`, padded to a multiple of 64: transformers looks `<image>` up in the table
  vocab_size: 4160,
};

const clipVision = {
  architectures: ['CLIPVisionModel'],
  model_type: 'clip_vision_model',
  hidden_act: 'quick_gelu',
  layer_norm_eps: 1e-5,
  num_channels: 3,
};

const clipLarge336 = {
  ...clipVision,
  hidden_size: 1024,
  intermediate_size: 4096,
  num_hidden_layers: 24,
  num_attention_heads: 16,
  image_size: 336,
  patch_size: 14,
  projection_dim: 768,
};

const clipLarge = { ...clipLarge336, image_size: 224 };

const clipBase = {
  ...clipVision,
  hidden_size: 768,
  intermediate_size: 3072,
  num_hidden_layers: 12,
  num_attention_heads: 12,
  image_size: 224,
  patch_size: 16,
  projection_dim: 512,
};

const siglipSo400m = {
  architectures: ['SiglipVisionModel'],
  model_type: 'siglip_vision_model',
  hidden_act: 'gelu_pytorch_tanh',
  layer_norm_eps: 1e-6,
  num_channels: 3,
  hidden_size: 1152,
  intermediate_size: 4304,
  num_hidden_layers: 27,
  num_attention_heads: 16,
  image_size: 384,
  patch_size: 14,
};

const dinov2 = {
  architectures: ['Dinov2Model'],
  model_type: 'dinov2',
  hidden_act: 'gelu',
  layer_norm_eps: 1e-6,
  layerscale_value: 1,
  mlp_ratio: 4,
  num_channels: 3,
  qkv_bias: true,
  use_swiglu_ffn: false,
  // that of the position table
  image_size: 518,
  patch_size: 14,
};

const dinov2Base = { ...dinov2, hidden_size: 768, num_hidden_layers: 12, num_attention_heads: 12 };

const dinov2Large = { ...dinov2, hidden_size: 1024, num_hidden_layers: 24, num_attention_heads: 16 };

const tinyClip = {
  ...clipVision,
  hidden_size: 32,
  intermediate_size: 64,
  num_hidden_layers: 3,
  num_attention_heads: 2,
  image_size: 32,
  patch_size: 8,
  projection_dim: 32,
};

/**
 * LLaVA-Gemma as it was trained: mlp2x_gelu on patch rows of the second-to-last hidden state, scaled like
 * embedded text.
 */
function llavaGemma(vision: typeof clipLarge336, text: typeof gemma2b, imageToken: number): ModelConfig {
  return {
    architectures: ['LlavaForConditionalGeneration'],
    model_type: 'llava',
    vision_config: vision,
    text_config: text,
    image_token_index: imageToken,
    image_seq_length: (vision.image_size / vision.patch_size) ** 2,
    mm_projector_type: 'mlp2x_gelu',
    multimodal_projector_bias: true,
    projector_hidden_act: 'gelu',
    scale_image_features: true,
    tie_word_embeddings: true,
    vision_feature_layer: -2,
    vision_feature_select_strategy: 'default',
  };
}

export const shapes: Readonly<Record<string, Shape>> = {
  'llava-gemma-2b': { summary: 'Gemma 2B, CLIP ViT-L/14-336, mlp2x_gelu', config: llavaGemma(clipLarge336, gemma2b, 256000) },
  'llava-gemma-7b': { summary: 'Gemma 7B, CLIP ViT-L/14-336, mlp2x_gelu', config: llavaGemma(clipLarge336, gemma7b, 256000) },
  'llava-gemma-tiny': {
    summary: 'a toy for tests, with a tokenizer',
    config: llavaGemma(tinyClip, tinyGemma, 4096),
    tokenizer: 'assets/tokenizer',
  },
  'gemma-2b': { summary: 'Gemma 2B', config: gemma2b },
  'gemma-7b': { summary: 'Gemma 7B', config: gemma7b },
  'gemma-2-2b': { summary: 'Gemma 2 2B', config: gemma2Of2b },
  'gemma-2-9b': { summary: 'Gemma 2 9B', config: gemma2Of9b },
  'clip-vit-base-patch16': { summary: 'CLIP ViT-B/16, vision tower', config: clipBase },
  'clip-vit-large-patch14': { summary: 'CLIP ViT-L/14, vision tower', config: clipLarge },
  'clip-vit-large-patch14-336': { summary: 'CLIP ViT-L/14-336, vision tower', config: clipLarge336 },
  'siglip-so400m-patch14-384': { summary: 'SigLIP So400m/14-384, vision tower', config: siglipSo400m },
  'dinov2-base': { summary: 'DINOv2 ViT-B/14', config: dinov2Base },
  'dinov2-large': { summary: 'DINOv2 ViT-L/14', config: dinov2Large },
};

/** The shape of that name. UserError, listing all shapes, if there is none. */
export function shapeNamed(name: string): Shape {
  if (!Object.hasOwn(shapes, name))
    throw new UserError(`there is no shape ${JSON.stringify(name)}; the shapes are ${Object.keys(shapes).join(', ')}`);
  return shapes[name];
}
