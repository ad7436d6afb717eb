// The language model of a LLaVA as llama.cpp's GGUF: keys of gguf-py/gguf/constants.py, tensors and
// arithmetic of src/models/gemma*.cpp. Where those compute otherwise, it is put into the weights.

import { UserError } from '../errors.ts';
import { layerTypes } from '../models/gemma2.ts';
import { type LanguageConfig, languageFamily } from '../models/language.ts';
import { withSpecialTokens } from '../text/tokenizer.ts';
import type { GgufTensorType, GgufValue } from './gguf.ts';
import { GgufTensors, type RowChange } from './gguf-tensors.ts';
import { tokenizerMetadata } from './gguf-tokenizer.ts';
import type { ExportSource } from './source.ts';

export const uint32 = (value: number): GgufValue => ({ type: 'uint32', value });
export const float32 = (value: number | readonly number[]): GgufValue => ({ type: 'float32', value });
export const string = (value: string): GgufValue => ({ type: 'string', value });

/** Number of a file's type in `general.file_type` (llama_ftype). */
export const FILE_TYPE: Readonly<Record<GgufTensorType, number>> = { F32: 0, F16: 1, Q4_0: 2, Q8_0: 7, BF16: 32 };

/**
 * What a family is called, how often a layer sees everything, and with how many layers it scales otherwise.
 */
const ARCHITECTURES = {
  gemma: { name: 'gemma' },
  gemma2: { name: 'gemma2', pattern: 2, largest: 46 },
  gemma3_text: { name: 'gemma3', pattern: 6, largest: 62 },
} as const satisfies Record<LanguageConfig['model_type'], { name: string; pattern?: number; largest?: number }>;

/** Gemma's norms multiply by 1 + w, llama.cpp's by what is stored. */
const plusOne: RowChange = (row) => row.map((value) => 1 + value);

/** Metadata and tensors of the language model. UserError for what llama.cpp would compute otherwise. */
export function languageGguf(source: ExportSource, type: GgufTensorType) {
  const { text_config: text } = source.config;
  const { name } = ARCHITECTURES[text.model_type];
  checkLanguage(text, source.dir);
  const key = (suffix: string) => `${name}.${suffix}`;
  const family = languageFamily(text.model_type)!;
  const { theta, factor } = family.rope(text);
  const metadata: Record<string, GgufValue> = {
    'general.architecture': string(name),
    'general.type': string('model'),
    'general.file_type': uint32(FILE_TYPE[type]),
    'general.quantization_version': uint32(2),
    [key('context_length')]: uint32(text.max_position_embeddings),
    [key('embedding_length')]: uint32(text.hidden_size),
    [key('block_count')]: uint32(text.num_hidden_layers),
    [key('feed_forward_length')]: uint32(text.intermediate_size),
    [key('attention.head_count')]: uint32(text.num_attention_heads),
    [key('attention.head_count_kv')]: uint32(text.num_key_value_heads),
    [key('attention.layer_norm_rms_epsilon')]: float32(text.rms_norm_eps),
    [key('attention.key_length')]: uint32(text.head_dim),
    [key('attention.value_length')]: uint32(text.head_dim),
    [key('rope.dimension_count')]: uint32(text.head_dim),
    [key('rope.freq_base')]: float32(theta),
    ...(factor === 1 ? {} : { [key('rope.scaling.type')]: string('linear'), [key('rope.scaling.factor')]: float32(factor) }),
    ...(text.model_type === 'gemma' ? {} : { [key('attention.sliding_window')]: uint32(text.sliding_window) }),
    ...(text.model_type === 'gemma3_text' ? { [key('rope.freq_base_swa')]: float32(family.rope(text, 'sliding_attention').theta) } : {}),
    ...(text.model_type === 'gemma2'
      ? {
          [key('attn_logit_softcapping')]: float32(text.attn_logit_softcapping!),
          [key('final_logit_softcapping')]: float32(text.final_logit_softcapping!),
        }
      : {}),
    ...tokenizerMetadata(withSpecialTokens(source.tokenizerFiles.tokenizerJson), source.tokenizer, text.vocab_size),
  };
  return { metadata, tensors: languageTensors(source, text, type) };
}

