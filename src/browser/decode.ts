// In place of src/images/decode.ts: the browser decodes. Pixels of PNG are those of Node to the bit: no color
// profile, no transparency changes them.

import { UserError } from '../errors.ts';
import type { DecodeOptions } from '../images/decode.ts';
import { notRead, TELLING_BYTES } from '../images/first-bytes.ts';
import type { PixelImage } from '../images/pixels.ts';
import { readFile } from './node/fs-promises.ts';

/**
 * Decodes a file's bytes to 8-bit RGB, turned upright according to its EXIF orientation. Of an animation, the
 * first frame. Throws a `UserError` that names the file if it is no image, damaged or too large.
 */
export async function decodeImage(source: string | Uint8Array, options: DecodeOptions = {}): Promise<PixelImage> {
  const { name = typeof source === 'string' ? source : 'image', alpha = 'drop', maxPixels = 100_000_000 } = options;
  const bytes = typeof source === 'string' ? await readFile(source) : source;
  let bitmap: ImageBitmap;
  try {
    const blob = new Blob([bytes as Uint8Array<ArrayBuffer>]);
    bitmap = await createImageBitmap(blob, { colorSpaceConversion: 'none', premultiplyAlpha: 'none' });
  } catch (error) {
    const reason = notRead(bytes.subarray(0, TELLING_BYTES));
    throw new UserError(`${name}: cannot be read as an image${reason ? `: ${reason}` : ` (${(error as Error).message})`}.`);
  }
  try {
    const { width, height } = bitmap;
    if (width * height > maxPixels) throw new UserError(`${name}: the image has more than ${maxPixels} pixels.`);
    const rgba = pixelsOf(bitmap, name);
    if (alpha === 'keep') return { width, height, channels: 4, data: rgba };
    return { width, height, channels: 3, data: alpha === 'white' ? onWhite(rgba) : withoutAlpha(rgba) };
  } finally {
    bitmap.close();
  }
}

/** RGBA with straight alpha. */
function pixelsOf(bitmap: ImageBitmap, name: string): Uint8Array {
  const { width, height } = bitmap;
  const context = new OffscreenCanvas(width, height).getContext('2d', { willReadFrequently: true });
  if (!context) throw new UserError(`${name}: the browser has no canvas of ${width} x ${height} pixels`);
  context.drawImage(bitmap, 0, 0);
  const { data } = context.getImageData(0, 0, width, height);
  const pixels = new Uint8Array(data.buffer, data.byteOffset, data.length);
  for (let i = 3; i < pixels.length; i += 4) if (pixels[i] !== 255) return straightPixels(bitmap) ?? pixels;
  return pixels;
}

/**
 * The same of a picture that is transparent somewhere: a canvas forgets the colors there, and a texture does
 * not. Undefined where there is no WebGL, or none for so large a picture.
 */
function straightPixels(bitmap: ImageBitmap): Uint8Array | undefined {
  const { width, height } = bitmap;
  const gl = new OffscreenCanvas(1, 1).getContext('webgl2');
  if (!gl || Math.max(width, height) > gl.getParameter(gl.MAX_TEXTURE_SIZE)) return undefined;
  gl.pixelStorei(gl.UNPACK_PREMULTIPLY_ALPHA_WEBGL, false);
  gl.pixelStorei(gl.UNPACK_COLORSPACE_CONVERSION_WEBGL, gl.NONE);
  gl.bindTexture(gl.TEXTURE_2D, gl.createTexture());
  gl.texImage2D(gl.TEXTURE_2D, 0, gl.RGBA8, gl.RGBA, gl.UNSIGNED_BYTE, bitmap);
  gl.bindFramebuffer(gl.FRAMEBUFFER, gl.createFramebuffer());
  gl.framebufferTexture2D(gl.FRAMEBUFFER, gl.COLOR_ATTACHMENT0, gl.TEXTURE_2D, gl.getParameter(gl.TEXTURE_BINDING_2D), 0);
  const pixels = new Uint8Array(width * height * 4);
  gl.readPixels(0, 0, width, height, gl.RGBA, gl.UNSIGNED_BYTE, pixels);
  const failed = gl.getError() !== gl.NO_ERROR;
  gl.getExtension('WEBGL_lose_context')?.loseContext();
  return failed ? undefined : pixels;
}

function withoutAlpha(rgba: Uint8Array): Uint8Array {
  const pixels = new Uint8Array((rgba.length / 4) * 3);
  for (let i = 0, at = 0; at < rgba.length; i += 3, at += 4) {
    pixels[i] = rgba[at];
    pixels[i + 1] = rgba[at + 1];
    pixels[i + 2] = rgba[at + 2];
  }
  return pixels;
}

function onWhite(rgba: Uint8Array): Uint8Array {
  const pixels = new Uint8Array((rgba.length / 4) * 3);
  for (let i = 0; i < pixels.length; i++) {
    const at = Math.floor(i / 3) * 4;
    const share = rgba[at + 3] / 255;
    pixels[i] = rgba[at + (i % 3)] * share + 255 * (1 - share);
  }
  return pixels;
}
