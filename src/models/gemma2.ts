// Gemma 2 language model (Gemma Team 2024, arXiv 2408.00118), numerics as in transformers 5.18
// models/gemma2/modeling_gemma2.py. Beyond Gemma 1: norms after attention and MLP too, soft caps on scores
// and logits, and a sliding window in every second layer.

import { z } from 'zod';
import { UserError } from '../errors.ts';
import { add } from '../graph/primitives.ts';
import type { Tensor } from '../graph/tensor.ts';
import { ACTIVATION_NAMES, type ActivationName } from '../nn/activations.ts';
import { gemmaRmsNorm } from '../nn/layers.ts';
import type { Parameters } from '../nn/parameters.ts';
import { counts } from './config-fields.ts';
import {
  type DecoderConfig,
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

const layerTypeSchema = z.enum(['full_attention', 'sliding_attention']);
export type LayerType = z.infer<typeof layerTypeSchema>;

/**
 * Hugging Face config.json of a Gemma 2 model; unknown fields are kept. Defaults are those of transformers'
 * Gemma2Config.
 */
export const gemma2ConfigSchema = z.looseObject({
  model_type: z.literal('gemma2'),
  ...decoderFields,
  ...counts({
    vocab_size: 256_000,
    hidden_size: 2304,
    intermediate_size: 9216,
    num_hidden_layers: 26,
    num_attention_heads: 8,
    num_key_value_heads: 4,
    head_dim: 256,
    max_position_embeddings: 8192,
    sliding_window: 4096,
  }),
  rope_parameters: ropeParametersSchema.nullish(),
  hidden_activation: z.enum(ACTIVATION_NAMES).default('gelu_pytorch_tanh'),
  query_pre_attn_scalar: z.number().positive().default(256),
  layer_types: z.array(layerTypeSchema).nullish(),
  attn_logit_softcapping: z.number().positive().nullable().default(50),
  final_logit_softcapping: z.number().positive().nullable().default(30),
});
export type Gemma2Config = z.infer<typeof gemma2ConfigSchema>;

/**
 * Kind of each layer: as listed, or else every `pattern`-th layer sees all earlier tokens and the others see
 * a window of them. UserError if the list has another length.
 */
export function layerTypes(config: { num_hidden_layers: number; layer_types?: LayerType[] | null }, pattern: number): LayerType[] {
  const { num_hidden_layers: layers, layer_types: listed } = config;
  if (listed && listed.length !== layers)
    throw new UserError(`layer_types lists ${listed.length} layers, but num_hidden_layers is ${layers}`);
  return listed ?? Array.from({ length: layers }, (_, layer) => ((layer + 1) % pattern === 0 ? 'full_attention' : 'sliding_attention'));
}

/**
 * A block of Gemma 2 and 3: attention and MLP have a norm before and one after, ahead of the residual sum.
 * hidden [batch, tokens, hidden] -> the same.
 */
export function gemma2Block(
  p: Parameters,
  config: DecoderConfig & { hidden_activation: ActivationName },
  hidden: Tensor,
  attend: (x: Tensor) => Tensor,
): Tensor {
  const norm = (name: string, x: Tensor) => gemmaRmsNorm(p, name, x, config.rms_norm_eps);
  const attended = add(hidden, norm('post_attention_layernorm', attend(norm('input_layernorm', hidden))));
  const transformed = gatedMlp(p, config, config.hidden_activation, norm('pre_feedforward_layernorm', attended));
  return add(attended, norm('post_feedforward_layernorm', transformed));
}

const gemma2Rope = ({ rope_theta: theta = 10000, rope_scaling, rope_parameters }: Gemma2Config) =>
  ropeOf(theta, rope_scaling ?? rope_parameters);

/** The decoder stack of Gemma 2; see `decoder` for shapes and names. */
export function gemma2(p: Parameters, config: Gemma2Config, inputs: LanguageInputs): LanguageOutputs {
  const { sliding_window: window } = config;
  const options = {
    rope: modelRope(config, gemma2Rope(config)),
    scale: config.query_pre_attn_scalar ** -0.5,
    softcap: config.attn_logit_softcapping ?? undefined,
  };
  const types = layerTypes(config, 2);
  return decoder(p, config, inputs, (p, hidden, attend, layer) =>
    gemma2Block(p, config, hidden, (x) => attend(x, types[layer] === 'sliding_attention' ? { ...options, window } : options)),
  );
}

/** Gemma 2 as a language model of LLaVA. */
export const gemma2Family: LanguageFamily<Gemma2Config> = {
  name: 'Gemma 2',
  architecture: 'Gemma2ForCausalLM',
  stack: gemma2,
  rope: gemma2Rope,
  finalSoftcap: (config) => config.final_logit_softcapping ?? undefined,
  scaledImageRows: true,
};
