// Weights that are too large for memory: from what size on they stay in files, and the file for those that
// are converted on loading.

import { type FileHandle, mkdtemp, open, readdir, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { freeBytes } from '../disk.ts';
import { UserError } from '../errors.ts';
import { lifeOf, thisProcess } from '../process-life.ts';

/** Weights of more bytes than this stay in files. */
export const MEMORY_LIMIT = 2 ** 28;

/** Alignment in bytes of each tensor in the scratch file. */
export const ALIGNMENT = 64;

export interface Scratch {
  path: string;
  /** Pads to the next aligned offset, and returns it. */
  align(): Promise<number>;
  append(piece: Uint8Array | Float32Array): Promise<void>;
  close(): Promise<void>;
  remove(): Promise<void>;
}

const SCRATCH_PREFIX = 'llava-gemma-weights-';

/** Removes leftovers of processes that were killed while loading. */
async function removeLeftovers(): Promise<void> {
  for (const name of await readdir(tmpdir())) {
    const pid = name.startsWith(SCRATCH_PREFIX) ? Number.parseInt(name.slice(SCRATCH_PREFIX.length), 10) : Number.NaN;
    if (Number.isNaN(pid)) continue;
    if (lifeOf({ ...thisProcess(), pid, started: undefined }) === 'gone')
      await rm(join(tmpdir(), name), { recursive: true, force: true }).catch(() => {});
  }
}

/** A file for weights that are converted on loading, in the system's folder for temporary files (TMPDIR). */
export async function createScratch(bytes: number): Promise<Scratch> {
  const where = `${tmpdir()}: the weights are converted through a file there, of ${(bytes / 1e9).toFixed(1)} GB`;
  const advice = 'set TMPDIR to a folder on a larger disk, or write the converted weights once with llava-gemma convert';
  const fail = (error: unknown) => new UserError(`${where}, and it cannot be written (${(error as Error).message}): ${advice}`);
  await removeLeftovers().catch((error: unknown) => {
    throw fail(error);
  });
  const free = await freeBytes(tmpdir()).catch((error: unknown) => {
    throw fail(error);
  });
  if (free < bytes) throw new UserError(`${where}, and ${(free / 1e9).toFixed(1)} GB are free: ${advice}`);
  const folder = await mkdtemp(join(tmpdir(), `${SCRATCH_PREFIX}${process.pid}-`));
  const path = join(folder, 'weights.bin');
  const handle: FileHandle = await open(path, 'w');
  let position = 0;
  let isOpen = true;
  const removeNow = () => rm(folder, { recursive: true, force: true }).catch(() => {});
  const write = async (data: Uint8Array) => {
    try {
      for (let done = 0; done < data.length; ) done += (await handle.write(data, done, data.length - done)).bytesWritten;
    } catch (error) {
      throw fail(error);
    }
    position += data.length;
  };
  const close = async () => {
    if (isOpen) await handle.close();
    isOpen = false;
  };
  return {
    path,
    async align() {
      await write(new Uint8Array((ALIGNMENT - (position % ALIGNMENT)) % ALIGNMENT));
      return position;
    },
    append: (piece) => write(new Uint8Array(piece.buffer, piece.byteOffset, piece.byteLength)),
    close,
    async remove() {
      await close();
      await removeNow();
    },
  };
}
