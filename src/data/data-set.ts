// The samples of one or several data files, read when they are asked for. What is kept in memory is where
// each lies and which pictures it shares with others: 20 bytes a sample, not the 2,000 of its text, and once
// for all threads.

import { hash } from 'node:crypto';
import { closeSync, fstatSync, openSync, readSync } from 'node:fs';
import { stat } from 'node:fs/promises';
import { growingArray } from '../arrays.ts';
import { reasonOf, UserError } from '../errors.ts';
import { changedSince, checkStamp, stampOf } from '../file-stamp.ts';
import { createDigestTable } from './digest-table.ts';
import { forEachSample, parseSample, type Sample, SampleError } from './llava-json.ts';

export interface DataFile {
  path: string;
  /** The folder that paths of pictures are relative to. */
  imageFolder: string;
  /** How much of the file an epoch takes: 1 is all of it. */
  share: number;
  /** The same in samples, instead of `share`. */
  perEpoch?: number;
}

/** What `openData` needs: plain values, which pass between threads; arrays are shared, not copied. */
export interface DataIndex {
  /** With the number of samples in each, and what the file was when it was read. */
  files: (DataFile & { samples: number; stamp: string })[];
  /** Place of each sample's JSON in its file, and its length, both in bytes. */
  offsets: Float64Array;
  lengths: Uint32Array;
  /** Group of each sample; groups are numbered in the order of their first samples. */
  groups: Uint32Array;
  /** How many pictures each sample shows. */
  pictures: Uint32Array;
  /** Places of the samples in their files, where some were left out: see `subset`. */
  positions?: Uint32Array;
}

export interface DataSet {
  /** Samples in all files. */
  readonly length: number;
  readonly files: readonly { share: number; samples: number }[];
  /** Reads sample `index`, counted through all files. UserError when its file has changed, or it is bad. */
  sample(index: number): Sample;
  /** The file of a sample, and its place there, from 0. */
  place(index: number): { file: string; position: number };
  /** Bytes of its JSON, which has no fewer than its texts. */
  bytes(index: number): number;
  /** Samples with the same pictures are a group; a sample without pictures is one by itself. */
  group(index: number): number;
  hasPictures(index: number): boolean;
  close(): void;
}

/** Gives samples that are shown one after the other the numbers of their groups. */
export function createGrouping(): (sample: Pick<Sample, 'images'>) => number {
  const byPictures = createDigestTable();
  let groups = 0;
  return ({ images }) => {
    if (images.length === 0) return groups++;
    const key = hash('sha256', images.join('\n'), 'buffer');
    const known = byPictures.get(key);
    if (known !== undefined) return known;
    byPictures.set(key, groups);
    return groups++;
  };
}

export interface IndexOptions {
  /** Is shown each sample, and told where it is, from 0. */
  visit?: (sample: Sample, place: { file: string; position: number }) => void;
  /** Is told of bad samples, which are indexed like others; see `forEachSample`. */
  onBad?: (error: SampleError) => void;
}

/** Reads and checks every sample of `files` once. Errors as of `forEachSample`. */
export async function indexData(files: readonly DataFile[], { visit, onBad }: IndexOptions = {}): Promise<DataIndex> {
  const offsets = growingArray(Float64Array);
  const [lengths, groups, pictures] = [growingArray(Uint32Array), growingArray(Uint32Array), growingArray(Uint32Array)];
  const groupOf = createGrouping();
  const indexed: DataIndex['files'] = [];
  for (const file of files) {
    const before = offsets.length;
    const add = (sample: Pick<Sample, 'images'>, offset: number, length: number) => {
      offsets.push(offset);
      lengths.push(length);
      groups.push(groupOf(sample));
      pictures.push(sample.images.length);
    };
    await forEachSample(
      file.path,
      file.imageFolder,
      (sample, offset, length) => {
        visit?.(sample, { file: file.path, position: offsets.length - before });
        add(sample, offset, length);
      },
      onBad &&
        ((error, offset, length) => {
          onBad(error);
          add({ images: [] }, offset, length);
        }),
    );
    const stamp = stampOf(await stat(file.path));
    const samples = offsets.length - before;
    const share = file.perEpoch === undefined ? file.share : file.perEpoch / samples;
    indexed.push({ ...file, share, samples, stamp });
  }
  return {
    files: indexed,
    offsets: offsets.shared(),
    lengths: lengths.shared(),
    groups: groups.shared(),
    pictures: pictures.shared(),
  };
}

