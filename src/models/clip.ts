// CLIP (Radford et al. 2021): vision tower and, for contrastive pretraining, text tower. Numerics and names
// as in transformers 5.18 models/clip/modeling_clip.py (`pre_layrnorm` is spelled that way there).

import { z } from 'zod';
import { maskBias } from '../graph/composites.ts';
import { add, concat, equal, expand, gather, lessOrEqual, logicalAnd, maskedGather, reshape, slice } from '../graph/primitives.ts';
import { constant, type Tensor } from '../graph/tensor.ts';
import { ACTIVATION_NAMES, type ActivationName } from '../nn/activations.ts';
import { layerNorm, linear } from '../nn/layers.ts';
import { normal, type Parameters } from '../nn/parameters.ts';
import { counts } from './config-fields.ts';
import { CLIP_BLOCKS, checkSquare, encoder, mlp, patchEmbedding } from './encoder.ts';
import type { VisionFamily } from './family.ts';

/** Hugging Face config.json, as of the two below; defaults are those of transformers' classes. */
export const clipVisionConfigSchema = z.looseObject({
  model_type: z.literal('clip_vision_model').optional().default('clip_vision_model'),
  ...counts({
    hidden_size: 768,
    intermediate_size: 3072,
    num_hidden_layers: 12,
    num_attention_heads: 12,
    image_size: 224,
    patch_size: 32,
  }),
  num_channels: z.literal(3).default(3),
  hidden_act: z.enum(ACTIVATION_NAMES).default('quick_gelu'),
  layer_norm_eps: z.number().positive().default(1e-5),
});
export type ClipVisionConfig = z.infer<typeof clipVisionConfigSchema>;

export const clipTextConfigSchema = z.looseObject({
  model_type: z.literal('clip_text_model').default('clip_text_model'),
  ...counts({
    vocab_size: 49_408,
    hidden_size: 512,
    intermediate_size: 2048,
    num_hidden_layers: 12,
    num_attention_heads: 8,
    max_position_embeddings: 77,
  }),
  hidden_act: z.enum(ACTIVATION_NAMES).default('quick_gelu'),
  layer_norm_eps: z.number().positive().default(1e-5),
  /** The text's feature is read where this id first occurs. */
  eos_token_id: z.int().nonnegative().default(49_407),
});
export type ClipTextConfig = z.infer<typeof clipTextConfigSchema>;

export const clipConfigSchema = z.looseObject({
  model_type: z.literal('clip').default('clip'),
  vision_config: clipVisionConfigSchema.prefault({}),
  text_config: clipTextConfigSchema.prefault({}),
  ...counts({ projection_dim: 512 }),
  logit_scale_init_value: z.number().default(2.6592),
});
export type ClipConfig = z.infer<typeof clipConfigSchema>;

interface TowerConfig {
  hidden_size: number;
  intermediate_size: number;
  num_hidden_layers: number;
  num_attention_heads: number;
  hidden_act: ActivationName;
  layer_norm_eps: number;
}

/** Blocks of either tower, with fresh weights as in Hugging Face's CLIPPreTrainedModel._init_weights. */
function clipEncoder(p: Parameters, config: TowerConfig, x: Tensor, layers: number, bias?: Tensor): Tensor[] {
  const { hidden_size: hidden, intermediate_size: size, hidden_act: activation } = config;
  const inStd = (2 * config.num_hidden_layers * hidden) ** -0.5;
  return encoder(p, x, {
    names: CLIP_BLOCKS,
    layers,
    heads: config.num_attention_heads,
    epsilon: config.layer_norm_eps,
    bias,
    std: { qkv: inStd, output: hidden ** -0.5 },
    feedForward: (p, x) => mlp(p, x, { size, activation, std: { fc1: (2 * hidden) ** -0.5, fc2: inStd } }),
  });
}

/**
 * Vision tower up to block `layers` (default all): pixelValues float32 [images, 3, size, size] -> hidden
 * states, each [images, 1 + patches, hidden]; entry 0 is after pre_layrnorm, entry n after block n. Names
 * begin with `vision_model.`. ShapeError for pixels of another size.
 */
