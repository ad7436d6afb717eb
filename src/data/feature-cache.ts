// Features of a frozen encoder on disk, by content: a picture is encoded once, whatever epoch, stage or run
// asks for it again. One file an encoder and type, of fixed-size records (sha-256 of the picture file, then
// the features), only ever appended to: a run killed while writing leaves at most half a record, which the
// next run drops, and runs at the same time add to each other's.

import { createHash, hash } from 'node:crypto';
import { appendFileSync, closeSync, fstatSync, ftruncateSync, openSync, readFileSync, readSync } from 'node:fs';
import { join } from 'node:path';
import { makeFolder, onDisk } from '../disk.ts';
import { systemReason, UserError } from '../errors.ts';
import { float16ToFloat32, float32ToFloat16 } from '../floats.ts';
import { createDigestTable } from './digest-table.ts';

const HASH_BYTES = 32;

/** A picture file that was read. */
export interface PictureFile {
  path: string;
  /** sha-256 of its bytes, hexadecimal. */
  key: string;
  bytes: Uint8Array;
}

export interface FeatureCache {
  /**
   * Features of pictures one after the other, [paths * size]. UserError for a file that is missing, and for
   * one whose features were never written.
   */
  read(paths: readonly string[]): Float32Array;
  /**
   * Pictures whose features are not there, each content once, read as they are asked for. A file that cannot
   * be read is told to `onUnreadable` and passed over; without that, it is a UserError.
   */
  missing(paths: Iterable<string>, onUnreadable?: (path: string, error: UserError) => void): Generator<PictureFile, void>;
  /** Appends the features of pictures one after the other, [keys * size]. UserError when the disk is full. */
  write(keys: readonly string[], features: Float32Array): void;
  close(): void;
}

export interface FeatureCacheOptions {
  folder: string;
  /** Names the encoder: its weights, its config, the image processor. */
  fingerprint: string;
  /** Numbers in the features of one image. */
  size: number;
  /** How they are stored; read back, they are float32. Default: float32. */
  dtype?: FeatureType;
}

export type FeatureType = 'float32' | 'float16';

/** Bytes that the features of one image of `size` numbers take in the cache. */
export const featureBytes = (size: number, dtype: FeatureType): number => HASH_BYTES + size * (dtype === 'float16' ? 2 : 4);

/**
 * sha-256 over everything that features depend on beside the picture: `weights` are their bytes, in any
 * pieces.
 */
export async function encoderFingerprint(description: unknown, weights: Iterable<Uint8Array> | AsyncIterable<Uint8Array>): Promise<string> {
  const digest = createHash('sha256').update(JSON.stringify(description));
  for await (const bytes of weights) digest.update(bytes);
  return digest.digest('hex').slice(0, 32);
}

