// Decodes image files to pixels with sharp (libvips): PNG, JPEG, WebP, SVG and whatever else the installed
// libvips reads.

import sharp from 'sharp';
import { UserError } from '../errors.ts';
import { refusePointer, refusePointerFile } from '../git-lfs.ts';
import type { PixelImage } from './pixels.ts';

export interface DecodeOptions {
  /** What errors call the image. Default: its path, or "image". */
  name?: string;
  /** `flatten` puts transparent parts on white and returns RGB; `keep` returns RGBA. Default: flatten. */
  alpha?: 'flatten' | 'keep';
  /** Larger images are refused, so that a small file cannot take up all memory. Default: 100 million. */
  maxPixels?: number;
}

/**
 * Decodes a file, given by path or as bytes, to 8-bit sRGB, turned upright according to its EXIF orientation.
 * Of an animation, the first frame. Throws a `UserError` that names the file if it is missing, not an image,
 * damaged or too large.
 */
export async function decodeImage(source: string | Uint8Array, options: DecodeOptions = {}): Promise<PixelImage> {
  const { name = typeof source === 'string' ? source : 'image', alpha = 'flatten', maxPixels = 100_000_000 } = options;
  try {
    let pipeline = sharp(source, { limitInputPixels: maxPixels, failOn: 'truncated' }).autoOrient().toColourspace('srgb');
    pipeline = alpha === 'flatten' ? pipeline.flatten({ background: '#ffffff' }).removeAlpha() : pipeline.ensureAlpha();
    const { data, info } = await pipeline.raw({ depth: 'uchar' }).toBuffer({ resolveWithObject: true });
    return { width: info.width, height: info.height, channels: alpha === 'flatten' ? 3 : 4, data: new Uint8Array(data) };
  } catch (error) {
    if (typeof source === 'string') await refusePointerFile(source);
    else refusePointer(source, name);
    const reason = error instanceof Error ? error.message.split('\n')[0] : String(error);
    if (/input file is missing/i.test(reason)) throw new UserError(`${name}: there is no such image file.`);
    if (/exceeds pixel limit/i.test(reason)) throw new UserError(`${name}: the image has more than ${maxPixels} pixels.`);
    throw new UserError(`${name}: cannot be read as an image (${reason}).`);
  }
}
