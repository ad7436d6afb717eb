// Writes a checkpoint of a given config with fresh weights, which are drawn and written piece by piece, so
// that memory does not grow with the model.

import { saveCheckpoint } from '../checkpoint/checkpoint.ts';
import { readTokenizerFiles } from '../checkpoint/tokenizer-files.ts';
import { imageProcessorConfig } from '../images/processor.ts';
import { llavaConfigSchema } from '../models/llava.ts';
import { modelParameters } from '../models/model-parameters.ts';
import type { ModelConfig } from '../models/shapes.ts';
import { initialize, type Parameter } from '../nn/parameters.ts';
import { resolvePath } from '../paths.ts';
import { createRandom } from '../random.ts';
import { type FloatType, storedFloats } from '../weights/dtype.ts';
import { elementCount } from '../weights/safetensors.ts';
import { hubForm, TRANSFORMERS_VERSION } from './hub-form.ts';
import { imageProcessorFor, PROCESSOR_FILE, processorFilesOf } from './processor.ts';
import { hubTokenizerFiles } from './tokenizer-form.ts';

/** Values drawn at a time. */
const PIECE = 2 ** 20;

export interface FreshOptions {
  dtype: FloatType;
  /** The same seed writes the same bytes. */
  seed: number;
  /** Bytes of weights per file; more go into several files. */
  maxShardSize: number;
  /** Folder of a tokenizer to save with the weights. */
  tokenizer?: string;
  /** When it aborts, `signal.reason` is thrown and nothing is left behind. */
  signal: AbortSignal;
  /** Called with the number of values just drawn. */
  onDrawn(values: number): void;
}

/** The config that is written for a model of this one: of a LLaVA, in the form that transformers runs. */
export function freshConfig(config: ModelConfig): ModelConfig {
  const tensors = new Map(modelParameters(config).map(({ name, dims }) => [name, { shape: [...dims], data: () => [] }]));
  return { ...config, ...hubForm(config, tensors).config, transformers_version: TRANSFORMERS_VERSION };
}

/**
 * Writes a checkpoint of a `config` as of `freshConfig`, with the values that training would start from.
 */
export async function writeFreshCheckpoint(config: ModelConfig, out: string, options: FreshOptions): Promise<void> {
  const { dtype, seed, maxShardSize, tokenizer, signal, onDrawn } = options;
  function* pieces({ name, dims, initializer }: Omit<Parameter, 'tensor'>) {
    // one stream of numbers per tensor, so that its values do not depend on the others
    const random = createRandom(seed, name);
    for (let left = elementCount(dims); left > 0; left -= PIECE) {
      signal.throwIfAborted();
      const values = Math.min(left, PIECE);
      yield initialize({ dims: [values], initializer }, random);
      onDrawn(values);
    }
  }
  const parameters = modelParameters(config);
  await saveCheckpoint(out, {
    config: { ...config, dtype },
    tensors: new Map(parameters.map((parameter) => [parameter.name, { shape: [...parameter.dims], data: () => pieces(parameter) }])),
    dtype: storedFloats[dtype],
    maxShardSize,
    files: await furtherFiles(config, tokenizer),
  });
}

/** The folder's files other than config.json and the weights. */
async function furtherFiles(config: ModelConfig, tokenizer: string | undefined): Promise<Record<string, string>> {
  const files: Record<string, string> = {};
  const parsed = llavaConfigSchema.safeParse(config);
  if (config.model_type === 'llava' && parsed.success)
    Object.assign(
      files,
      processorFilesOf(parsed.data, imageProcessorConfig.parse(imageProcessorFor(parsed.data.vision_config.image_size))),
    );
  if (config.model_type === 'clip_vision_model')
    files[PROCESSOR_FILE] = `${JSON.stringify(imageProcessorFor(config.image_size as number), null, 2)}\n`;
  if (tokenizer !== undefined) Object.assign(files, hubTokenizerFiles(await readTokenizerFiles(resolvePath(tokenizer, 'the tokenizer'))));
  return files;
}
