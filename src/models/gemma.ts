// Gemma 1 language model (Gemma Team 2024, arXiv 2403.08295), numerics as in transformers 5.18
// models/gemma/modeling_gemma.py: RMSNorm with 1 + w, RoPE, multi-query or grouped-query attention, GeGLU
// with tanh GELU, tied embeddings scaled by sqrt(hidden).

import { z } from 'zod';
import { add } from '../graph/primitives.ts';
import { ACTIVATION_NAMES } from '../nn/activations.ts';
import { gemmaRmsNorm } from '../nn/layers.ts';
import type { Parameters } from '../nn/parameters.ts';
import { counts } from './config-fields.ts';
import {
  decoder,
  decoderFields,
  gatedMlp,
  type LanguageInputs,
  type LanguageOutputs,
  modelRope,
  ropeOf,
  ropeParametersSchema,
} from './decoder.ts';
import type { LanguageFamily } from './family.ts';

/** Hugging Face config.json of a Gemma 1 model; unknown fields are kept. Defaults are GemmaConfig's. */
export const gemmaConfigSchema = z.looseObject({
  model_type: z.literal('gemma').optional().default('gemma'),
  ...decoderFields,
  ...counts({
    vocab_size: 256_000,
    hidden_size: 3072,
    intermediate_size: 24_576,
    num_hidden_layers: 28,
    num_attention_heads: 16,
    num_key_value_heads: 16,
    head_dim: 256,
    max_position_embeddings: 8192,
  }),
  rope_parameters: ropeParametersSchema.nullish(),
  // Gemma 1.0 checkpoints say "gelu" and mean the tanh form (transformers PR #29402)
  hidden_act: z.enum(ACTIVATION_NAMES).default('gelu_pytorch_tanh'),
  hidden_activation: z.enum(ACTIVATION_NAMES).nullish(),
});
export type GemmaConfig = z.infer<typeof gemmaConfigSchema>;

const gemmaRope = ({ rope_theta: theta = 10000, rope_scaling, rope_parameters }: GemmaConfig) =>
  ropeOf(theta, rope_scaling ?? rope_parameters);

/** The decoder stack of Gemma 1; see `decoder` for shapes and names. */
export function gemma(p: Parameters, config: GemmaConfig, inputs: LanguageInputs): LanguageOutputs {
  const { head_dim: headDim, rms_norm_eps: epsilon } = config;
  const options = { rope: modelRope(config, gemmaRope(config)), scale: headDim ** -0.5 };
  // legacy "gelu" of Gemma 1.0 is the tanh form; see the config schema
  const name = config.hidden_activation ?? config.hidden_act;
  const activation = name === 'gelu' ? 'gelu_pytorch_tanh' : name;
  return decoder(p, config, inputs, (p, hidden, attend) => {
    const attended = add(hidden, attend(gemmaRmsNorm(p, 'input_layernorm', hidden, epsilon), options));
    return add(attended, gatedMlp(p, config, activation, gemmaRmsNorm(p, 'post_attention_layernorm', attended, epsilon)));
  });
}

/** Gemma 1 as a language model of LLaVA. */
export const gemmaFamily: LanguageFamily<GemmaConfig> = {
  name: 'Gemma 1',
  architecture: 'GemmaForCausalLM',
  stack: gemma,
  rope: gemmaRope,
  scaledImageRows: true,
};
