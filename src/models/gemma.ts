// Gemma 1 language model (Gemma Team 2024, arXiv 2403.08295), numerics as in transformers 5.18 models/gemma/modeling_gemma.py:
// RMSNorm with 1 + w, RoPE, multi-query or grouped-query attention, GeGLU with tanh GELU, tied embeddings scaled by sqrt(hidden).

import { z } from 'zod';
import { attention } from '../graph/composites.ts';
import { add, concat, gather, mul } from '../graph/primitives.ts';
import type { Tensor } from '../graph/tensor.ts';
import { ACTIVATION_NAMES, ACTIVATIONS } from '../nn/activations.ts';
import { gemmaRmsNorm, linear, mergeHeads, splitHeads } from '../nn/layers.ts';
import { normal, type Parameters } from '../nn/parameters.ts';
import { applyRope, ropeTables } from '../nn/rope.ts';

/** Hugging Face config.json of a Gemma 1 model; unknown fields are kept. */
export const gemmaConfigSchema = z.looseObject({
  model_type: z.literal('gemma').default('gemma'),
  vocab_size: z.int().positive(),
  hidden_size: z.int().positive(),
  intermediate_size: z.int().positive(),
  num_hidden_layers: z.int().positive(),
  num_attention_heads: z.int().positive(),
  num_key_value_heads: z.int().positive(),
  head_dim: z.int().positive(),
  // Gemma 1.0 checkpoints say "gelu" and mean the tanh form (transformers PR #29402)
  hidden_act: z.enum(ACTIVATION_NAMES).default('gelu_pytorch_tanh'),
  hidden_activation: z.enum(ACTIVATION_NAMES).nullish(),
  max_position_embeddings: z.int().positive().default(8192),
  rms_norm_eps: z.number().positive().default(1e-6),
  rope_theta: z.number().positive().optional(),
  rope_parameters: z.looseObject({ rope_theta: z.number().positive().optional() }).nullish(),
  tie_word_embeddings: z.literal(true).default(true),
  initializer_range: z.number().positive().default(0.02),
});
export type GemmaConfig = z.infer<typeof gemmaConfigSchema>;

/** Keys and values of the tokens so far, a layer: each [batch, kvHeads, past, headDim], rotated. */
export interface LayerCache {
  key: Tensor;
  value: Tensor;
}

export interface GemmaInputs {
  /** [batch, tokens, hidden]: embedded tokens, scaled (`embedTokens`), image rows merged in. */
  inputsEmbeds: Tensor;
  /** int32 [batch, tokens]. */
  positionIds: Tensor;
  /** Additive mask that broadcasts to [batch, heads, tokens, past + tokens]; 0 keeps, -1e9 hides. */
  attentionBias: Tensor;
  /** One entry a layer when decoding with a cache. */
  past?: readonly LayerCache[];
}

export interface GemmaOutputs {
  /** After the final norm: [batch, tokens, hidden]. Logits are lastHidden embedTokens^T. */
  lastHidden: Tensor;
  /** Input of the first layer, then the output of each layer, the last one normed as in Hugging Face: layers + 1 entries. */
  hiddenStates: Tensor[];
  present: LayerCache[];
}

/** The tied embedding matrix [vocab, hidden]. */
export function embeddingWeight(p: Parameters, config: GemmaConfig): Tensor {
  return p.get('model.embed_tokens.weight', [config.vocab_size, config.hidden_size], normal(config.initializer_range));
}

/** Embeds int32 ids [batch, tokens] and scales by sqrt(hidden): [batch, tokens, hidden]. */
export function embedTokens(p: Parameters, config: GemmaConfig, inputIds: Tensor): Tensor {
  return mul(gather(embeddingWeight(p, config), inputIds), Math.sqrt(config.hidden_size));
}

/** The decoder stack. Parameters are named `model.layers.N...`, `model.norm.weight`. */
export function gemma(p: Parameters, config: GemmaConfig, { inputsEmbeds, positionIds, attentionBias, past }: GemmaInputs): GemmaOutputs {
  const theta = config.rope_theta ?? config.rope_parameters?.rope_theta ?? 10000;
  const tables = ropeTables(config.max_position_embeddings, config.head_dim, theta);
  const hiddenStates = [inputsEmbeds];
  const present: LayerCache[] = [];
  let hidden = inputsEmbeds;
  p.module('model', (p) => {
    for (let layer = 0; layer < config.num_hidden_layers; layer++) {
      p.module(`layers.${layer}`, (p) => {
        const normed = gemmaRmsNorm(p, 'input_layernorm', hidden, config.rms_norm_eps);
        const attended = selfAttention(p, config, normed, positionIds, attentionBias, tables, past?.[layer]);
        present.push(attended.cache);
        hidden = add(hidden, attended.output);
        hidden = add(hidden, feedForward(p, config, gemmaRmsNorm(p, 'post_attention_layernorm', hidden, config.rms_norm_eps)));
      });
      hiddenStates.push(hidden);
    }
    hidden = gemmaRmsNorm(p, 'norm', hidden, config.rms_norm_eps);
    hiddenStates[hiddenStates.length - 1] = hidden;
  });
  return { lastHidden: hidden, hiddenStates, present };
}

function selfAttention(
  p: Parameters,
  config: GemmaConfig,
  x: Tensor,
  positionIds: Tensor,
  bias: Tensor,
  tables: ReturnType<typeof ropeTables>,
  past: LayerCache | undefined,
): { output: Tensor; cache: LayerCache } {
  const { num_attention_heads: heads, num_key_value_heads: kvHeads, head_dim: headDim, initializer_range: std } = config;
  return p.module('self_attn', (p) => {
    const queryStates = applyRope(splitHeads(linear(p, 'q_proj', x, heads * headDim, { std }), heads), positionIds, tables);
    let key = applyRope(splitHeads(linear(p, 'k_proj', x, kvHeads * headDim, { std }), kvHeads), positionIds, tables);
    let value = splitHeads(linear(p, 'v_proj', x, kvHeads * headDim, { std }), kvHeads);
    if (past) {
      key = concat([past.key, key], 2);
      value = concat([past.value, value], 2);
    }
    const attended = attention(queryStates, key, value, { scale: headDim ** -0.5, bias });
    return { output: linear(p, 'o_proj', mergeHeads(attended), config.hidden_size, { std }), cache: { key, value } };
  });
}

function feedForward(p: Parameters, config: GemmaConfig, x: Tensor): Tensor {
  const { intermediate_size: size, initializer_range: std } = config;
  // legacy "gelu" of Gemma 1.0 is the tanh form; see the config schema
  const name = config.hidden_activation ?? config.hidden_act;
  const activation = ACTIVATIONS[name === 'gelu' ? 'gelu_pytorch_tanh' : name];
  return p.module('mlp', (p) => {
    const gated = mul(activation(linear(p, 'gate_proj', x, size, { std })), linear(p, 'up_proj', x, size, { std }));
    return linear(p, 'down_proj', gated, config.hidden_size, { std });
  });
}
