// Tiny random models of every pairing as what an export begins with, and as what our own passes run.

import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Constant } from '../src/engine/engine.ts';
import { float32 } from '../src/engine/engine.ts';
import type { ExportSource } from '../src/export/source.ts';
import type { ParameterSource } from '../src/generate/forward.ts';
import { imageProcessorConfig } from '../src/images/processor.ts';
import { type LlavaConfig, llavaConfigSchema, llavaParameters } from '../src/models/llava.ts';
import { imageProcessorFor } from '../src/pretrained/processor.ts';
import { createRandom } from '../src/random.ts';
import { createTokenizer } from '../src/text/tokenizer.ts';
import { root } from './structure.ts';

const text = {
  hidden_size: 32,
  intermediate_size: 64,
  num_attention_heads: 4,
  num_key_value_heads: 2,
  head_dim: 8,
  max_position_embeddings: 256,
  vocab_size: 4160,
  hidden_act: 'gelu_pytorch_tanh',
};
const vision = { hidden_size: 32, intermediate_size: 64, num_hidden_layers: 3, num_attention_heads: 2, image_size: 32, patch_size: 16 };

export const LANGUAGES: Readonly<Record<string, object>> = {
  gemma: { ...text, model_type: 'gemma', num_hidden_layers: 2 },
  gemma2: { ...text, model_type: 'gemma2', num_hidden_layers: 3, sliding_window: 4, query_pre_attn_scalar: 24 },
  gemma3_text: { ...text, model_type: 'gemma3_text', num_hidden_layers: 7, sliding_window: 4, query_pre_attn_scalar: 24 },
};
export const ENCODERS: Readonly<Record<string, object>> = {
  clip_vision_model: { ...vision, model_type: 'clip_vision_model' },
  siglip_vision_model: { ...vision, model_type: 'siglip_vision_model', vision_use_head: false },
  dinov2: { ...vision, model_type: 'dinov2', mlp_ratio: 2 },
};

/** Every pairing of a language model and an encoder. */
export const PAIRINGS = Object.keys(LANGUAGES).flatMap((language) => Object.keys(ENCODERS).map((encoder) => [language, encoder] as const));

export interface TinyModel {
  config: LlavaConfig;
  source: ExportSource;
  /** Its weights for `forward`. */
  weights: ParameterSource;
  values: ReadonlyMap<string, Float32Array>;
}

/** A model whose weights are drawn wide, so that one in another's place shows. */
export function tinyModel(language: string, encoder: string, fields: object = {}): TinyModel {
  const config = llavaConfigSchema.parse({
    text_config: LANGUAGES[language],
    vision_config: ENCODERS[encoder],
    image_token_index: 4096,
    vision_feature_layer: encoder === 'dinov2' ? -1 : -2,
    vision_feature_select_strategy: encoder === 'siglip_vision_model' ? 'full' : 'default',
    ...fields,
  });
  const values = new Map<string, Float32Array>();
  const dims = new Map<string, readonly number[]>();
  for (const parameter of llavaParameters(config)) {
    const random = createRandom(1, parameter.name);
    const scale = parameter.dims.length > 1 ? 0.2 : 0.1;
    const offset = parameter.initializer.kind === 'ones' || parameter.name.includes('lambda') ? 1 : 0;
    const count = parameter.dims.reduce((a, b) => a * b, 1);
    values.set(
      parameter.name,
      Float32Array.from({ length: count }, () => offset + scale * random.normal()),
    );
    dims.set(parameter.name, parameter.dims);
  }
  const file = (name: string) => readFileSync(join(root, 'assets', 'models', 'tiny-llava', name), 'utf8');
  const [tokenizerJson, tokenizerConfig] = ['tokenizer.json', 'tokenizer_config.json'].map((name) => JSON.parse(file(name)));
  const source: ExportSource = {
    dir: 'tiny',
    config,
    json: { ...config, dtype: 'float32' },
    dtype: 'float32',
    processor: imageProcessorConfig.parse(imageProcessorFor(32)),
    tokenizer: createTokenizer(tokenizerJson, tokenizerConfig),
    tokenizerFiles: { tokenizerJson, tokenizerConfig },
    files: { 'tokenizer.json': file('tokenizer.json'), 'tokenizer_config.json': file('tokenizer_config.json') },
    has: (name) => values.has(name),
    tensor: (name) => ({ shape: [...dims.get(name)!], data: () => [values.get(name)!] }),
    parameters: [...values.values()].reduce((sum, { length }) => sum + length, 0),
  };
  const weights: ParameterSource = {
    read: async (parameters) => new Map(parameters.map(({ name, dims }): [string, Constant] => [name, float32(values.get(name)!, dims)])),
  };
  return { config, source, weights, values };
}
