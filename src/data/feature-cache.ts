// Features of a frozen encoder on disk, by content: an image is encoded once, whatever epoch, stage or run asks for it again. One file
// an encoder, of fixed-size records (sha-256 of the image file, then float32 features), only ever appended to: a run killed while
// writing leaves at most half a record, which the next run drops, and runs at the same time add to each other's.

import { createHash } from 'node:crypto';
import { closeSync, fstatSync, ftruncateSync, mkdirSync, openSync, readFileSync, readSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { UserError } from '../errors.ts';

const HASH_BYTES = 32;

export interface FeatureCache {
  /** Features of images one after the other, [images * size]. Every path must have been given to `add`. */
  read(paths: readonly string[]): Float32Array;
  /** Makes sure that every image is there; `encode` gets the paths of those that are not, in batches, and gives their features. */
  add(
    paths: readonly string[],
    encode: (paths: readonly string[]) => Promise<Float32Array>,
    onProgress?: (done: number, total: number) => void,
  ): Promise<void>;
  close(): void;
}

export interface FeatureCacheOptions {
  folder: string;
  /** Names the encoder: its weights, its config, the image processor. */
  fingerprint: string;
  /** Numbers in the features of one image. */
  size: number;
  batchSize?: number;
}

/** sha-256 over everything that features depend on beside the picture: `weights` are their bytes, in any pieces. */
export async function encoderFingerprint(description: unknown, weights: Iterable<Uint8Array> | AsyncIterable<Uint8Array>): Promise<string> {
  const hash = createHash('sha256').update(JSON.stringify(description));
  for await (const bytes of weights) hash.update(bytes);
  return hash.digest('hex').slice(0, 32);
}

export function openFeatureCache({ folder, fingerprint, size, batchSize = 32 }: FeatureCacheOptions): FeatureCache {
  mkdirSync(folder, { recursive: true });
  const path = join(folder, `${fingerprint}.features`);
  const record = HASH_BYTES + size * 4;
  const file = openSync(path, 'a+');
  const wholeRecords = () => Math.floor(fstatSync(file).size / record);
  // what a killed run left of a last record is cut off
  ftruncateSync(file, wholeRecords() * record);
  // record number by content hash
  const records = new Map<string, number>();
  let scanned = 0;
  /** Takes in what was appended since the last time, by this run or another one. */
  const scan = () => {
    const hash = Buffer.alloc(HASH_BYTES);
    for (const count = wholeRecords(); scanned < count; scanned++) {
      readSync(file, hash, 0, HASH_BYTES, scanned * record);
      records.set(hash.toString('hex'), scanned);
    }
  };
  scan();
  const hashes = new Map<string, string>();
  const hashOf = (image: string): string => {
    let known = hashes.get(image);
    if (known === undefined) {
      known = createHash('sha256').update(readFileSync(image)).digest('hex');
      hashes.set(image, known);
    }
    return known;
  };
  return {
    read(paths) {
      const features = new Float32Array(paths.length * size);
      paths.forEach((image, i) => {
        const at = records.get(hashOf(image));
        if (at === undefined) throw new Error(`${image} was not encoded`);
        readSync(file, new Uint8Array(features.buffer, i * size * 4, size * 4), 0, size * 4, at * record + HASH_BYTES);
      });
      return features;
    },
    async add(paths, encode, onProgress) {
      scan();
      const missing = new Map<string, string>();
      for (const image of paths) if (!records.has(hashOf(image))) missing.set(hashOf(image), image);
      const queue = [...missing];
      for (let start = 0; start < queue.length; start += batchSize) {
        const batch = queue.slice(start, start + batchSize);
        const features = await encode(batch.map(([, image]) => image));
        if (features.length !== batch.length * size)
          throw new Error(`the encoder gave ${features.length} numbers for ${batch.length} images, expected ${size} each`);
        const bytes = Buffer.alloc(batch.length * record);
        batch.forEach(([key], i) => {
          bytes.write(key, i * record, 'hex');
          bytes.set(new Uint8Array(features.buffer, features.byteOffset + i * size * 4, size * 4), i * record + HASH_BYTES);
        });
        try {
          for (let done = 0; done < bytes.length; ) done += writeSync(file, bytes, done);
        } catch (error) {
          if ((error as NodeJS.ErrnoException).code === 'ENOSPC')
            throw new UserError(`${path}: the disk is full; free some space and resume the run`);
          throw error;
        }
        scan();
        onProgress?.(Math.min(start + batchSize, queue.length), queue.length);
      }
    },
    close: () => closeSync(file),
  };
}
