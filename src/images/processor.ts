// Hugging Face's preprocessor_config.json, and the pixel values that it asks for. Covers CLIPImageProcessor,
// LlavaImageProcessor (do_pad), SiglipImageProcessor and BitImageProcessor (DINOv2): the same steps with
// different numbers.

import { z } from 'zod';
import { concatFloat32 } from '../arrays.ts';
import { UserError } from '../errors.ts';
import { decodeImage } from './decode.ts';
import type { PixelImage } from './pixels.ts';
import { type ResizeFilter, resizeImage } from './resize.ts';
import { centerCrop, centerOf, normalizeToPlanes, type Size, shortestEdge, squareAround } from './transform.ts';

const side = z.int().positive();
const rectangle = z.object({ height: side, width: side });
const threeNumbers = z.tuple([z.number(), z.number(), z.number()]);

/** Resize filters by Pillow's numbers. */
const resampling: Record<2 | 3, ResizeFilter> = { 2: 'bilinear', 3: 'bicubic' };

const fields = z.looseObject({
  do_resize: z.boolean().default(true),
  /** Older files have a number, which is the shortest edge. */
  size: z
    .union([side.transform((edge) => ({ shortest_edge: edge })), z.object({ shortest_edge: side }), rectangle])
    .default({ shortest_edge: 224 }),
  /** Pillow's number of the filter: 2 bilinear, 3 bicubic. */
  resample: z.union([z.literal(2), z.literal(3)]).default(3),
  /** By default, CLIP and BiT crop; processors with a fixed height and width (SigLIP) do not. */
  do_center_crop: z.boolean().optional(),
  crop_size: z.union([side.transform((edge) => ({ height: edge, width: edge })), rectangle]).default({ height: 224, width: 224 }),
  do_rescale: z.boolean().default(true),
  rescale_factor: z.number().default(1 / 255),
  do_normalize: z.boolean().default(true),
  image_mean: threeNumbers.default([0.48145466, 0.4578275, 0.40821073]),
  image_std: threeNumbers.default([0.26862954, 0.26130258, 0.27577711]),
  /** Pad to a square in the mean color first, as LLaVA-1.5 does. */
  do_pad: z.boolean().default(false),
  /**
   * A field of our own: `white` lays transparent parts on white; `drop` leaves them the color that the file
   * has there, as Pillow does.
   */
  transparency: z.enum(['drop', 'white']).default('drop'),
});

/** SiglipImageProcessor's values for fields that a file leaves out; the others have CLIP's. */
const siglipDefaults = { size: { height: 224, width: 224 }, image_mean: [0.5, 0.5, 0.5], image_std: [0.5, 0.5, 0.5] };

/** Files written by fast processors of transformers 4 have null for the class's default. */
function withClassDefaults(config: unknown): unknown {
  if (typeof config !== 'object' || config === null) return config;
  const given = Object.fromEntries(Object.entries(config).filter(([, value]) => value !== null));
  return String(given.image_processor_type).startsWith('SiglipImageProcessor') ? { ...siglipDefaults, ...given } : given;
}

/**
 * `preprocessor_config.json`; unknown keys are kept. Defaults are SigLIP's if it names that class, else
 * CLIP's.
 */
export const imageProcessorConfig = z.preprocess(withClassDefaults, fields).transform((config) => ({
  ...config,
  do_center_crop: config.do_center_crop ?? 'shortest_edge' in config.size,
}));

export type ImageProcessorConfig = z.infer<typeof imageProcessorConfig>;

/** Size in pixels of `processImage`'s output; undefined if it depends on the image. */
export function processedSize(config: ImageProcessorConfig): { height: number; width: number } | undefined {
  if (config.do_center_crop) return config.crop_size;
  if (!config.do_resize) return undefined;
  if (!('shortest_edge' in config.size)) return config.size;
  const { shortest_edge: edge } = config.size;
  return config.do_pad ? { height: edge, width: edge } : undefined;
}

/** No picture has more pixels than this on its way to the encoder. */
const MAX_PIXELS = 100_000_000;

/**
 * Turns an RGB image into pixel values float32 `[3, height, width]`: pad, resize, crop, rescale and
 * normalize, in this order, each if the config asks for it. Of what padding and resizing would make of a very
 * long picture, only the part that is left in the end is computed. UserError, which begins with `name`, where
 * even that is too large.
 */
export function processImage(image: PixelImage, config: ImageProcessorConfig, name = 'image'): Float32Array<ArrayBuffer> {
  const [red, green, blue] = config.image_mean.map((mean) => Math.trunc(mean * 255));
  const canvas = config.do_pad && image.width !== image.height ? squareAround(image, [red, green, blue]) : undefined;
  const resized = resizedSize(canvas ?? image, config);
  const window = config.do_center_crop ? centerOf(resized, config.crop_size) : { left: 0, top: 0, ...resized };
  const made = config.do_center_crop ? config.crop_size : resized;
  // resizing makes rows as wide as the result first, one for each of the picture's
  for (const size of [made, { width: window.width, height: image.height }]) checkSize(image, size, name);
  let result = resizeImage(image, resized.width, resized.height, resampling[config.resample], { canvas, window });
  if (config.do_center_crop) result = centerCrop(result, made.width, made.height);
  const rescale = config.do_rescale ? config.rescale_factor : 1;
  return config.do_normalize
    ? normalizeToPlanes(result, rescale, config.image_mean, config.image_std)
    : normalizeToPlanes(result, rescale, [0, 0, 0], [1, 1, 1]);
}

function resizedSize({ width, height }: Size, { do_resize, size }: ImageProcessorConfig): Size {
  if (!do_resize) return { width, height };
  return 'shortest_edge' in size ? shortestEdge({ width, height }, size.shortest_edge) : size;
}

function checkSize(image: Size, becomes: Size, name: string): void {
  if (becomes.width * becomes.height <= MAX_PIXELS) return;
  const text = ({ width, height }: Size) => `${width} x ${height}`;
  throw new UserError(
    `${name}: the picture has ${text(image)} pixels and would become ${text(becomes)} while it is resized, more than ${MAX_PIXELS}; crop it`,
  );
}

/** Pictures in memory at a time: libvips decodes no more at once. */
const DECODED_TOGETHER = 4;

/**
 * Pixel values of image files, given by path or as bytes, one after the other: float32
 * [images * 3 * height * width]. `names` are what errors call them. UserError names one that is missing, no
 * image, damaged or too large.
 */
export async function readPixelValues(
  sources: readonly (string | Uint8Array)[],
  config: ImageProcessorConfig,
  names?: readonly string[],
): Promise<Float32Array> {
  const pixels = new Array<Float32Array<ArrayBuffer>>(sources.length);
  let next = 0;
  const readOn = async () => {
    while (next < sources.length) {
      const i = next++;
      const source = sources[i];
      const name = names?.[i] ?? (typeof source === 'string' ? source : 'image');
      pixels[i] = processImage(await decodeImage(source, { name, alpha: config.transparency }), config, name);
    }
  };
  await Promise.all(Array.from({ length: DECODED_TOGETHER }, readOn));
  return concatFloat32(pixels);
}
