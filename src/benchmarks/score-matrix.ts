// Similarities of pictures and captions, a row for each picture, and the ranks that they give. A matrix of
// COCO's test split has 500 MB, of which a row is held at a time.

import { closeSync, openSync, readSync } from 'node:fs';
import { onDisk } from '../disk.ts';
import { UserError } from '../errors.ts';

/** [images, captions]. */
export interface ScoreMatrix {
  /** The scores of a picture with every caption; valid until the next is asked for. */
  row(image: number): Float32Array | Float64Array;
  close(): void;
}

/** A matrix in memory. */
export const matrixOf = (scores: Float64Array, captions: number): ScoreMatrix => ({
  row: (image) => scores.subarray(image * captions, (image + 1) * captions),
  close: () => {},
});

const TYPES = { '<f4': Float32Array, '<f8': Float64Array } as const;
/** Longest header that is looked for. */
const HEADER = 4096;

/**
 * A file of numpy.save with float32 or float64 (numpy/lib/format.py, versions 1 to 3). UserError for another
 * type, another order or a shape other than [images, captions].
 */
export function openNpy(path: string, images: number, captions: number): ScoreMatrix {
  const fault = (what: string) =>
    new UserError(`${path}: ${what}; it should be a float32 or float64 matrix of numpy.save, [${images}, ${captions}]`);
  const file = onDisk(path, () => openSync(path, 'r'));
  try {
    const start = Buffer.alloc(HEADER);
    const read = readSync(file, start, 0, HEADER, 0);
    if (start.toString('latin1', 0, 6) !== '\x93NUMPY') throw fault('is no file of numpy.save');
    const [begin, length] = start[6] === 1 ? [10, start.readUInt16LE(8)] : [12, start.readUInt32LE(8)];
    if (begin + length > read) throw fault('its header is too long');
    const header = start.toString('latin1', begin, begin + length);
    const type = TYPES[/'descr':\s*'([^']*)'/.exec(header)?.[1] as keyof typeof TYPES];
    const shape = /'shape':\s*\((\d+),\s*(\d+),?\)/.exec(header)?.slice(1).map(Number);
    if (type === undefined) throw fault('its numbers are of another type');
    if (/'fortran_order':\s*True/.test(header)) throw fault('is stored by column');
    if (shape?.[0] !== images || shape[1] !== captions) throw fault(`its shape is [${shape ?? '?'}]`);
    const row = new type(captions);
    const bytes = new Uint8Array(row.buffer);
    return {
      row(image) {
        const at = begin + length + image * bytes.length;
        if (readSync(file, bytes, 0, bytes.length, at) < bytes.length) throw fault(`ends within row ${image + 1}`);
        return row;
      },
      close: () => closeSync(file),
    };
  } catch (error) {
    closeSync(file);
    throw error;
  }
}

/** Ranks from 1. A wrong one with the same score is placed before the right one: ties earn nothing. */
export interface Ranks {
  /** Of the best of a picture's own captions, by picture. */
  images: Float64Array;
  /** Of its picture, by caption. */
  captions: Float64Array;
}

/**
 * The ranks among those of the same fold, both ways. `imageOf` says whose each caption is.
 */
export function ranksOf(path: string, matrix: ScoreMatrix, imageOf: Uint32Array, images: number, foldOf: (image: number) => number): Ranks {
  const own = new Float64Array(imageOf.length);
  const ranks = { images: new Float64Array(images).fill(1), captions: new Float64Array(imageOf.length).fill(1) };
  const folds = Uint32Array.from({ length: images }, (_, image) => foldOf(image));
  for (let image = 0; image < images; image++) {
    const row = matrix.row(image);
    let best = Number.NEGATIVE_INFINITY;
    for (let caption = 0; caption < row.length; caption++) {
      if (Number.isNaN(row[caption]))
        throw new UserError(`${path}: the score of picture ${image + 1} and caption ${caption + 1} is no number`);
      if (imageOf[caption] !== image) continue;
      own[caption] = row[caption];
      best = Math.max(best, row[caption]);
    }
    for (let caption = 0; caption < row.length; caption++)
      if (imageOf[caption] !== image && folds[imageOf[caption]] === folds[image] && row[caption] >= best) ranks.images[image]++;
  }
  for (let image = 0; image < images; image++) {
    const row = matrix.row(image);
    for (let caption = 0; caption < row.length; caption++)
      if (imageOf[caption] !== image && folds[imageOf[caption]] === folds[image] && row[caption] >= own[caption]) ranks.captions[caption]++;
  }
  return ranks;
}
