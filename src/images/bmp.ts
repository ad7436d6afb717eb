// BMP files, which libvips does not read: decoded by NetSurf's libnsbmp, with colors of 16 bits widened as
// Pillow does.

import type { PixelImage } from './pixels.ts';

/** Whether these bytes begin a BMP file. */
export const isBmp = (bytes: Uint8Array): boolean => bytes[0] === 0x42 && bytes[1] === 0x4d;

/**
 * Decodes a BMP of any depth, compressed or not, to RGB; a fourth channel is dropped. Error if it is damaged
 * or has more than `maxPixels`.
 */
export async function decodeBmp(bytes: Uint8Array, maxPixels: number): Promise<PixelImage> {
  const header = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (bytes.length < 54) throw new Error('BMP: the file ends within its header');
  const isFirstVersion = header.getUint32(14, true) === 12;
  const sides = isFirstVersion ? [header.getUint16(18, true), header.getUint16(20, true)] : [18, 22].map((at) => header.getInt32(at, true));
  if (Math.abs(sides[0] * sides[1]) > maxPixels) throw new Error('BMP: exceeds pixel limit');
  const { default: bmp } = await import('@cwasm/nsbmp');
  const { width, height, data } = decodeEither(bmp.decode, bytes, header);
  const pixels = new Uint8Array(width * height * 3);
  for (let i = 0; i < pixels.length; i++) pixels[i] = data[Math.floor(i / 3) * 4 + (i % 3)];
  if (!isFirstVersion && header.getUint16(28, true) === 16) widenColors(pixels, isGreenOfSixBits(header));
  return { width, height, channels: 3, data: pixels };
}

/**
 * libnsbmp takes the end of the last row for a row too many where the end of the picture follows, as
 * ImageMagick and others write it: then the picture is made to end there.
 */
function decodeEither<T>(decode: (bytes: Uint8Array) => T, bytes: Uint8Array, header: DataView): T {
  try {
    return decode(bytes);
  } catch (error) {
    const [data, size] = [header.getUint32(10, true), header.getUint32(34, true)];
    const end = size > 0 && data + size <= bytes.length ? data + size : bytes.length;
    const isCompressed = [1, 2].includes(header.getUint32(30, true));
    if (!isCompressed || Buffer.from(bytes.subarray(end - 4, end)).toString('hex') !== '00000001') throw error;
    const ended = bytes.slice();
    ended[end - 3] = 1;
    return decode(ended);
  }
}

/** Whether the masks of a 16-bit BMP are those of 5, 6 and 5 bits instead of 5 each. */
function isGreenOfSixBits(header: DataView): boolean {
  const bitFields = 3;
  return header.getUint32(30, true) === bitFields && header.byteLength >= 66 && header.getUint32(58, true) === 0x7e0;
}

/** libnsbmp leaves the bits that a color lacks 0; Pillow stretches it, so that the brightest is 255. */
function widenColors(pixels: Uint8Array, isGreenSix: boolean): void {
  for (let i = 0; i < pixels.length; i++) {
    const bits = isGreenSix && i % 3 === 1 ? 6 : 5;
    pixels[i] = Math.trunc(((pixels[i] >> (8 - bits)) * 255) / (2 ** bits - 1));
  }
}
