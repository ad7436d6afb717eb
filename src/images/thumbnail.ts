// Small pictures for reports.

import sharp from 'sharp';
import { decodeImage } from './decode.ts';

/**
 * A picture as JPEG, `side` pixels at most on its longer side, as a data URI. `UserError` as of
 * `decodeImage`.
 */
export async function thumbnail(source: string | Uint8Array, name?: string, side = 256): Promise<string> {
  const { data, width, height } = await decodeImage(source, { name });
  const small = sharp(data, { raw: { width, height, channels: 3 } }).resize(side, side, { fit: 'inside', withoutEnlargement: true });
  return `data:image/jpeg;base64,${(await small.jpeg({ quality: 80 }).toBuffer()).toString('base64')}`;
}
