// How large an export will be, for the room on the disk.

import { sizeOf } from '../engine/engine.ts';
import { type LlavaConfig, llavaParameters } from '../models/llava.ts';

/** Bytes of a weight: of the language model, and of encoder and connector. Packed ones with their scales. */
const WEIGHT_BYTES: Readonly<Record<string, { language: number; vision: number }>> = {
  ...{ fp32: both(4), fp16: both(2), q8: both(1.2), q4: { language: 0.7, vision: 1.2 }, q4f16: { language: 0.65, vision: 1.1 } },
  // llama.cpp reads encoders in float16 beside packed weights
  ...{ F32: both(4), F16: both(2), BF16: both(2), Q8_0: { language: 1.1, vision: 2 }, Q4_0: { language: 0.8, vision: 2 } },
  ...{ float32: both(4), float16: both(2), bfloat16: both(2) },
};

/** Of headers, graphs and tokenizer. */
const MARGIN = 1.02;
const FILES = 5e5;

function both(bytes: number) {
  return { language: bytes, vision: bytes };
}

/** Bytes of the model in these dtypes. ONNX has the table of words twice: to read it and to predict. */
export function exportBytes(config: LlavaConfig, to: 'transformers.js' | 'llama.cpp' | 'huggingface', dtypes: readonly string[]): number {
  const counts = { language: 0, vision: 0 };
  for (const { name, dims } of llavaParameters(config)) counts[name.startsWith('language_model.') ? 'language' : 'vision'] += sizeOf(dims);
  const { vocab_size: words, hidden_size: hidden, tie_word_embeddings: isTied } = config.text_config;
  if (to === 'transformers.js' && isTied) counts.language += words * hidden;
  const bytesOf = (dtype: string) => counts.language * WEIGHT_BYTES[dtype].language + counts.vision * WEIGHT_BYTES[dtype].vision;
  return dtypes.reduce((sum, dtype) => sum + MARGIN * bytesOf(dtype), FILES);
}
