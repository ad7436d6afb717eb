// Hugging Face's image processors, and the pixel values that they ask for: pad, resize, crop, rescale and
// normalize, with the numbers of each class (image_processing_backends.py and models/*/image_processing_*.py
// of transformers 5.18).

import { z } from 'zod';
import type { PixelImage } from './pixels.ts';
import { type ResizeFilter, resizeImage } from './resize.ts';
import { centerCrop, normalizeToPlanes, padToSquare } from './transform.ts';

/** Resize filters in the order of Pillow's numbers. */
const resampling: readonly ResizeFilter[] = ['nearest', 'lanczos', 'bilinear', 'bicubic', 'box', 'hamming'];

const side = z.int().positive();
const rectangle = z.strictObject({ height: side, width: side });
const channels = z.tuple([z.number(), z.number(), z.number()]);
const ofChannels = z.preprocess((value) => (typeof value === 'number' ? [value, value, value] : value), channels);
const sizeForms = [
  rectangle,
  z.strictObject({ shortest_edge: side, longest_edge: side }),
  z.strictObject({ shortest_edge: side }),
  z.strictObject({ max_height: side, max_width: side }),
] as const;
const sizeError = 'must be a height and width, a shortest_edge, a shortest_edge and longest_edge, or a max_height and max_width';

const openai = { image_mean: [0.48145466, 0.4578275, 0.40821073], image_std: [0.26862954, 0.26130258, 0.27577711] };
const half = { image_mean: [0.5, 0.5, 0.5], image_std: [0.5, 0.5, 0.5] };
const square = (side: number) => ({ height: side, width: side });
const clip = { size: { shortest_edge: 224 }, do_center_crop: true, resample: 3, ...openai };

/** What each class takes for the fields that a file leaves out. */
const classes: Readonly<Record<string, Record<string, unknown> & { numberIsSquare?: true }>> = {
  CLIPImageProcessor: clip,
  LlavaImageProcessor: clip,
  BitImageProcessor: clip,
  SiglipImageProcessor: { size: square(224), resample: 3, ...half },
  ViTImageProcessor: { size: square(224), resample: 2, numberIsSquare: true, ...half },
  DeiTImageProcessor: { ...clip, size: square(256), numberIsSquare: true, ...half },
  BlipImageProcessor: { size: square(384), resample: 3, numberIsSquare: true, ...openai },
};

/**
 * The class that a file names, without what says how it is computed; older files name a feature extractor.
 */
function classOf({ image_processor_type: type, feature_extractor_type: older }: Record<string, unknown>): unknown {
  const name = type ?? older ?? 'CLIPImageProcessor';
  return typeof name === 'string' ? name.replace(/FeatureExtractor$/, 'ImageProcessor').replace(/(Fast|Pil)$/, '') : name;
}

/** A single number, or a list of height and width, as the object that it stands for. */
function sizeOf(value: unknown, numberIsSquare: boolean): unknown {
  if (typeof value === 'number') return numberIsSquare ? square(value) : { shortest_edge: value };
  return Array.isArray(value) ? { height: value[0], width: value[1] } : value;
}

/** Null stands for the class's default, as a field that is missing does. */
function withClassDefaults(config: unknown): unknown {
  if (typeof config !== 'object' || config === null) return config;
  const given = Object.fromEntries(Object.entries(config).filter(([, value]) => value !== null));
  const name = classOf(given);
  const { numberIsSquare = false, ...defaults } = Object.hasOwn(classes, String(name)) ? classes[String(name)] : {};
  const all: Record<string, unknown> = { ...defaults, ...given, image_processor_type: name };
  return { ...all, size: sizeOf(all.size, numberIsSquare), crop_size: sizeOf(all.crop_size ?? 224, true) };
}

const fields = z.looseObject({
  image_processor_type: z.enum(Object.keys(classes), { error: `must be one of ${Object.keys(classes).join(', ')}` }),
  do_resize: z.boolean().default(true),
  size: z.union(sizeForms, { error: sizeError }),
  /** Pillow's number of the filter: 0 nearest, 1 Lanczos, 2 bilinear, 3 bicubic, 4 box, 5 Hamming. */
  resample: z.literal([0, 1, 2, 3, 4, 5], { error: "must be one of Pillow's numbers 0 to 5" }),
  do_center_crop: z.boolean().default(false),
  crop_size: rectangle,
  do_rescale: z.boolean().default(true),
  rescale_factor: z.number().default(1 / 255),
  do_normalize: z.boolean().default(true),
  image_mean: ofChannels,
  image_std: ofChannels,
  /** Pad to a square in the mean color first, as LLaVA-1.5 does. */
  do_pad: z.boolean().default(false),
});

/**
 * The fields of an image processor, from `preprocessor_config.json` or processor_config.json; unknown keys
 * are kept. What is missing has the value of the class that the file names; without a name it is CLIP's.
 */
export const imageProcessorConfig = z.preprocess(withClassDefaults, fields);

export type ImageProcessorConfig = z.infer<typeof imageProcessorConfig>;

interface Size {
  height: number;
  width: number;
}

/** Rounds a half to the even neighbor, as Python does. */
const roundHalfEven = (x: number) => (x % 1 === 0.5 ? 2 * Math.round(x / 2) : Math.round(x));

/**
 * The size that an image is resized to, in pixels: get_size_with_aspect_ratio and its neighbors in
 * transformers.
 */
function resizedSize({ height, width }: Size, size: ImageProcessorConfig['size']): Size {
  if ('height' in size) return size;
  if ('max_height' in size) {
    const scale = Math.min(size.max_height / height, size.max_width / width);
    return { height: Math.trunc(height * scale), width: Math.trunc(width * scale) };
  }
  const [short, long] = [Math.min(height, width), Math.max(height, width)];
  let { shortest_edge: edge } = size;
  let exact = edge;
  if ('longest_edge' in size && (long / short) * edge > size.longest_edge) {
    exact = (size.longest_edge * short) / long;
    edge = roundHalfEven(exact);
  }
  const other = Math.trunc((exact * long) / short);
  return width <= height ? { width: edge, height: other } : { width: other, height: edge };
}

/** Size in pixels of `processImage`'s output; undefined if it depends on the image. */
export function processedSize(config: ImageProcessorConfig): Size | undefined {
  if (config.do_center_crop) return config.crop_size;
  if (!config.do_resize) return undefined;
  if ('height' in config.size) return config.size;
  // a square stays one
  return config.do_pad && 'shortest_edge' in config.size ? resizedSize({ width: 1, height: 1 }, config.size) : undefined;
}

/**
 * Turns an RGB image into pixel values float32 `[3, height, width]`: pad, resize, crop, rescale and
 * normalize, in this order, each if the config asks for it.
 */
export function processImage(image: PixelImage, config: ImageProcessorConfig): Float32Array<ArrayBuffer> {
  let result = image;
  if (config.do_pad) {
    const [red, green, blue] = config.image_mean;
    result = padToSquare(result, [Math.trunc(red * 255), Math.trunc(green * 255), Math.trunc(blue * 255)]);
  }
  if (config.do_resize) {
    const { width, height } = resizedSize(result, config.size);
    result = resizeImage(result, width, height, resampling[config.resample]);
  }
  if (config.do_center_crop) result = centerCrop(result, config.crop_size.width, config.crop_size.height);
  const rescale = config.do_rescale ? config.rescale_factor : 1;
  return config.do_normalize
    ? normalizeToPlanes(result, rescale, config.image_mean, config.image_std)
    : normalizeToPlanes(result, rescale, [0, 0, 0], [1, 1, 1]);
}
