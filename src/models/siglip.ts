// SigLIP (Zhai et al. 2023): vision tower. No class token and no norm before the blocks; the pooled feature
// is the attention output of a learned query. Numerics and names as in transformers 5.18
// models/siglip/modeling_siglip.py and torch.nn.MultiheadAttention.

import { z } from 'zod';
import { attention } from '../graph/composites.ts';
import { add, expand, matmul, reshape, slice } from '../graph/primitives.ts';
import type { Tensor } from '../graph/tensor.ts';
import { ACTIVATION_NAMES } from '../nn/activations.ts';
import { layerNorm, linear, mergeHeads, splitHeads } from '../nn/layers.ts';
import { normal, type Parameters, zeros } from '../nn/parameters.ts';
import { counts } from './config-fields.ts';
import { CLIP_BLOCKS, checkSquare, encoder, mlp, patchEmbedding } from './encoder.ts';
import type { VisionFamily } from './family.ts';

/** Hugging Face config.json; hub folders leave out fields that equal the base model's. */
export const siglipVisionConfigSchema = z.looseObject({
  model_type: z.literal('siglip_vision_model'),
  ...counts({
    hidden_size: 768,
    intermediate_size: 3072,
    num_hidden_layers: 12,
    num_attention_heads: 12,
    image_size: 224,
    patch_size: 16,
  }),
  num_channels: z.literal(3).default(3),
  hidden_act: z.enum(ACTIVATION_NAMES).default('gelu_pytorch_tanh'),
  layer_norm_eps: z.number().positive().default(1e-6),
  /** Whether there is a pooling head, which LLaVA does not use. */
  vision_use_head: z.boolean().default(true),
});
export type SiglipVisionConfig = z.infer<typeof siglipVisionConfigSchema>;

// Xavier standard deviations, with which Hugging Face draws uniformly
const feedForward = (config: SiglipVisionConfig) => (p: Parameters, x: Tensor) => {
  const std = (2 / (config.hidden_size + config.intermediate_size)) ** 0.5;
  return mlp(p, x, { size: config.intermediate_size, activation: config.hidden_act, std: { fc1: std, fc2: std } });
};

/**
 * Vision tower up to block `layers` (default all): pixelValues float32 [images, 3, size, size] -> hidden
 * states, each [images, patches, hidden]; entry 0 is the embedded patches, entry n after block n. Names begin
 * with `vision_model.`. ShapeError for pixels of another size.
 */
export function siglipVision(p: Parameters, config: SiglipVisionConfig, pixelValues: Tensor, layers = config.num_hidden_layers): Tensor[] {
  return p.module('vision_model', (p) => {
    const { hidden_size: hidden, patch_size: patch } = config;
    const std = hidden ** -0.5;
    checkSquare(pixelValues, config.image_size);
    const patches = patchEmbedding(p, 'embeddings.patch_embedding', pixelValues, { hidden, patch, bias: true });
    const positions = p.get('embeddings.position_embedding.weight', [patches.dims[1] as number, hidden], normal(std));
    return encoder(p, add(patches, positions), {
      names: CLIP_BLOCKS,
      layers,
      heads: config.num_attention_heads,
      epsilon: config.layer_norm_eps,
      std: { qkv: std, output: std },
      feedForward: feedForward(config),
    });
  });
}

/**
 * What follows the last block, which LLaVA skips: hidden [images, patches, hidden] -> the rows after
 * post_layernorm (same shape) and, if the config has a head, the pooled feature [images, hidden].
 */
export function siglipPool(p: Parameters, config: SiglipVisionConfig, hidden: Tensor): { lastHidden: Tensor; pooled?: Tensor } {
  return p.module('vision_model', (p) => {
    const lastHidden = layerNorm(p, 'post_layernorm', hidden, config.layer_norm_eps);
    return config.vision_use_head ? { lastHidden, pooled: attentionPool(p, config, lastHidden) } : { lastHidden };
  });
}

/**
 * Attention of one learned query over all rows, then an MLP: [images, patches, hidden] -> [images, hidden].
 */
function attentionPool(p: Parameters, config: SiglipVisionConfig, rows: Tensor): Tensor {
  const { hidden_size: hidden, num_attention_heads: heads } = config;
  const images = rows.dims[0];
  const std = hidden ** -0.5;
  return p.module('head', (p) => {
    const probe = expand(p.get('probe', [1, 1, hidden], normal((2 / (hidden + 1)) ** 0.5)), [images, 1, hidden]);
    const residual = p.module('attention', (p) => {
      const weight = p.get('in_proj_weight', [3 * hidden, hidden], normal((2 / (4 * hidden)) ** 0.5));
      const bias = p.get('in_proj_bias', [3 * hidden], zeros);
      // the rows of queries, keys and values are stacked
      const project = (x: Tensor, part: number) => {
        const [from, to] = [part * hidden, (part + 1) * hidden];
        return splitHeads(add(matmul(x, slice(weight, 0, from, to), { transB: true }), slice(bias, 0, from, to)), heads);
      };
      const attended = attention(project(probe, 0), project(rows, 1), project(rows, 2), { scale: (hidden / heads) ** -0.5 });
      return linear(p, 'out_proj', mergeHeads(attended), hidden, { bias: true, std });
    });
    const pooled = add(residual, feedForward(config)(p, layerNorm(p, 'layernorm', residual, config.layer_norm_eps)));
    return reshape(pooled, [images, hidden]);
  });
}

/** SigLIP as an encoder of LLaVA. */
export const siglipFamily: VisionFamily<SiglipVisionConfig> = {
  name: 'SigLIP',
  prefixTokens: 0,
  takesAnySize: false,
  hiddenStates: siglipVision,
  afterBlocks: siglipPool,
};
