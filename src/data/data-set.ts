// The samples of one or several data files, read when they are asked for. What is kept in memory is where
// each lies and which pictures it shares with others: 16 bytes a sample, not the 2,000 of its text.

import { closeSync, fstatSync, openSync, readSync } from 'node:fs';
import { stat } from 'node:fs/promises';
import { systemReason, UserError } from '../errors.ts';
import { forEachSample, parseSample, type Sample } from './llava-json.ts';

export interface DataFile {
  path: string;
  /** The folder that paths of pictures are relative to. */
  imageFolder: string;
  /** How much of the file an epoch takes: 1 is all of it. */
  share: number;
}

/** What `openData` needs: plain values, which pass between threads. */
export interface DataIndex {
  /** With the number of samples in each, and size and time of change when it was read. */
  files: (DataFile & { samples: number; size: number; changed: number })[];
  /** Place of each sample's JSON in its file, and its length, both in bytes. */
  offsets: Float64Array;
  lengths: Uint32Array;
  /** Group of each sample; groups are numbered in the order of their first samples. */
  groups: Uint32Array;
}

export interface DataSet {
  /** Samples in all files. */
  readonly length: number;
  readonly files: readonly { share: number; samples: number }[];
  /** Reads sample `index`, counted through all files. UserError when its file has changed. */
  sample(index: number): Sample;
  /** Bytes of its JSON, which has no fewer than its texts. */
  bytes(index: number): number;
  /** Samples with the same pictures are a group; a sample without pictures is one by itself. */
  group(index: number): number;
  close(): void;
}

/** Gives samples that are shown one after the other the numbers of their groups. */
export function createGrouping(): (sample: Pick<Sample, 'images'>) => number {
  const byPictures = new Map<string, number>();
  let groups = 0;
  return ({ images }) => {
    if (images.length === 0) return groups++;
    const key = images.join('\n');
    const known = byPictures.get(key);
    if (known !== undefined) return known;
    byPictures.set(key, groups);
    return groups++;
  };
}

/** Reads and checks every sample of `files` once. Errors as of `forEachSample`. */
export async function indexData(files: readonly DataFile[]): Promise<DataIndex> {
  const [offsets, lengths, groups]: number[][] = [[], [], []];
  const groupOf = createGrouping();
  const indexed: DataIndex['files'] = [];
  for (const file of files) {
    const before = offsets.length;
    await forEachSample(file.path, file.imageFolder, (sample, offset, length) => {
      offsets.push(offset);
      lengths.push(length);
      groups.push(groupOf(sample));
    });
    const { size, mtimeMs } = await stat(file.path);
    indexed.push({ ...file, samples: offsets.length - before, size, changed: mtimeMs });
  }
  return {
    files: indexed,
    offsets: Float64Array.from(offsets),
    lengths: Uint32Array.from(lengths),
    groups: Uint32Array.from(groups),
  };
}

/** Opens indexed files. UserError when one has changed since. */
export function openData({ files, offsets, lengths, groups }: DataIndex): DataSet {
  const opened = files.map((file) => ({ ...file, handle: openIndexed(file) }));
  return {
    length: offsets.length,
    files,
    sample(index) {
      let [number, within] = [0, index];
      while (within >= opened[number].samples) within -= opened[number++].samples;
      const file = opened[number];
      const json = new Uint8Array(lengths[index]);
      for (let done = 0; done < json.length; ) {
        const read = readSync(file.handle, json, done, json.length - done, offsets[index] + done);
        if (read === 0) throw changed(file.path);
        done += read;
      }
      return parseSample(json, file, within, offsets[index]);
    },
    bytes: (index) => lengths[index],
    group: (index) => groups[index],
    close: () => {
      for (const { handle } of opened) closeSync(handle);
    },
  };
}

const changed = (path: string) => new UserError(`${path}: has changed since it was read; start again.`);

function openIndexed({ path, size, changed: before }: DataIndex['files'][number]): number {
  let handle: number;
  try {
    handle = openSync(path, 'r');
  } catch (error) {
    throw new UserError(`${path}: cannot be read: ${systemReason(error) ?? (error as Error).message}.`);
  }
  const { size: now, mtimeMs } = fstatSync(handle);
  if (now === size && mtimeMs === before) return handle;
  closeSync(handle);
  throw changed(path);
}

/** A sample of each group, in the order of the groups: together they show every picture. */
export function* onePerGroup(data: Pick<DataSet, 'length' | 'sample' | 'group'>): Generator<Sample, void> {
  let groups = 0;
  for (let index = 0; index < data.length; index++) {
    if (data.group(index) < groups) continue;
    groups++;
    yield data.sample(index);
  }
}