export function openFeatureCache({ folder, fingerprint, size, dtype = 'float32' }: FeatureCacheOptions): FeatureCache {
  makeFolder(folder);
  const isHalf = dtype === 'float16';
  const path = join(folder, `${fingerprint}${isHalf ? '.float16' : ''}.features`);
  const record = featureBytes(size, dtype);
  const file = onDisk(path, () => openSync(path, 'a+'));
  const wholeRecords = () => Math.floor(fstatSync(file).size / record);
  cutOffLeftover(file, record);
  // record number by content hash
  const records = numbersByHash();
  let scanned = 0;
  /** Takes in what was appended since the last time, by this run or another one. */
  const scan = () => {
    const key = Buffer.alloc(HASH_BYTES);
    for (const count = wholeRecords(); scanned < count; scanned++) {
      readSync(file, key, 0, HASH_BYTES, scanned * record);
      records.set(key.toString('hex'), scanned);
    }
  };
  scan();
  /** Another process may have added it meanwhile. */
  const recordOf = (key: string) => {
    if (!records.has(key)) scan();
    return records.get(key);
  };
  // key by path, so that a file is read once in a stage
  const keys = hashesByPath();
  const readPicture = (path: string): PictureFile => {
    const bytes = readFile(path);
    const key = createHash('sha256').update(bytes).digest('hex');
    keys.set(path, key);
    return { path, key, bytes };
  };
  return {
    read(paths) {
      const stored = isHalf ? new Uint16Array(paths.length * size) : new Float32Array(paths.length * size);
      const bytes = record - HASH_BYTES;
      paths.forEach((image, i) => {
        const at = recordOf(keys.get(image) ?? readPicture(image).key);
        if (at === undefined) throw new UserError(`${image} was not encoded`);
        readSync(file, new Uint8Array(stored.buffer, i * bytes, bytes), 0, bytes, at * record + HASH_BYTES);
      });
      return stored instanceof Uint16Array ? float16ToFloat32(stored) : stored;
    },
    *missing(paths, onUnreadable) {
      scan();
      const given = new Set<string>();
      for (const path of paths) {
        const isKnown = (key: string | undefined) => key !== undefined && (records.has(key) || given.has(key));
        if (isKnown(keys.get(path))) continue;
        let picture: PictureFile;
        try {
          picture = readPicture(path);
        } catch (error) {
          if (!onUnreadable || !(error instanceof UserError)) throw error;
          onUnreadable(path, error);
          continue;
        }
        if (isKnown(picture.key)) continue;
        given.add(picture.key);
        yield picture;
      }
    },
    write(written, features) {
      if (features.length !== written.length * size)
        throw new Error(`the encoder gave ${features.length} numbers for ${written.length} images, expected ${size} each`);
      const bytes = Buffer.alloc(written.length * record);
      const stored = isHalf ? inFloat16(features) : features;
      const each = record - HASH_BYTES;
      written.forEach((key, i) => {
        bytes.write(key, i * record, 'hex');
        bytes.set(new Uint8Array(stored.buffer, stored.byteOffset + i * each, each), i * record + HASH_BYTES);
      });
      // behind what another run that was killed meanwhile has left, no record would be in its place
      cutOffLeftover(file, record);
      // all of it, or an error
      onDisk(path, () => appendFileSync(file, bytes));
      scan();
    },
    close: () => closeSync(file),
  };
}

/** How long a part of a record must have stayed as it is to be nobody's any more, in ms. */
const LEFT_ALONE = 1000;

/**
 * Cuts off what a killed run has left of a last record, if it has left any. Another run may be writing one
 * just now: whole records are never touched, and a part only if it does not grow.
 */
function cutOffLeftover(file: number, record: number): void {
  const sizeNow = () => fstatSync(file).size;
  let size = sizeNow();
  while (size % record !== 0) {
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, LEFT_ALONE);
    const before = size;
    size = sizeNow();
    if (size !== before) continue;
    size -= size % record;
    ftruncateSync(file, size);
  }
}

// Texts of half a million hashes and paths would take more memory than many a model: they are kept as bytes.

/** A Map from sha-256 in hexadecimal to numbers. */
function numbersByHash(): Pick<Map<string, number>, 'get' | 'has'> & { set(key: string, number: number): void } {
  const table = createDigestTable();
  const get = (key: string) => table.get(Buffer.from(key, 'hex'));
  return { get, has: (key) => get(key) !== undefined, set: (key, number) => table.set(Buffer.from(key, 'hex'), number) };
}

/** A Map from paths to sha-256 in hexadecimal. */
function hashesByPath(): { get(path: string): string | undefined; set(path: string, key: string): void } {
  const places = createDigestTable();
  let hashes = Buffer.alloc(1024 * HASH_BYTES);
  const digestOf = (path: string) => hash('sha256', path, 'buffer');
  return {
    get(path) {
      const place = places.get(digestOf(path));
      return place === undefined ? undefined : hashes.toString('hex', place * HASH_BYTES, (place + 1) * HASH_BYTES);
    },
    set(path, key) {
      const place = places.get(digestOf(path)) ?? places.size;
      if ((place + 1) * HASH_BYTES > hashes.length) hashes = Buffer.concat([hashes, Buffer.alloc(hashes.length)]);
      hashes.write(key, place * HASH_BYTES, 'hex');
      places.set(digestOf(path), place);
    },
  };
}

/** Features in float16. UserError for one that is beyond that type. */
function inFloat16(features: Float32Array): Uint16Array {
  const beyond = features.find((value) => Math.abs(value) >= 65520);
  if (beyond !== undefined)
    throw new UserError(`the encoder gives ${beyond}, which is beyond float16: give feature_cache: float32 or none`);
  return float32ToFloat16(features);
}

function readFile(path: string): Uint8Array {
  try {
    return readFileSync(path);
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    throw new UserError(
      code === 'ENOENT' ? `${path}: there is no such image file.` : `${path}: cannot be read: ${systemReason(error) ?? code}.`,
    );
  }
}
