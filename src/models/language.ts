// The language models that a LLaVA can have, behind one set of functions: the config's `model_type` selects
// one. All of them tie the output matrix to the embedding, which is scaled by sqrt(hidden).

import { z } from 'zod';
import { cappedProduct, linearCrossEntropy } from '../graph/composites.ts';
import { gather, mul } from '../graph/primitives.ts';
import type { Tensor } from '../graph/tensor.ts';
import { normal, type Parameters } from '../nn/parameters.ts';
import type { LanguageInputs, LanguageOutputs } from './decoder.ts';
import type { LanguageFamily } from './family.ts';
import { gemmaConfigSchema, gemmaFamily } from './gemma.ts';
import { gemma2ConfigSchema, gemma2Family } from './gemma2.ts';
import { gemma3ConfigSchema, gemma3Family } from './gemma3.ts';

/** Error message for any other model_type. */
export const modelTypeError = ({ code }: { code: string }) =>
  code === 'invalid_union' ? `must be one of ${LANGUAGE_MODEL_TYPES.join(', ')}` : undefined;

/** Hugging Face config.json of a language model; without a model_type, of Gemma 1. */
export const languageConfigSchema = z
  .discriminatedUnion('model_type', [gemmaConfigSchema, gemma2ConfigSchema, gemma3ConfigSchema], { error: modelTypeError })
  .superRefine(({ num_attention_heads: heads, num_key_value_heads: shared, head_dim: width }, { addIssue }) => {
    if (heads % shared !== 0)
      addIssue({
        code: 'custom',
        path: ['num_key_value_heads'],
        message: `must divide num_attention_heads, which is ${heads}; it is ${shared}`,
      });
    if (width % 2 !== 0) addIssue({ code: 'custom', path: ['head_dim'], message: 'must be even' });
  });
export type LanguageConfig = z.infer<typeof languageConfigSchema>;

/** The families by `model_type`. */
const families: { readonly [T in LanguageConfig['model_type']]: LanguageFamily<Extract<LanguageConfig, { model_type: T }>> } = {
  gemma: gemmaFamily,
  gemma2: gemma2Family,
  gemma3_text: gemma3Family,
};

/** `model_type` of each family. */
export const LANGUAGE_MODEL_TYPES: readonly string[] = Object.keys(families);

/** The family of a model_type; undefined for one that is not known here. */
export function languageFamily(modelType: string): LanguageFamily<LanguageConfig> | undefined {
  if (!Object.hasOwn(families, modelType)) return undefined;
  return families[modelType as LanguageConfig['model_type']] as unknown as LanguageFamily<LanguageConfig>;
}

const familyOf = ({ model_type }: LanguageConfig) => languageFamily(model_type)!;

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
  return familyOf(config).stack(p, config, inputs);
}

const finalSoftcap = (config: LanguageConfig) => familyOf(config).finalSoftcap?.(config);

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
