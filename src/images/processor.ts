// Hugging Face's image processors, and the pixel values that they ask for: pad, resize, crop, rescale and
// normalize, with the numbers of each class (image_processing_backends.py and models/*/image_processing_*.py
// of transformers 5.18).

import { z } from 'zod';
import { concatFloat32 } from '../arrays.ts';
import { UserError } from '../errors.ts';
import { decodeImage } from './decode.ts';
import type { PixelImage } from './pixels.ts';
import { type Rectangle, type ResizeFilter, resizeImage } from './resize.ts';
import { centerCrop, centerOf, normalizeToPlanes, type Size, squareAround } from './transform.ts';

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

/** As in transformers, a step that is null is not taken; another null stands for the class's default. */
function withClassDefaults(config: unknown): unknown {
  if (typeof config !== 'object' || config === null) return config;
  const given = Object.fromEntries(
    Object.entries(config).flatMap(([name, value]) => (value !== null ? [[name, value]] : name.startsWith('do_') ? [[name, false]] : [])),
  );
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
  /**
   * A field of our own: `white` lays transparent parts on white; `drop` leaves them the color that the file
   * has there, as Pillow does.
   */
  transparency: z.enum(['drop', 'white']).default('drop'),
});

/**
 * The fields of an image processor, from `preprocessor_config.json` or processor_config.json; unknown keys
 * are kept. What is missing has the value of the class that the file names; without a name it is CLIP's.
 */
export const imageProcessorConfig = z.preprocess(withClassDefaults, fields);

export type ImageProcessorConfig = z.infer<typeof imageProcessorConfig>;

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

/** No picture has more pixels than this on its way to the encoder. */
const MAX_PIXELS = 100_000_000;

/**
 * Turns an RGB image into pixel values float32 `[3, height, width]`: pad, resize, crop, rescale and
 * normalize, in this order, each if the config asks for it. Of what padding and resizing would make of a very
 * long picture, only the part that is left in the end is computed. UserError, which begins with `name`, where
 * even that is too large.
 */
export function processImage(image: PixelImage, config: ImageProcessorConfig, name = 'image'): Float32Array<ArrayBuffer> {
  const { canvas, resized, window, made } = placement(image, config);
  // resizing makes rows as wide as the result first, one for each of the picture's
  for (const size of [made, { width: window.width, height: image.height }]) checkSize(image, size, name);
  let result = resizeImage(image, resized.width, resized.height, resampling[config.resample], { canvas, window });
  if (config.do_center_crop) result = centerCrop(result, made.width, made.height);
  const rescale = config.do_rescale ? config.rescale_factor : 1;
  return config.do_normalize
    ? normalizeToPlanes(result, rescale, config.image_mean, config.image_std)
    : normalizeToPlanes(result, rescale, [0, 0, 0], [1, 1, 1]);
}

/**
 * What becomes of a picture: the canvas that it is padded to, the size that this is resized to, the part of
 * it that is kept, and the size of the result.
 */
function placement(image: Size, config: ImageProcessorConfig) {
  const [red, green, blue] = config.image_mean.map((mean) => Math.trunc(mean * 255));
  const canvas = config.do_pad && image.width !== image.height ? squareAround(image, [red, green, blue]) : undefined;
  const { width, height } = canvas ?? image;
  const resized = config.do_resize ? resizedSize({ width, height }, config.size) : { width, height };
  const window = config.do_center_crop ? centerOf(resized, config.crop_size) : { left: 0, top: 0, ...resized };
  return { canvas, resized, window, made: config.do_center_crop ? config.crop_size : resized };
}

/**
 * The part of a picture that the encoder sees, in shares of its width and height from its top left: beyond
 * the picture where it is padded, less than all of it where it is cropped.
 */
export function seenPart(image: Size, config: ImageProcessorConfig): Rectangle {
  const { canvas, resized, window, made } = placement(image, config);
  const { width, height, left, top } = canvas ?? { ...image, left: 0, top: 0 };
  const [x, y] = [width / resized.width, height / resized.height];
  // a crop that is larger than the picture has it in its middle
  const from = {
    left: window.left + Math.floor((window.width - made.width) / 2),
    top: window.top + Math.floor((window.height - made.height) / 2),
  };
  return {
    left: (from.left * x - left) / image.width,
    top: (from.top * y - top) / image.height,
    width: (made.width * x) / image.width,
    height: (made.height * y) / image.height,
  };
}

function checkSize(image: Size, becomes: Size, name: string): void {
  const pixels = becomes.width * becomes.height;
  if (pixels > 0 && pixels <= MAX_PIXELS) return;
  const text = ({ width, height }: Size) => `${width} x ${height}`;
  const fault = pixels > 0 ? `more than ${MAX_PIXELS}` : 'which is nothing';
  throw new UserError(
    `${name}: the picture has ${text(image)} pixels and would become ${text(becomes)} while it is resized, ${fault}; crop it`,
  );
}

/**
 * The picture that pixel values [3 * height * width] are of: what an encoder sees, with colors as
 * `processImage` found them.
 */
export function pictureOf(pixelValues: Float32Array, { height, width }: Size, config: ImageProcessorConfig): PixelImage {
  const { do_rescale, rescale_factor, do_normalize, image_mean, image_std } = config;
  const rescale = do_rescale ? rescale_factor : 1;
  const [mean, std] = do_normalize
    ? [image_mean, image_std]
    : [
        [0, 0, 0],
        [1, 1, 1],
      ];
  const area = height * width;
  const data = new Uint8Array(area * 3);
  for (let channel = 0; channel < 3; channel++)
    for (let i = 0; i < area; i++) {
      const value = (pixelValues[channel * area + i] * std[channel] + mean[channel]) / rescale;
      data[i * 3 + channel] = Math.round(Math.min(255, Math.max(0, value)));
    }
  return { width, height, channels: 3, data };
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
  // one picture is its own list: no copy
  return pixels.length === 1 ? pixels[0] : concatFloat32(pixels);
}