/** An index of the samples that `isKept` names by their numbers, files and places as before. */
export function subset(index: DataIndex, isKept: (number: number) => boolean): DataIndex {
  const [offsets, lengths, groups] = [growingArray(Float64Array), growingArray(Uint32Array), growingArray(Uint32Array)];
  const [pictures, positions] = [growingArray(Uint32Array), growingArray(Uint32Array)];
  const known = new Map<number, number>();
  const groupOf = (group: number) => {
    if (!known.has(group)) known.set(group, known.size);
    return known.get(group)!;
  };
  let number = 0;
  const files = index.files.map((file) => {
    const before = offsets.length;
    for (let position = 0; position < file.samples; position++, number++) {
      if (!isKept(number)) continue;
      offsets.push(index.offsets[number]);
      lengths.push(index.lengths[number]);
      groups.push(groupOf(index.groups[number]));
      pictures.push(index.pictures[number]);
      positions.push(index.positions?.[number] ?? position);
    }
    const samples = offsets.length - before;
    return { ...file, samples, share: file.perEpoch === undefined ? file.share : file.perEpoch / samples };
  });
  return {
    files,
    offsets: offsets.shared(),
    lengths: lengths.shared(),
    groups: groups.shared(),
    pictures: pictures.shared(),
    positions: positions.shared(),
  };
}

/** Opens indexed files. UserError when one has changed since. */
export function openData({ files, offsets, lengths, groups, pictures, positions }: DataIndex): DataSet {
  const opened = files.map((file) => ({ ...file, handle: openIndexed(file) }));
  const placeOf = (index: number) => {
    let [number, position] = [0, index];
    while (position >= opened[number].samples) position -= opened[number++].samples;
    return { file: opened[number], position: positions?.[index] ?? position };
  };
  return {
    length: offsets.length,
    files,
    sample(index) {
      const { file, position } = placeOf(index);
      const json = new Uint8Array(lengths[index]);
      for (let done = 0; done < json.length; ) {
        const read = readSync(file.handle, json, done, json.length - done, offsets[index] + done);
        if (read === 0) throw changedSince(file.path);
        done += read;
      }
      return parseSample(json, file, position, offsets[index]);
    },
    place(index) {
      const { file, position } = placeOf(index);
      return { file: file.path, position };
    },
    bytes: (index) => lengths[index],
    group: (index) => groups[index],
    hasPictures: (index) => pictures[index] > 0,
    close: () => {
      for (const { handle } of opened) closeSync(handle);
    },
  };
}

function openIndexed({ path, stamp }: DataIndex['files'][number]): number {
  let handle: number;
  try {
    handle = openSync(path, 'r');
  } catch (error) {
    throw new UserError(`${path}: cannot be read: ${reasonOf(error)}.`);
  }
  try {
    checkStamp(path, fstatSync(handle), stamp);
  } catch (error) {
    closeSync(handle);
    throw error;
  }
  return handle;
}

/**
 * A sample of each group with its number, in the order of the groups: together they show every picture. Bad
 * samples are left out.
 */
export function* onePerGroup(data: Pick<DataSet, 'length' | 'sample' | 'group'>): Generator<Sample & { number: number }, void> {
  let groups = 0;
  for (let number = 0; number < data.length; number++) {
    if (data.group(number) < groups) continue;
    groups++;
    let sample: Sample;
    try {
      sample = data.sample(number);
    } catch (error) {
      if (error instanceof SampleError) continue;
      throw error;
    }
    yield { ...sample, number };
  }
}
