// A LLaVA as every export begins: checked, whole, in the form in which models leave this project
// (pretrained/hub-form.ts), so that the embedding has a row for `<image>` and image rows are not scaled.

import { join } from 'node:path';
import { readTokenizerFiles, type TokenizerFiles } from '../checkpoint/tokenizer-files.ts';
import { UserError } from '../errors.ts';
import { type ImageProcessorConfig, imageProcessorConfig } from '../images/processor.ts';
import { type LlavaConfig, llavaConfigSchema } from '../models/llava.ts';
import { packedName } from '../nn/parameters.ts';
import { type ConvertOptions, filesBeside, hubContents, usualType } from '../pretrained/convert.ts';
import { checkConfig, openModel } from '../pretrained/folder.ts';
import type { FloatTensor } from '../pretrained/hub-form.ts';
import { checkTokenizer } from '../pretrained/load.ts';
import { withImageSize } from '../pretrained/processor.ts';
import { allFinite, notFiniteText } from '../pretrained/values.ts';
import { createTokenizer, type Tokenizer } from '../text/tokenizer.ts';
import type { FloatType } from '../weights/dtype.ts';
import { elementCount } from '../weights/safetensors.ts';

/** A model to be exported. */
export interface ExportSource {
  dir: string;
  config: LlavaConfig;
  /** config.json as it leaves. */
  json: Record<string, unknown>;
  /** The type of most of its floats. */
  dtype: FloatType;
  processor: ImageProcessorConfig;
  tokenizer: Tokenizer;
  tokenizerFiles: TokenizerFiles;
  /** Files of a Hugging Face folder beside config.json and weights, by name. */
  files: Record<string, string | Uint8Array>;
  /**
   * A tensor by Hugging Face name. UserError, naming it, where it is missing or has other dims than `dims`.
   */
  tensor(name: string, dims?: readonly number[]): FloatTensor;
  has(name: string): boolean;
  /** Weights in all. */
  parameters: number;
}

/**
 * Opens the LLaVA in `dir` for `body`, with the adapter of `adapter` in its weights. UserError for a folder
 * that is no LLaVA, or whose weights are packed: a second rounding would cost more than the first.
 */
export async function withExportSource<R>(
  dir: string,
  body: (source: ExportSource) => Promise<R>,
  { adapter }: { adapter?: ConvertOptions['adapter'] } = {},
): Promise<R> {
  const model = await openModel(dir);
  try {
    const configFile = join(dir, 'config.json');
    if (model.names.some((name) => name.endsWith(packedName(''))))
      throw new UserError(`${dir}: its weights are quantized already: export the model that they were made from`);
    checkConfig(llavaConfigSchema, model.config, configFile);
    const { config: json, floats } = await hubContents(model, { adapter });
    const { value, file } = await model.imageProcessor();
    const processor = checkConfig(imageProcessorConfig, value, file);
    const config = withImageSize(checkConfig(llavaConfigSchema, json, configFile), processor, file);
    const tokenizerFiles = await readTokenizerFiles(dir);
    const tokenizer = createTokenizer(tokenizerFiles.tokenizerJson, tokenizerFiles.tokenizerConfig);
    checkTokenizer(tokenizer, config, dir);
    const bad = new Set<string>();
    /** Its numbers, of which those that are none are noted. */
    async function* watched(name: string, { data }: FloatTensor): AsyncGenerator<Float32Array> {
      for await (const piece of data()) {
        if (!allFinite(piece)) bad.add(name);
        yield piece;
      }
    }
    const result = await body({
      dir,
      config,
      json,
      dtype: usualType(model),
      processor,
      tokenizer,
      tokenizerFiles,
      files: await filesBeside(dir, model),
      has: (name) => floats.has(name),
      tensor(name, dims) {
        const found = floats.get(name);
        if (!found) throw new UserError(`${dir}: the checkpoint has no tensor ${JSON.stringify(name)}`);
        if (dims && found.shape.join() !== dims.join())
          throw new UserError(`${dir}: ${name} has shape [${found.shape.join(', ')}], but config.json asks for [${dims.join(', ')}]`);
        return { ...found, data: () => watched(name, found) };
      },
      parameters: [...floats.values()].reduce((sum, { shape }) => sum + elementCount(shape), 0),
    });
    if (bad.size > 0) console.error(`warning: ${dir}: ${notFiniteText([...bad].map((name) => ({ name, isBeyondFloat16: false })))}`);
    return result;
  } finally {
    await model.close();
  }
}

/**
 * The values of a tensor in pieces that are whole rows of `columns` numbers; each is overwritten by the
 * next.
 */
export async function* rowsOf({ data }: FloatTensor, columns: number): AsyncGenerator<Float32Array> {
  let rest = new Float32Array(0);
  for await (const piece of data()) {
    let all = piece;
    if (rest.length > 0) {
      all = new Float32Array(rest.length + piece.length);
      all.set(rest);
      all.set(piece, rest.length);
    }
    const whole = all.length - (all.length % columns);
    if (whole > 0) yield all.subarray(0, whole);
    rest = all.slice(whole);
  }
}
