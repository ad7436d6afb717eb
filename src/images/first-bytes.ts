// How a file begins, and what people take for a picture that is none, or none that is read here.

import { open, stat } from 'node:fs/promises';

/**
 * The first bytes of a file, at most `count`. Error, with the reason, for a pipe or a device: the one would
 * be waited for without end, and the other has no end.
 */
export async function firstBytesOf(path: string, count: number): Promise<Uint8Array> {
  const found = await stat(path);
  if (!found.isFile() && !found.isDirectory()) throw new Error('it is a pipe or a device, not a file');
  const file = await open(path);
  try {
    const { buffer, bytesRead } = await file.read(new Uint8Array(count), 0, count, 0);
    return buffer.subarray(0, bytesRead);
  } finally {
    await file.close();
  }
}

/** Bytes that `notRead` looks at. */
export const TELLING_BYTES = 512;

/** How formats begin, in Latin-1 or in hexadecimal digits; a dot stands for any byte or digit. */
const FORMATS: readonly [string, RegExp][] = [
  ['HEIC', /^....ftyp(hei[cmsx]|hev[cmx]|mif1|msf1)/s],
  ['JPEG XL', /^(ff0a|....JXL )/s],
  ['JPEG 2000', /^(ff4fff51|....jP {2})/s],
  ['PDF', /^%PDF-/],
  ['PostScript', /^%!PS/],
  ['an icon', /^(00000[12]00(?!00)..00|icns)/],
  ['PNM', /^P[1-7]\s/],
  ['PSD', /^8BPS/],
  ['DDS', /^DDS /],
  ['QOI', /^qoif/],
  ['a video', /^(....ftyp(isom|mp4|iso2|avc1|qt)|1a45dfa3|RIFF....AVI )/s],
];
const NOT_PICTURES: readonly [string, RegExp][] = [
  ['the file is empty', /^$/],
  ['it is a page of the web, such as a download leaves that failed; get the picture again', /^\s*<(!doctype html|html|head)/i],
  ['it is an archive; unpack it', /^(504b0304|1f8b08|377abcaf)/],
];

/**
 * Why no picture is read from a file that begins so, in words that help; undefined for nothing known. To be
 * asked after decoding failed: some of these formats have relatives that are read.
 */
export function notRead(start: Uint8Array): string | undefined {
  const bytes = [...start.subarray(0, TELLING_BYTES)];
  const latin1 = String.fromCharCode(...bytes);
  const hex = bytes.map((byte) => byte.toString(16).padStart(2, '0')).join('');
  const begins = ([, pattern]: readonly [string, RegExp]) => pattern.test(latin1) || pattern.test(hex);
  const format = FORMATS.find(begins)?.[0];
  if (format !== undefined) return `it is ${format}, which is not read; save it as PNG or JPEG`;
  return NOT_PICTURES.find(begins)?.[0];
}

/** Why there is nothing at a path that people give for a picture. */
export function notAPath(path: string): string | undefined {
  if (/^(https?|s3|gs|ftp):\/\//i.test(path)) return 'it is an address; download the picture, and give its file';
  if (/^data:image\//i.test(path)) return 'it is the picture itself as text; save it, and give its file';
  if (/^file:\/\//i.test(path)) return 'give the path alone, without file://';
  return path === '~' || path.startsWith('~/') ? 'the ~ stands for itself here; write the home folder out' : undefined;
}
