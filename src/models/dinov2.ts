// DINOv2 (Oquab et al. 2023): a vision tower with a class token and LayerScale. It reads images of any size,
// because its position table is resized. Numerics as in transformers 5.18 models/dinov2/modeling_dinov2.py,
// names as in the files that it writes.

import { z } from 'zod';
import type { Dim } from '../graph/dims.ts';
import { add, concat, expand, mul, reshape, sigmoid, slice } from '../graph/primitives.ts';
import type { Tensor } from '../graph/tensor.ts';
import { ACTIVATION_NAMES } from '../nn/activations.ts';
import { layerNorm, linear } from '../nn/layers.ts';
import { normal, type Parameters, zeros } from '../nn/parameters.ts';
import { counts } from './config-fields.ts';
import { type BlockNames, encoder, mlp, patchEmbedding, resizePositions } from './encoder.ts';
import type { VisionFamily } from './family.ts';

/**
 * Hugging Face config.json. `image_size` is the one that the position table is made for; images may have
 * another.
 */
export const dinov2ConfigSchema = z.looseObject({
  model_type: z.literal('dinov2'),
  ...counts({ hidden_size: 768, num_hidden_layers: 12, num_attention_heads: 12, image_size: 224, patch_size: 14 }),
  mlp_ratio: z.number().positive().default(4),
  num_channels: z.literal(3).default(3),
  hidden_act: z.enum(ACTIVATION_NAMES).default('gelu'),
  layer_norm_eps: z.number().positive().default(1e-6),
  qkv_bias: z.boolean().default(true),
  layerscale_value: z.number().default(1),
  /** SwiGLU instead of the MLP, as in the giant model; hidden_act is then unused. */
  use_swiglu_ffn: z.boolean().default(false),
  /** Whether there is an embedding for patches that pretraining masks. */
  use_mask_token: z.boolean().default(true),
});
export type Dinov2Config = z.infer<typeof dinov2ConfigSchema>;

const DINOV2_BLOCKS: BlockNames = {
  blocks: 'encoder.layer',
  attentionNorm: 'norm1',
  query: 'attention.attention.query',
  key: 'attention.attention.key',
  value: 'attention.attention.value',
  output: 'attention.output.dense',
  mlpNorm: 'norm2',
};

/**
 * The tower up to block `layers` (default all): pixelValues float32 [images, 3, height, width] -> hidden
 * states, each [images, 1 + patches, hidden], the class token first; entry 0 is the embeddings, entry n after
 * block n, without the final norm. Names have no prefix.
 */
export function dinov2(p: Parameters, config: Dinov2Config, pixelValues: Tensor, layers = config.num_hidden_layers): Tensor[] {
  const { hidden_size: hidden, patch_size: patch } = config;
  const [images, , height, width] = pixelValues.dims as [Dim, number, number, number];
  const embedded = p.module('embeddings', (p) => {
    const patches = patchEmbedding(p, 'patch_embeddings.projection', pixelValues, { hidden, patch, bias: true });
    const classToken = p.get('cls_token', [1, 1, hidden], normal(0.02));
    const positions = Math.floor(config.image_size / patch) ** 2;
    const table = reshape(p.get('position_embeddings', [1, 1 + positions, hidden], normal(0.02)), [1 + positions, hidden]);
    const patchPositions = resizePositions(slice(table, 0, 1, 1 + positions), Math.floor(height / patch), Math.floor(width / patch));
    const placedClass = add(classToken, slice(table, 0, 0, 1));
    return concat([expand(placedClass, [images, 1, hidden]), add(patches, patchPositions)], 1);
  });
  return encoder(p, embedded, {
    names: DINOV2_BLOCKS,
    layers,
    heads: config.num_attention_heads,
    epsilon: config.layer_norm_eps,
    qkvBias: config.qkv_bias,
    layerScale: config.layerscale_value,
    feedForward: (p, x) => feedForward(p, config, x),
  });
}

function feedForward(p: Parameters, config: Dinov2Config, x: Tensor): Tensor {
  const size = Math.trunc(config.hidden_size * config.mlp_ratio);
  return config.use_swiglu_ffn ? swiGlu(p, x, swiGluSize(size)) : mlp(p, x, { size, activation: config.hidden_act });
}

/** Two thirds of the MLP's size, rounded up to a multiple of 8: about as many weights as the MLP has. */
const swiGluSize = (size: number) => Math.floor((Math.trunc((size * 2) / 3) + 7) / 8) * 8;

/**
 * SwiGLU (Shazeer 2020) under `mlp.`: splits weights_in x in halves, multiplies silu of the first by the
 * second, then weights_out.
 */
function swiGlu(p: Parameters, x: Tensor, size: number): Tensor {
  return p.module('mlp', (p) => {
    const halves = linear(p, 'weights_in', x, 2 * size, { bias: true });
    const gate = slice(halves, 2, 0, size);
    const gated = mul(mul(gate, sigmoid(gate)), slice(halves, 2, size, 2 * size));
    return linear(p, 'weights_out', gated, x.dims.at(-1) as number, { bias: true });
  });
}

/**
 * The norm after the last block, which LLaVA skips: [.., hidden] -> the same. Its row 0 is the pooled
 * feature.
 */
export function dinov2Norm(p: Parameters, config: Dinov2Config, hidden: Tensor): Tensor {
  return layerNorm(p, 'layernorm', hidden, config.layer_norm_eps);
}

/** What pretraining puts in place of masked patches, [1, hidden]; undefined if the config has none. */
export function dinov2MaskToken(p: Parameters, config: Dinov2Config): Tensor | undefined {
  return config.use_mask_token ? p.get('embeddings.mask_token', [1, config.hidden_size], zeros) : undefined;
}

/** DINOv2 as an encoder of LLaVA. */
export const dinov2Family: VisionFamily<Dinov2Config> = {
  name: 'DINOv2',
  prefixTokens: 1,
  takesAnySize: true,
  hiddenStates: dinov2,
  afterBlocks(p, config, last) {
    dinov2Norm(p, config, last);
    dinov2MaskToken(p, config);
  },
};
