// What the processes of a run settle with each other beside gradients: who computes which batches, with how
// many threads, and whether all of them see the same files. The first one writes; the others read what it
// wrote.

import { randomUUID } from 'node:crypto';
import { readFileSync, rmSync, writeFileSync } from 'node:fs';
import { availableParallelism, cpus, hostname } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { makeFolder, onDisk } from '../disk.ts';
import { UserError } from '../errors.ts';
import type { Communicator } from '../mpi/communicator.ts';
import { decodeUtf8 } from '../utf8.ts';
import type { Recipe } from './recipe.ts';

// === Batches ===

/** Batches of a step that a process computes: `count` from `first` on. */
export interface BatchShare {
  first: number;
  count: number;
}

export function batchShare({ rank, size }: Pick<Communicator, 'rank' | 'size'>, accumulation: number): BatchShare {
  const count = accumulation / size;
  return { first: rank * count, count };
}

/** The same samples in a step, in batches that `size` processes can share: as few as possible. */
function sharedBatches(samples: number, size: number): { accumulation: number; batch_size: number } | undefined {
  return samples % size === 0 ? { accumulation: size, batch_size: samples / size } : undefined;
}

/**
 * UserError, with the settings that would work, where the batches of a step cannot be divided among the
 * processes.
 */
export function checkShares({ stages }: Recipe, size: number): void {
  for (const [index, { name, accumulation, batch_size }] of stages.entries()) {
    if (accumulation % size === 0) continue;
    const shared = sharedBatches(accumulation * batch_size, size);
    const set = (field: string, value: number) => `--set stages.${index}.${field}=${value}`;
    const advice = shared
      ? `give ${set('accumulation', shared.accumulation)} ${set('batch_size', shared.batch_size)}, which leaves ${accumulation * batch_size} samples in a step, or another number of processes`
      : `give ${set('accumulation', size)} and a batch_size, or as many processes as divide ${accumulation}`;
    throw new UserError(`stage ${name}: a step has accumulation ${accumulation}, which ${size} processes cannot share: ${advice}`);
  }
}

// === Threads ===

/** Threads for each of the processes that share this host. */
export function threadsOf({ localSize }: Pick<Communicator, 'localSize'>, cores = cpus().length, usable = availableParallelism()): number {
  return Math.min(usable, Math.max(1, Math.floor(cores / localSize)));
}

/** What to say where the launcher lets a process run on one core only and there are more. */
export function bindingNote(
  { localSize }: Pick<Communicator, 'localSize'>,
  cores = cpus().length,
  usable = availableParallelism(),
): string | undefined {
  const share = Math.floor(cores / localSize);
  if (usable > 1 || share < 2) return undefined;
  return `each process is bound to one core, and could have ${share}: start with mpirun --bind-to none, or srun --cpu-bind=none`;
}

// === The same for all ===

/** Gives all what the first process says. */
async function broadcastText(communicator: Communicator, text: string): Promise<string> {
  const bytes = new TextEncoder().encode(text);
  const [[length]] = await communicator.share([bytes.length]);
  const data = new Float32Array(Math.ceil(length / 4));
  if (communicator.rank === 0) new Uint8Array(data.buffer).set(bytes);
  await communicator.broadcast(data, 0);
  return decodeUtf8(new Uint8Array(data.buffer, 0, length), 'a message');
}

/** Who this process is, for people. */
export const nameOf = ({ rank, size }: Pick<Communicator, 'rank' | 'size'>): string => `process ${rank} of ${size} on ${hostname()}`;

/** A thing that must be the same for all processes. */
interface Same {
  name: string;
  content: string;
}

/** UserError where a process has something else than the first one, by its name. */
export async function requireSame(communicator: Communicator, own: readonly Same[]): Promise<void> {
  if (communicator.size === 1) return;
  const first = JSON.parse(await broadcastText(communicator, JSON.stringify(own.map(({ content }) => content)))) as string[];
  const index = own.findIndex(({ content }, i) => content !== first[i]);
  if (index >= 0) throw new UserError(`${nameOf(communicator)}: ${own[index].name} is not the same as for process 0`);
}

/** Seconds for which a network disk may not show what another host has written. */
const SEEING = 30;

/** UserError where a process does not see what the first one writes to `folder`. */
export async function requireShared(communicator: Communicator, folder: string, seconds = SEEING): Promise<void> {
  if (communicator.size === 1) return;
  const path = join(folder, '.shared');
  const own = randomUUID();
  if (communicator.rank === 0) {
    makeFolder(folder);
    onDisk(path, () => writeFileSync(path, own));
  }
  const token = await broadcastText(communicator, own);
  if (!(await isSeen(path, token, seconds)))
    throw new UserError(
      `${nameOf(communicator)} does not see what process 0 has written to ${folder}: start all in the same folder of a disk that their hosts share`,
    );
  await communicator.barrier();
  if (communicator.rank === 0) rmSync(path, { force: true });
}

async function isSeen(path: string, token: string, seconds: number): Promise<boolean> {
  for (const end = performance.now() + 1000 * seconds; ; await sleep(100)) {
    try {
      if (readFileSync(path, 'utf8') === token) return true;
    } catch {
      // not yet
    }
    if (performance.now() > end) return false;
  }
}

// === Gathering ===

/** JSON values of all processes, by rank, on the first; none elsewhere. */
export async function gatherValues<T>(communicator: Communicator, own: T): Promise<T[]> {
  if (communicator.size === 1) return [own];
  const texts = await communicator.gather(new TextEncoder().encode(JSON.stringify(own)));
  return texts.map((bytes) => JSON.parse(decodeUtf8(bytes, 'a message')) as T);
}

/** Features of pictures, one after the other. */
export interface EncodedPictures {
  /** sha-256, hexadecimal. */
  keys: string[];
  features: Float32Array;
}

/** What the processes have encoded, on the first; none elsewhere. */
export async function gatherFeatures(communicator: Communicator, own: EncodedPictures): Promise<EncodedPictures[]> {
  if (communicator.size === 1) return [own];
  const keys = await gatherValues(communicator, own.keys);
  const features = await communicator.gather(new Uint8Array(own.features.buffer, own.features.byteOffset, own.features.byteLength));
  // what is gathered begins at a whole number of float32
  return keys.map((names, rank) => {
    const { buffer, byteOffset, byteLength } = features[rank];
    return { keys: names, features: new Float32Array(buffer, byteOffset, byteLength / 4) };
  });
}
