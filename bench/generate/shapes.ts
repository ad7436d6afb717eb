// The shapes that `npm run bench -- generate` measures: all sides make a model of the same one, with random
// weights.
import { type LlavaConfig, llavaConfigSchema } from '../../src/models/llava.ts';
import { shapeNamed } from '../../src/models/shapes.ts';

/** A LLaVA whose language model is a Gemma 1 and whose encoder is a CLIP tower. */
export type BenchConfig = LlavaConfig & { text_config: { model_type: 'gemma' }; vision_config: { model_type: 'clip_vision_model' } };

/** What a round asks of every side. */
export interface Workload {
  /** Pictures encoded a turn. */
  images: number;
  /** Tokens of the prompt: a picture's and a question's. */
  prompt: number;
  /** Tokens decoded after it. */
  decode: number;
}

export interface BenchShape {
  summary: string;
  config: BenchConfig;
  workload: Workload;
}

const released = shapeNamed('llava-gemma-2b').config as unknown as { vision_config: object; text_config: object };

const small = {
  ...released,
  vision_config: {
    ...released.vision_config,
    hidden_size: 256,
    intermediate_size: 1024,
    num_hidden_layers: 6,
    num_attention_heads: 4,
    image_size: 224,
  },
  text_config: {
    ...released.text_config,
    hidden_size: 512,
    intermediate_size: 2048,
    num_hidden_layers: 8,
    num_attention_heads: 4,
    head_dim: 128,
    vocab_size: 32000,
    max_position_embeddings: 2048,
  },
  image_token_index: 31999,
};

const parse = (config: unknown) => llavaConfigSchema.parse(config) as BenchConfig;

export const benchShapes: Readonly<Record<string, BenchShape>> = {
  small: {
    summary: '47 M Gemma, a CLIP tower of 6 layers at 224 px',
    config: parse(small),
    workload: { images: 8, prompt: 320, decode: 64 },
  },
  '2b': {
    summary: 'Gemma 2B, CLIP ViT-L/14-336',
    config: parse(released),
    workload: { images: 1, prompt: 640, decode: 32 },
  },
};

/** Weights of the language model; the head is the embedding table, counted once. */
export function textParameterCount({ text_config: text }: BenchConfig): number {
  const { hidden_size: hidden, intermediate_size: inner, num_hidden_layers: layers, head_dim: headDim } = text;
  const heads = text.num_attention_heads * headDim;
  const kvHeads = text.num_key_value_heads * headDim;
  return text.vocab_size * hidden + layers * (hidden * (2 * heads + 2 * kvHeads) + 3 * hidden * inner + 2 * hidden) + hidden;
}
