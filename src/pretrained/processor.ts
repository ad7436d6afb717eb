// Image processors of Hugging Face folders, which define how an image becomes pixel values.

import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { readJsonFile } from '../checkpoint/checkpoint.ts';
import { UserError } from '../errors.ts';
import { type ImageProcessorConfig, processedSize, readPixelValues } from '../images/processor.ts';
import { imageSize, type LlavaConfig } from '../models/llava.ts';
import { prefixTokens } from '../models/vision.ts';

export const PROCESSOR_FILE = 'preprocessor_config.json';

/** An image processor as a file has it, not yet validated, and the path of the file. */
export interface StoredProcessor {
  value: unknown;
  file: string;
}

/**
 * The image processor of the folder `dir`, whose config.json has this `model_type`; undefined where there is
 * none. As in transformers 5.18 (image_processing_base.py), one inside processor_config.json comes before
 * preprocessor_config.json, and the model decides the class of one that names none.
 */
export async function readImageProcessor(dir: string, modelType: unknown): Promise<StoredProcessor | undefined> {
  for (const name of ['processor_config.json', PROCESSOR_FILE]) {
    const file = join(dir, name);
    if (!existsSync(file)) continue;
    const content = await readJsonFile(file);
    const value = name === PROCESSOR_FILE ? content : (content as { image_processor?: unknown } | null)?.image_processor;
    if (value === undefined || value === null) continue;
    const { image_processor_type, feature_extractor_type } = value as Record<string, unknown>;
    const isNamed = (image_processor_type ?? feature_extractor_type) !== undefined;
    const isSiglip = !isNamed && String(modelType).startsWith('siglip');
    return { value: isSiglip ? { ...value, image_processor_type: 'SiglipImageProcessor' } : value, file };
  }
  return undefined;
}

/** The same for a folder that must have one. UserError, naming its file, where there is none. */
export async function requireImageProcessor(dir: string, modelType: unknown): Promise<StoredProcessor> {
  const found = await readImageProcessor(dir, modelType);
  if (!found) throw new UserError(`${join(dir, PROCESSOR_FILE)}: no such file, and no image_processor in a processor_config.json`);
  return found;
}

/**
 * preprocessor_config.json of LLaVA-1.5 for images of `size` pixels: pad to a square in the mean color,
 * resize, CLIP's mean and standard deviation. In transformers, LlavaImageProcessor pads to a square;
 * CLIPImageProcessor ignores `do_pad`.
 */
export function imageProcessorFor(size: number) {
  return {
    image_processor_type: 'LlavaImageProcessor',
    do_pad: true,
    do_resize: true,
    size: { shortest_edge: size },
    resample: 3,
    do_center_crop: true,
    crop_size: { height: size, width: size },
    do_rescale: true,
    rescale_factor: 1 / 255,
    do_normalize: true,
    image_mean: [0.48145466, 0.4578275, 0.40821073],
    image_std: [0.26862954, 0.26130258, 0.27577711],
    do_convert_rgb: true,
  } satisfies Partial<ImageProcessorConfig> & Record<string, unknown>;
}

/**
 * The files of a LLaVA folder that define how an image becomes image rows: text by file name.
 * transformers 5 reads processor_config.json, older software preprocessor_config.json. Every field of the
 * image processor is written, since the classes' defaults differ.
 */
export function processorFilesOf(config: LlavaConfig, imageProcessor: ImageProcessorConfig): Record<string, string> {
  const { vision_config: vision, vision_feature_select_strategy } = config;
  const { crop_size, ...rest } = imageProcessor;
  const image_processor = {
    ...rest,
    ...(rest.do_center_crop ? { crop_size } : {}),
    ...(rest.do_pad ? { image_processor_type: 'LlavaImageProcessor' } : {}),
    processor_class: undefined,
  };
  const files = {
    [PROCESSOR_FILE]: { ...image_processor, processor_class: 'LlavaProcessor' },
    'processor_config.json': {
      processor_class: 'LlavaProcessor',
      image_processor,
      image_token: '<image>',
      patch_size: vision.patch_size,
      num_additional_image_tokens: prefixTokens(vision),
      vision_feature_select_strategy,
    },
  };
  return Object.fromEntries(Object.entries(files).map(([name, value]) => [name, `${JSON.stringify(value, null, 2)}\n`]));
}

/**
 * The config with the image size that `processor` outputs: the processor alone decides the size for an
 * encoder that takes any. UserError, naming the processor's `file`, if the images are not squares of one size
 * that the encoder takes.
 */
export function withImageSize(config: LlavaConfig, processor: ImageProcessorConfig, file: string): LlavaConfig {
  const made = processedSize(processor);
  if (!made) throw new UserError(`${file}: pictures come out in different sizes: set do_center_crop, or a size of height and width`);
  if (made.width !== made.height)
    throw new UserError(`${file}: pictures come out ${made.width} x ${made.height} pixels, but the encoder takes squares`);
  const { image_size: _, ...rest } = config;
  const sized: LlavaConfig = made.width === config.vision_config.image_size ? rest : { ...rest, image_size: made.width };
  try {
    imageSize(sized);
  } catch (error) {
    throw error instanceof UserError ? new UserError(`${file}: ${error.message}`) : error;
  }
  return sized;
}

/**
 * Image files as one batch for the encoder: float32 [images * 3 * size * size]. They all have one size once
 * processed. `contents` are the bytes of files that were read already. UserError, naming the file, for one
 * that is no image.
 */
export function pixelValuesOf(
  paths: readonly string[],
  processor: ImageProcessorConfig,
  contents?: readonly Uint8Array[],
): Promise<Float32Array> {
  return readPixelValues(contents ?? paths, processor, paths);
}
