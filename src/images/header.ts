// Whether a file begins as a picture does: nothing is decoded.

import { open } from 'node:fs/promises';
import sharp from 'sharp';
import { systemReason, UserError } from '../errors.ts';

/** How files of the usual formats begin; a dot stands for any byte. Of others, libvips reads the header. */
const signatures = [/^\xff\xd8\xff/, /^\x89PNG\r\n/, /^RIFF....WEBP/s, /^GIF8[79]a/, /^BM/];

async function firstBytes(path: string): Promise<string> {
  try {
    const file = await open(path);
    try {
      const { buffer, bytesRead } = await file.read(Buffer.alloc(12), 0, 12, 0);
      return buffer.toString('latin1', 0, bytesRead);
    } finally {
      await file.close();
    }
  } catch (error) {
    const reason = systemReason(error);
    throw reason === undefined ? error : new UserError(`${path}: ${reason}`);
  }
}

/**
 * Throws a UserError that names the file if it is missing or no picture. That one is cut off or damaged
 * farther behind shows only when it is decoded.
 */
export async function checkImageHeader(path: string): Promise<void> {
  const bytes = await firstBytes(path);
  if (signatures.some((signature) => signature.test(bytes))) return;
  try {
    await sharp(path).metadata();
  } catch (error) {
    throw new UserError(`${path}: cannot be read as an image (${(error as Error).message.split('\n')[0]})`);
  }
}
