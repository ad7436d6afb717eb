// A LLaVA as a folder for transformers.js 4 (LlavaForConditionalGeneration, LlavaProcessor): three graphs in
// onnx/, and the files beside them with what its classes read of them.

import { join } from 'node:path';
import { replaceFolder } from '../checkpoint/checkpoint.ts';
import { makeFolder } from '../disk.ts';
import { UserError } from '../errors.ts';
import type { ImageProcessorConfig } from '../images/processor.ts';
import { imageSize, imageTokenCount, type LlavaConfig } from '../models/llava.ts';
import { decoderPart, embedTokensPart, visionEncoderPart } from '../models/onnx-parts.ts';
import type { Graph } from '../models/programs.ts';
import { patchesPerSide } from '../models/vision.ts';
import type { StorageOf } from '../nn/parameters.ts';
import { plannedFormat, type Quantization } from '../weights/quantize.ts';
import { writeFileAtomically } from '../weights/safetensors.ts';
import { checkDtypes, newFolder } from './new-folder.ts';
import { type OnnxFileOptions, type WrittenFile, writeOnnxFile } from './onnx-file.ts';
import type { ExportSource } from './source.ts';

interface DtypeForm {
  /** Of the file names, as transformers.js has it. */
  suffix: string;
  quantize?: Quantization;
  /** What is not packed is stored in float16; everything is computed in float32. */
  half?: boolean;
}

/** The dtypes of transformers.js that are written. */
export const ONNX_DTYPES = {
  fp32: { suffix: '' },
  fp16: { suffix: '_fp16', half: true },
  q8: { suffix: '_quantized', quantize: 'int8' },
  q4: { suffix: '_q4', quantize: 'int4' },
  q4f16: { suffix: '_q4f16', quantize: 'int4', half: true },
} as const satisfies Record<string, DtypeForm>;
export type OnnxDtype = keyof typeof ONNX_DTYPES;

/** What every WebGPU device takes in one buffer (maxStorageBufferBindingSize, its least value). */
const BUFFER_LIMIT = 2 ** 27;
/** Below this, an .onnx file holds its weights. */
const INLINE_LIMIT = 2 ** 28;
/** Files of weights, as a browser can hold them in one ArrayBuffer. */
const SHARD_SIZE = 2 ** 31 - 2 ** 20;
/** transformers.js reads no more files of weights a graph. */
const MAX_SHARDS = 100;

export interface TransformersJsOptions extends Partial<Pick<OnnxFileOptions, 'bufferLimit' | 'inlineLimit' | 'maxShardSize'>> {
  dtypes: readonly OnnxDtype[];
  onFile?: (name: string, bytes: number) => void;
}

const graphs = { vision_encoder: visionEncoderPart, embed_tokens: embedTokensPart, decoder_model_merged: decoderPart };

/** Writes the folder `out`; it is there complete or not at all. UserError for a model that it cannot hold. */
export async function exportTransformersJs(source: ExportSource, out: string, options: TransformersJsOptions): Promise<void> {
  const { bufferLimit = BUFFER_LIMIT, inlineLimit = INLINE_LIMIT, dtypes, onFile } = options;
  const maxShardSize = Math.min(SHARD_SIZE, options.maxShardSize ?? SHARD_SIZE);
  checkDtypes(dtypes, Object.keys(ONNX_DTYPES));
  await replaceFolder(newFolder(out), async (folder) => {
    makeFolder(join(folder, 'onnx'));
    const shards: Record<string, number> = {};
    for (const dtype of dtypes) {
      const form: DtypeForm = ONNX_DTYPES[dtype];
      for (const [name, graphOf] of Object.entries(graphs)) {
        const graph: Graph = graphOf(source.config, { storage: storageOf(form) });
        const file = `${name}${form.suffix}`;
        const packedAccuracy = name === 'vision_encoder' ? 'float32' : 'int8';
        const limits = { bufferLimit, inlineLimit, maxShardSize, halfScales: form.half === true, packedAccuracy } as const;
        const written: WrittenFile = await writeOnnxFile(join(folder, 'onnx'), file, graph, source, limits);
        if (written.shards > MAX_SHARDS)
          throw new UserError(`${out}: ${file} would need ${written.shards} files of weights: give larger ones`);
        if (written.shards > 0) shards[`${file}.onnx`] = written.shards;
        onFile?.(join('onnx', `${file}.onnx`), written.bytes);
      }
    }
    for (const [name, content] of Object.entries(filesOf(source, shards, dtypes))) {
      await writeFileAtomically(join(folder, name), [typeof content === 'string' ? Buffer.from(content, 'utf8') : content]);
    }
  });
}

