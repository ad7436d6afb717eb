// Whether a file begins as a picture does: the header is read, nothing is decoded.

import { open } from 'node:fs/promises';
import sharp from 'sharp';
import { systemReason, UserError } from '../errors.ts';

/** BMP, which libvips does not read, by its first two bytes. */
async function isBmp(path: string): Promise<boolean> {
  const file = await open(path);
  try {
    const { buffer } = await file.read(new Uint8Array(2), 0, 2, 0);
    return buffer[0] === 0x42 && buffer[1] === 0x4d;
  } finally {
    await file.close();
  }
}

/**
 * Throws a UserError that names the file if it is missing or no picture. That one is cut off or damaged farther
 * behind shows only when it is decoded.
 */
export async function checkImageHeader(path: string): Promise<void> {
  try {
    await sharp(path).metadata();
  } catch (error) {
    try {
      if (await isBmp(path)) return;
    } catch (unread) {
      const reason = systemReason(unread);
      throw reason === undefined ? unread : new UserError(`${path}: ${reason}`);
    }
    throw new UserError(`${path}: cannot be read as an image (${(error as Error).message.split('\n')[0]})`);
  }
}
