// Whether a file begins as a picture does: nothing is decoded.

import sharp from 'sharp';
import { reasonOf, UserError } from '../errors.ts';
import { refusePointer } from '../git-lfs.ts';
import { firstBytesOf, notAPath, notRead, TELLING_BYTES } from './first-bytes.ts';

/** How files of the usual formats begin; a dot stands for any byte. Of others, libvips reads the header. */
const signatures = [/^\xff\xd8\xff/, /^\x89PNG\r\n/, /^RIFF....WEBP/s, /^GIF8[79]a/, /^BM/];

async function startOf(path: string): Promise<Uint8Array> {
  try {
    return await firstBytesOf(path, TELLING_BYTES);
  } catch (error) {
    const advice = notAPath(path);
    throw new UserError(`${path}: ${reasonOf(error)}${advice === undefined ? '' : `: ${advice}`}`);
  }
}

/**
 * Throws a UserError that names the file if it is missing or no picture. That one is cut off or damaged
 * farther behind shows only when it is decoded.
 */
export async function checkImageHeader(path: string): Promise<void> {
  const start = await startOf(path);
  const text = Buffer.from(start).toString('latin1');
  if (signatures.some((signature) => signature.test(text))) return;
  try {
    await sharp(path).metadata();
  } catch (error) {
    refusePointer(start, path);
    const reason = notRead(start);
    throw new UserError(`${path}: cannot be read as an image${reason ? `: ${reason}` : ` (${(error as Error).message.split('\n')[0]})`}`);
  }
}

/**
 * Width and height in pixels that a picture's header says, upright by its EXIF orientation, of all its frames
 * or one. UserError where it is no picture; nothing is decoded.
 */
export async function readImageSize(bytes: Uint8Array): Promise<{ width: number; height: number }> {
  try {
    const { autoOrient } = await sharp(bytes).metadata();
    return autoOrient;
  } catch (error) {
    const reason = notRead(bytes.subarray(0, TELLING_BYTES)) ?? (error as Error).message.split('\n')[0];
    throw new UserError(`it cannot be read as an image: ${reason}`);
  }
}
