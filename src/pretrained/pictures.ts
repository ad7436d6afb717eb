// Reads image files for a loaded model.

import { createHash } from 'node:crypto';
import { stat } from 'node:fs/promises';
import { resolve } from 'node:path';
import type { Generator } from '../generate/generator.ts';
import type { AnsweringModel, Picture } from '../generate/session.ts';
import { type ImageProcessorConfig, readPixelValues } from '../images/processor.ts';

/**
 * How a model reads images: the parts of an `AnsweringModel` that take files. Each element of `imageRows` is
 * float32 [imageTokens * hidden].
 */
export function pictureReader({
  generator,
  processor,
}: {
  generator: Pick<Generator, 'imageFeatures' | 'imageRows'>;
  processor: ImageProcessorConfig;
}): Pick<AnsweringModel, 'imageRows' | 'pictureKey'> {
  return {
    async imageRows(pictures) {
      if (pictures.length === 0) return [];
      const rows = await generator.imageRows(await generator.imageFeatures(await readPixelValues(pictures, processor)));
      const size = rows.length / pictures.length;
      return pictures.map((_, i) => rows.slice(i * size, (i + 1) * size));
    },
    pictureKey,
  };
}

/**
 * Path, size and modification time of a file; a digest of bytes. A missing file has a key too: reading it
 * reports what is wrong.
 */
async function pictureKey(picture: Picture): Promise<string> {
  if (typeof picture !== 'string') return `sha256 ${createHash('sha256').update(picture).digest('hex')}`;
  const file = await stat(picture, { bigint: true }).catch(() => undefined);
  return `${file?.mtimeNs} ${file?.size} ${resolve(picture)}`;
}