export function clipVision(p: Parameters, config: ClipVisionConfig, pixelValues: Tensor, layers = config.num_hidden_layers): Tensor[] {
  return p.module('vision_model', (p) => {
    const { hidden_size: hidden, patch_size: patch } = config;
    const images = pixelValues.dims[0];
    checkSquare(pixelValues, config.image_size);
    const patches = patchEmbedding(p, 'embeddings.patch_embedding', pixelValues, { hidden, patch });
    const tokens = (patches.dims[1] as number) + 1;
    const classToken = expand(reshape(p.get('embeddings.class_embedding', [hidden], normal(0.02)), [1, 1, hidden]), [images, 1, hidden]);
    const positions = p.get('embeddings.position_embedding.weight', [tokens, hidden], normal(0.02));
    const embedded = layerNorm(p, 'pre_layrnorm', add(concat([classToken, patches], 1), positions), config.layer_norm_eps);
    return clipEncoder(p, config, embedded, layers);
  });
}

/** post_layernorm, which LLaVA skips: [.., hidden] -> the same. */
export function clipPostNorm(p: Parameters, config: ClipVisionConfig, hidden: Tensor): Tensor {
  return p.module('vision_model', (p) => layerNorm(p, 'post_layernorm', hidden, config.layer_norm_eps));
}

/** Projected feature of the class token: [images, 1 + patches, hidden] -> [images, projection_dim]. */
export function clipImageEmbeds(p: Parameters, config: ClipConfig, lastHidden: Tensor): Tensor {
  const [images, , hidden] = lastHidden.dims;
  const pooled = clipPostNorm(p, config.vision_config, reshape(slice(lastHidden, 1, 0, 1), [images, hidden]));
  return linear(p, 'visual_projection', pooled, config.projection_dim, { std: (hidden as number) ** -0.5 });
}

export interface ClipTextInputs {
  /** int32 [texts, tokens]. */
  inputIds: Tensor;
  /** int32 [texts, tokens]: 1 for text, 0 for padding. */
  attentionMask: Tensor;
  /** int32 [1, tokens]: 0, 1, 2, ... */
  positionIds: Tensor;
  /** bool [texts, tokens]: true exactly at each text's first end token. */
  endMask: Tensor;
}

/**
 * Text tower: projected feature at the end token, [texts, projection_dim]. Causal attention as in the
 * original.
 */
export function clipTextEmbeds(
  p: Parameters,
  config: ClipConfig,
  { inputIds, attentionMask, positionIds, endMask }: ClipTextInputs,
): Tensor {
  const text = config.text_config;
  const [texts, tokens] = inputIds.dims;
  const last = p.module('text_model', (p) => {
    const tokenRows = gather(p.get('embeddings.token_embedding.weight', [text.vocab_size, text.hidden_size], normal(0.02)), inputIds);
    const positionRows = gather(
      p.get('embeddings.position_embedding.weight', [text.max_position_embeddings, text.hidden_size], normal(0.02)),
      positionIds,
    );
    const causal = lessOrEqual(reshape(positionIds, [1, 1, 1, tokens]), reshape(positionIds, [1, 1, tokens, 1]));
    const present = equal(reshape(attentionMask, [texts, 1, 1, tokens]), constant(1, [], 'int32'));
    const bias = maskBias(logicalAnd(causal, present));
    const hidden = clipEncoder(p, text, add(tokenRows, positionRows), text.num_hidden_layers, bias).at(-1)!;
    return layerNorm(p, 'final_layer_norm', hidden, text.layer_norm_eps);
  });
  const pooled = maskedGather(last, endMask, texts);
  return linear(p, 'text_projection', pooled, config.projection_dim, { std: text.hidden_size ** -0.5 });
}

/** The learned temperature on a log scale: a scalar. */
export function clipLogitScale(p: Parameters, config: ClipConfig): Tensor {
  return p.get('logit_scale', [], { kind: 'constant', value: config.logit_scale_init_value });
}

/**
 * Patch rows of a hidden state without the class token: [images, 1 + patches, hidden] ->
 * [images, patches, hidden].
 */
export function patchRows(hidden: Tensor): Tensor {
  return slice(hidden, 1, 1, hidden.dims[1] as number);
}

/** The vision tower as an encoder of LLaVA. */
export const clipFamily: VisionFamily<ClipVisionConfig> = {
  name: 'CLIP',
  prefixTokens: 1,
  takesAnySize: false,
  hiddenStates: clipVision,
  afterBlocks: clipPostNorm,
};