function languageTensors(source: ExportSource, text: LanguageConfig, type: GgufTensorType) {
  const { hidden_size: hidden, intermediate_size: inner, num_hidden_layers: layers, head_dim: headDim } = text;
  const [width, shared] = [text.num_attention_heads * headDim, text.num_key_value_heads * headDim];
  const all = new GgufTensors(source, type);
  const prefix = 'language_model.model';
  // its rows are both looked up and multiplied, and few bits hurt every word
  const table = type === 'Q4_0' ? 'Q8_0' : type;
  all.matrix('token_embd.weight', `${prefix}.embed_tokens.weight`, [text.vocab_size, hidden], { type: table });
  all.plain('output_norm.weight', `${prefix}.norm.weight`, [hidden], { change: plusOne });
  const scaled = scaleQueries(text);
  for (let i = 0; i < layers; i++) {
    const weight = (to: string, from: string, dims: readonly number[], change?: RowChange) =>
      all.matrix(`blk.${i}.${to}.weight`, `${prefix}.layers.${i}.${from}.weight`, dims, { change });
    const norm = (to: string, from: string, change = plusOne, size = hidden) =>
      all.plain(`blk.${i}.${to}.weight`, `${prefix}.layers.${i}.${from}.weight`, [size], { change });
    norm('attn_norm', 'input_layernorm');
    weight('attn_q', 'self_attn.q_proj', [width, hidden], text.model_type === 'gemma2' ? scaled : undefined);
    weight('attn_k', 'self_attn.k_proj', [shared, hidden]);
    weight('attn_v', 'self_attn.v_proj', [shared, hidden]);
    weight('attn_output', 'self_attn.o_proj', [hidden, width]);
    if (text.model_type === 'gemma3_text') {
      norm('attn_q_norm', 'self_attn.q_norm', (row, at) => scaled(plusOne(row, at), at), headDim);
      norm('attn_k_norm', 'self_attn.k_norm', plusOne, headDim);
    }
    if (text.model_type === 'gemma') norm('ffn_norm', 'post_attention_layernorm');
    else {
      norm('post_attention_norm', 'post_attention_layernorm');
      norm('ffn_norm', 'pre_feedforward_layernorm');
      norm('post_ffw_norm', 'post_feedforward_layernorm');
    }
    weight('ffn_gate', 'mlp.gate_proj', [inner, hidden]);
    weight('ffn_up', 'mlp.up_proj', [inner, hidden]);
    weight('ffn_down', 'mlp.down_proj', [hidden, inner]);
  }
  return all.tensors;
}

/**
 * Queries times what a model scales scores by, in place of what llama.cpp does: exact for the usual models.
 */
function scaleQueries(text: LanguageConfig): RowChange {
  if (text.model_type === 'gemma') return (row) => row;
  const { largest } = ARCHITECTURES[text.model_type];
  const theirs = text.num_hidden_layers === largest ? Math.floor(text.hidden_size / text.num_attention_heads) : text.head_dim;
  const factor = Math.sqrt(theirs / text.query_pre_attn_scalar);
  return factor === 1 ? (row) => row : (row) => row.map((value) => value * factor);
}

/** UserError for what the graphs of llama.cpp do not have. */
function checkLanguage(text: LanguageConfig, dir: string): void {
  const refuse = (what: string) => new UserError(`${dir}: text_config: ${what}, which llama.cpp does not compute`);
  const activation = text.model_type === 'gemma' ? (text.hidden_activation ?? text.hidden_act) : text.hidden_activation;
  // Gemma 1.0 says gelu and means the tanh form
  if (activation !== 'gelu_pytorch_tanh' && !(text.model_type === 'gemma' && activation === 'gelu'))
    throw refuse(`hidden_activation is ${activation}`);
  if (text.model_type === 'gemma') return;
  const { pattern } = ARCHITECTURES[text.model_type];
  const usual = layerTypes({ num_hidden_layers: text.num_hidden_layers }, pattern);
  const listed = 'sliding_window_pattern' in text ? Number(text.sliding_window_pattern ?? pattern) : pattern;
  if (layerTypes(text, listed).some((type, i) => type !== usual[i])) throw refuse(`layer_types are not one full layer in ${pattern}`);
  if (text.model_type === 'gemma2' && (text.attn_logit_softcapping === null || text.final_logit_softcapping === null))
    throw refuse('a soft cap is null');
  if (text.model_type === 'gemma3_text' && text.final_logit_softcapping !== null) throw refuse('final_logit_softcapping is given');
}