/** How a parameter is stored: matrices packed or in float16, vectors in float32. */
function storageOf({ quantize, half }: DtypeForm): StorageOf {
  return (name, dims) => (quantize && plannedFormat(name, dims, quantize)) ?? (half && dims.length > 1 ? 'float16' : 'float32');
}

function filesOf(source: ExportSource, shards: Record<string, number>, dtypes: readonly OnnxDtype[]): Record<string, string | Uint8Array> {
  const { config, processor } = source;
  const text = (value: object) => `${JSON.stringify(value, null, 2)}\n`;
  const { dtype: _, ...json } = source.json;
  const settings = {
    // Node takes fp32 by itself, a browser q8: what is there must be said
    ...(dtypes.length === 1 ? { dtype: dtypes[0] } : {}),
    ...(Object.keys(shards).length > 0 ? { use_external_data_format: shards } : {}),
  };
  return {
    ...source.files,
    ...withoutOwnStart(source.files),
    'config.json': text({ ...json, ...(Object.keys(settings).length > 0 ? { 'transformers.js_config': settings } : {}) }),
    'preprocessor_config.json': text(imageProcessorOf(processor, imageSize(config))),
    'processor_config.json': text(processorOf(config)),
  };
}

/**
 * tokenizer.json and tokenizer_config.json of a tokenizer that puts no `<bos>` before a text: the chat
 * template has written one already, and LlavaProcessor encodes what it has written as any other text.
 */
function withoutOwnStart(files: ExportSource['files']): Record<string, string> {
  const json = (name: string) => JSON.parse(Buffer.from(files[name]).toString('utf8')) as Record<string, unknown>;
  return {
    'tokenizer.json': JSON.stringify({ ...json('tokenizer.json'), post_processor: null }),
    'tokenizer_config.json': `${JSON.stringify({ ...json('tokenizer_config.json'), add_bos_token: false }, null, 2)}\n`,
  };
}

/**
 * preprocessor_config.json for the classes of transformers.js, which know no LlavaImageProcessor. They pad
 * after they have normalized, where 0 is the mean color, and at the right and the bottom: where ours pads
 * to a square in the middle, the picture stands at another place.
 */
function imageProcessorOf({ do_pad, size, crop_size, do_center_crop, ...rest }: ImageProcessorConfig, side: number): object {
  const type = rest.image_processor_type;
  const known = ['LlavaImageProcessor', 'BlipImageProcessor'].includes(type) ? 'CLIPImageProcessor' : type;
  const common = { ...rest, image_processor_type: known, processor_class: 'LlavaProcessor', do_convert_rgb: true };
  if (!do_pad) return { ...common, size, do_center_crop, ...(do_center_crop ? { crop_size } : {}) };
  const square = { height: side, width: side };
  return { ...common, size: { longest_edge: side, shortest_edge: side }, do_center_crop: false, do_pad, pad_size: square };
}

/** processor_config.json: LlavaProcessor writes as many `<image>` as there are patches, and these more. */
function processorOf(config: LlavaConfig): object {
  const patches = patchesPerSide(config.vision_config, imageSize(config)) ** 2;
  return {
    processor_class: 'LlavaProcessor',
    image_token: '<image>',
    patch_size: config.vision_config.patch_size,
    num_additional_image_tokens: imageTokenCount(config) - patches,
    vision_feature_select_strategy: config.vision_feature_select_strategy,
  };
}
