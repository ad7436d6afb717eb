// The language models that a LLaVA can have, behind one set of functions: the config's `model_type` selects
// one. All of them tie the output matrix to the embedding, which is scaled by sqrt(hidden).

import { z } from 'zod';
import { cappedProduct, linearCrossEntropy } from '../graph/composites.ts';
import { gather, mul } from '../graph/primitives.ts';
import type { Tensor } from '../graph/tensor.ts';
import { normal, type Parameters } from '../nn/parameters.ts';
import type { LanguageInputs, LanguageOutputs } from './decoder.ts';
import { gemma, gemmaConfigSchema } from './gemma.ts';
import { gemma2, gemma2ConfigSchema } from './gemma2.ts';
import { gemma3, gemma3ConfigSchema } from './gemma3.ts';

/** Hugging Face's `architectures` entry, by model_type. */
export const LANGUAGE_ARCHITECTURES = {
  gemma: 'GemmaForCausalLM',
  gemma2: 'Gemma2ForCausalLM',
  gemma3_text: 'Gemma3ForCausalLM',
} as const;

/** Error message for any other model_type. */
export const modelTypeError = ({ code }: { code: string }) =>
  code === 'invalid_union' ? `must be one of ${Object.keys(LANGUAGE_ARCHITECTURES).join(', ')}` : undefined;

/** Hugging Face config.json of a language model; without a model_type, of Gemma 1. */
export const languageConfigSchema = z.discriminatedUnion('model_type', [gemmaConfigSchema, gemma2ConfigSchema, gemma3ConfigSchema], {
  error: modelTypeError,
});
export type LanguageConfig = z.infer<typeof languageConfigSchema>;

/** The tied embedding matrix [vocab, hidden]. */
function embeddingWeight(p: Parameters, config: LanguageConfig): Tensor {
  return p.get('model.embed_tokens.weight', [config.vocab_size, config.hidden_size], normal(config.initializer_range));
}

/** Embeds int32 ids and scales by sqrt(hidden): [batch, tokens] -> [batch, tokens, hidden]. */
export function embedTokens(p: Parameters, config: LanguageConfig, inputIds: Tensor): Tensor {
  return mul(gather(embeddingWeight(p, config), inputIds), Math.sqrt(config.hidden_size));
}

/**
 * The decoder stack; see `decoder` for shapes. Parameters are named `model.layers.N...`, `model.norm.weight`.
 */
export function languageModel(p: Parameters, config: LanguageConfig, inputs: LanguageInputs): LanguageOutputs {
  switch (config.model_type) {
    case 'gemma':
      return gemma(p, config, inputs);
    case 'gemma2':
      return gemma2(p, config, inputs);
    case 'gemma3_text':
      return gemma3(p, config, inputs);
  }
}

const finalSoftcap = (config: LanguageConfig) =>
  config.model_type === 'gemma' ? undefined : (config.final_logit_softcapping ?? undefined);

/** Logits of hidden states after the final norm: [.., hidden] -> [.., vocab]. */
export function logits(p: Parameters, config: LanguageConfig, hidden: Tensor): Tensor {
  return cappedProduct(hidden, embeddingWeight(p, config), { softcap: finalSoftcap(config) }).product;
}

/**
 * Cross entropy of the logits of `hidden` [rows, hidden] against labels int32 [rows]: loss of each row in
 * nats, [rows].
 */
export function labelLosses(p: Parameters, config: LanguageConfig, hidden: Tensor, labels: Tensor): Tensor {
  return linearCrossEntropy(hidden, embeddingWeight(p, config), labels, { softcap: finalSoftcap(config) });
}
