// Decodes image files to pixels: with sharp (libvips) PNG, JPEG, WebP, GIF, TIFF, AVIF and SVG, and BMP.
// Colors are those of Pillow's `convert("RGB")`, which LLaVA and the image processors of transformers call:
// neither transparency nor a color profile changes them.

import { readFile } from 'node:fs/promises';
import sharp from 'sharp';
import { systemReason, UserError } from '../errors.ts';
import { refusePointer } from '../git-lfs.ts';
import { decodeBmp, isBmp } from './bmp.ts';
import { firstBytesOf, notAPath, notRead, TELLING_BYTES } from './first-bytes.ts';
import type { PixelImage } from './pixels.ts';

// libvips keeps what it has decoded by the name of the file, also where that has changed since
sharp.cache(false);

export interface DecodeOptions {
  /** What errors call the image. Default: its path, or "image". */
  name?: string;
  /**
   * `drop` gives the color that a transparent pixel has in the file, as Pillow does; `white` lays transparent
   * parts on white; `keep` returns RGBA. A drawing (SVG) has no color where it is transparent: there, `drop`
   * is `white`. Default: drop.
   */
  alpha?: 'drop' | 'white' | 'keep';
  /** Larger images are refused, so that a small file cannot take up all memory. Default: 100 million. */
  maxPixels?: number;
}

/**
 * Decodes a file, given by path or as bytes, to 8-bit RGB, turned upright according to its EXIF orientation.
 * Of an animation, the first frame. Throws a `UserError` that names the file if it is missing, not an image,
 * damaged or too large.
 */
export async function decodeImage(source: string | Uint8Array, options: DecodeOptions = {}): Promise<PixelImage> {
  const { name = typeof source === 'string' ? source : 'image', alpha = 'drop', maxPixels = 100_000_000 } = options;
  if (source === '') throw new UserError('an image has an empty path; give a file');
  let start: Uint8Array | undefined;
  try {
    start = typeof source === 'string' ? await firstBytesOf(source, TELLING_BYTES) : source;
    if (isBmp(start)) return await decodeBmp(await bytesOf(source), maxPixels);
    return await decodeWithSharp(source, start, alpha, maxPixels);
  } catch (error) {
    const message = error instanceof Error ? error.message.split('\n')[0] : String(error);
    if (/no such file/.test(message)) {
      const advice = typeof source === 'string' ? notAPath(source) : undefined;
      throw new UserError(`${name}: there is no such image file${advice === undefined ? '' : `: ${advice}`}.`);
    }
    if (start) refusePointer(start, name);
    if (/exceeds pixel limit/i.test(message)) throw new UserError(`${name}: the image has more than ${maxPixels} pixels.`);
    const reason = systemReason(error) ?? (start && notRead(start));
    throw new UserError(`${name}: cannot be read as an image${reason ? `: ${reason}` : ` (${message})`}.`);
  }
}

const bytesOf = async (source: string | Uint8Array) => (typeof source === 'string' ? readFile(source) : source);

/** Whether these bytes begin a TIFF file. */
const isTiff = ([first, second]: Uint8Array) => first === second && (first === 0x49 || first === 0x4d);

async function decodeWithSharp(
  source: string | Uint8Array,
  start: Uint8Array,
  alpha: 'drop' | 'white' | 'keep',
  maxPixels: number,
): Promise<PixelImage> {
  // of a TIFF cut short, libvips calls what is missing an error, not truncated
  const failOn = isTiff(start) ? 'error' : 'truncated';
  const input = sharp(source, { limitInputPixels: maxPixels, failOn, ignoreIcc: true }).autoOrient();
  const { format, space, hasAlpha } = await input.metadata();
  if (space === 'cmyk') {
    const { data, info } = await input.pipelineColourspace('cmyk').toColourspace('cmyk').raw().toBuffer({ resolveWithObject: true });
    return { width: info.width, height: info.height, channels: 3, data: rgbOfCmyk(data, info.channels) };
  }
  const isOnWhite = alpha === 'white' || (alpha === 'drop' && format === 'svg');
  const hidesColors = alpha === 'drop' && format === 'gif' && hasAlpha;
  let pipeline = input.toColourspace('srgb');
  if (isOnWhite) pipeline = pipeline.flatten({ background: '#ffffff' });
  const isRgba = alpha === 'keep' || hidesColors;
  pipeline = isRgba ? pipeline.ensureAlpha() : pipeline.removeAlpha();
  const { data, info } = await pipeline.raw({ depth: 'uchar' }).toBuffer({ resolveWithObject: true });
  const pixels = new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
  const image: PixelImage = { width: info.width, height: info.height, channels: isRgba ? 4 : 3, data: pixels };
  return hidesColors ? filled(image, hiddenGifColor(await bytesOf(source))) : image;
}

/** CMYK, `channels` bytes a pixel, as Pillow converts it: without a profile. */
function rgbOfCmyk(data: Uint8Array, channels: number): Uint8Array {
  const pixels = new Uint8Array((data.length / channels) * 3);
  for (let i = 0; i < pixels.length; i++) {
    const at = Math.floor(i / 3) * channels;
    const light = 255 - data[at + 3];
    const product = data[at + (i % 3)] * light + 128;
    pixels[i] = light - ((product + (product >> 8)) >> 8);
  }
  return pixels;
}

/** RGBA as RGB, with `color` in place of what is transparent. */
function filled({ width, height, data }: PixelImage, color: Uint8Array): PixelImage {
  const pixels = new Uint8Array(width * height * 3);
  for (let i = 0; i < pixels.length; i++) {
    const at = Math.floor(i / 3) * 4;
    pixels[i] = data[at + 3] === 0 ? color[i % 3] : data[at + (i % 3)];
  }
  return { width, height, channels: 3, data: pixels };
}

/**
 * The color that the first frame of a GIF has in its palette for transparent pixels; libvips leaves them
 * black. Blocks are those of the GIF89a specification.
 */
function hiddenGifColor(bytes: Uint8Array): Uint8Array {
  const paletteBytes = (flags: number) => (flags & 0x80 ? 3 * 2 ** ((flags & 7) + 1) : 0);
  let at = 13 + paletteBytes(bytes[10]);
  let transparent = 0;
  // extensions come before the frame; one of them names the transparent color
  while (bytes[at] === 0x21) {
    if (bytes[at + 1] === 0xf9 && bytes[at + 3] & 1) transparent = bytes[at + 6];
    at += 2;
    while (bytes[at] > 0) at += bytes[at] + 1;
    at++;
  }
  const palette = paletteBytes(bytes[at + 9]) > 0 ? at + 10 : 13;
  const color = bytes.subarray(palette + 3 * transparent, palette + 3 * transparent + 3);
  return color.length === 3 ? color : new Uint8Array(3);
}
