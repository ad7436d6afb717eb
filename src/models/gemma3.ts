// Gemma 3 language model, text only (Gemma Team 2025, arXiv 2503.19786), numerics as in transformers 5.18
// models/gemma3/modeling_gemma3.py. Beyond Gemma 2: RMSNorm of queries and keys instead of soft caps, five
// local layers for each global one, and a RoPE for each of the two kinds.

import { z } from 'zod';
import type { Parameters } from '../nn/parameters.ts';
import { counts } from './config-fields.ts';
import { decoder, type LanguageInputs, type LanguageOutputs, modelRope, type Rope, ropeOf, ropeParametersSchema } from './decoder.ts';
import type { LanguageFamily } from './family.ts';
import { gemma2Block, gemma2ConfigSchema, type LayerType, layerTypes } from './gemma2.ts';

/**
 * Hugging Face config.json of a Gemma 3 language model; unknown fields are kept. Defaults are those of
 * transformers' Gemma3TextConfig, which hub folders rely on. A cap on attention scores is not read, because
 * transformers does not read it.
 */
export const gemma3ConfigSchema = gemma2ConfigSchema.omit({ attn_logit_softcapping: true }).extend({
  model_type: z.literal('gemma3_text'),
  ...counts({ vocab_size: 262_208, max_position_embeddings: 131_072 }),
  // older folders have rope_theta and rope_scaling for the global layers, and rope_local_base_freq for the
  // local ones
  rope_parameters: z
    .strictObject({ full_attention: ropeParametersSchema.nullish(), sliding_attention: ropeParametersSchema.nullish() })
    .nullish(),
  rope_local_base_freq: z.number().positive().optional(),
  // older folders: every N-th layer is global
  sliding_window_pattern: z.int().positive().optional(),
  final_logit_softcapping: z.number().positive().nullable().default(null),
});
export type Gemma3Config = z.infer<typeof gemma3ConfigSchema>;

/** The RoPE of the layers of a kind; of the global ones unless another is named. */
function gemma3Rope(config: Gemma3Config, type: LayerType = 'full_attention'): Rope {
  const parameters = config.rope_parameters?.[type];
  if (type === 'sliding_attention') return ropeOf(config.rope_local_base_freq ?? 10_000, parameters);
  return ropeOf(config.rope_theta ?? 1_000_000, { ...parameters, ...config.rope_scaling });
}

/** The decoder stack of Gemma 3; see `decoder` for shapes and names. */
export function gemma3(p: Parameters, config: Gemma3Config, inputs: LanguageInputs): LanguageOutputs {
  const types = layerTypes(config, config.sliding_window_pattern ?? 6);
  const ropes = new Map([...new Set(types)].map((type) => [type, modelRope(config, gemma3Rope(config, type))]));
  const scale = config.query_pre_attn_scalar ** -0.5;
  return decoder(p, config, inputs, (p, hidden, attend, layer) => {
    const type = types[layer];
    const window = type === 'sliding_attention' ? config.sliding_window : undefined;
    return gemma2Block(p, config, hidden, (x) => attend(x, { rope: ropes.get(type)!, scale, window, queryKeyNorm: true }));
  });
}

/** Gemma 3 as a language model of LLaVA. */
export const gemma3Family: LanguageFamily<Gemma3Config> = {
  name: 'Gemma 3',
  architecture: 'Gemma3ForCausalLM',
  stack: gemma3,
  rope: gemma3Rope,
  finalSoftcap: (config) => config.final_logit_softcapping ?? undefined,
};
