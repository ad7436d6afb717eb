// Packing: encoded samples become rows of nearly equal length. Samples of one image share its prefix (image
// rows are computed once) and branch off after it; models/masks.ts packedBias keeps branches apart, so the
// loss is that of separate rows at a fraction of the work. Row lengths are balanced, which keeps padding to a
// few percent.

import { int32, type Value } from '../engine/engine.ts';
import { ignoreIndex } from '../text/labels.ts';

export interface EncodedSample {
  id: string;
  inputIds: readonly number[];
  /** One a token, -100 where not trained. */
  labels: readonly number[];
  /**
   * Leading tokens, the first image among them, that samples of this image share; 0 where the sample does not
   * begin with its image.
   */
  prefixLength: number;
  /** Keys of its images in order, one for each run of image tokens. */
  images: readonly string[];
}

/** Samples laid out together: one shared prefix, then a branch a sample. */
interface Group {
  /** What samples must have in common to share the prefix; undefined where there is none. */
  key: string | undefined;
  samples: EncodedSample[];
  prefixLength: number;
  length: number;
}

interface Row {
  groups: Group[];
  length: number;
}

export interface PackedBatch {
  /** input_ids, position_ids, sample_ids, branch_ids [rows, length]; label_rows, labels [labels]: int32. */
  inputs: Record<string, Value>;
  /** Image keys in the order of their image tokens. */
  images: string[];
  /** Tokens that are not padding. */
  tokens: number;
  rows: number;
  length: number;
}

function groupByPrefix(samples: readonly EncodedSample[], maxLength: number): Group[] {
  const open = new Map<string, Group>();
  const groups: Group[] = [];
  for (const sample of samples) {
    const { prefixLength, inputIds } = sample;
    const key = prefixLength > 0 ? `${sample.images[0]}\n${inputIds.slice(0, prefixLength)}` : undefined;
    const branch = inputIds.length - prefixLength;
    const group = key === undefined ? undefined : open.get(key);
    if (group && group.length + branch <= maxLength) {
      group.samples.push(sample);
      group.length += branch;
      continue;
    }
    const fresh = { key, samples: [sample], prefixLength, length: inputIds.length };
    groups.push(fresh);
    if (key !== undefined) open.set(key, fresh);
  }
  return groups;
}

/**
 * Longest first, each into the row that is shortest so far (LPT), then evened out: rows end almost equally
 * long.
 */
function balance(groups: readonly Group[], rowCount: number): Row[] {
  const rows = Array.from({ length: rowCount }, (): Row => ({ groups: [], length: 0 }));
  for (const group of [...groups].sort((a, b) => b.length - a.length)) {
    const row = rows.reduce((best, candidate) => (candidate.length < best.length ? candidate : best));
    row.groups.push({ ...group, samples: [...group.samples] });
    row.length += group.length;
  }
  while (shortenLongest(rows));
  return rows;
}

/**
 * The best of all ways to make the longest row shorter: hand a group to another row, exchange two groups, or
 * hand over one sample, which takes a copy of its prefix along. False when none helps.
 */
function shortenLongest(rows: readonly Row[]): boolean {
  const longest = rows.reduce((best, candidate) => (candidate.length > best.length ? candidate : best));
  let bestLength = longest.length;
  let bestMove: (() => void) | undefined;
  for (const other of rows) {
    if (other === longest) continue;
    const consider = (given: number, taken: number, move: () => void) => {
      const length = Math.max(longest.length - given, other.length + taken);
      if (length >= bestLength) return;
      bestLength = length;
      bestMove = () => {
        move();
        longest.length -= given;
        other.length += taken;
      };
    };
    longest.groups.forEach((group, i) => {
      consider(group.length, group.length, () => {
        longest.groups.splice(i, 1);
        other.groups.push(group);
      });
      other.groups.forEach((exchanged, j) => {
        const difference = group.length - exchanged.length;
        consider(difference, difference, () => {
          longest.groups[i] = exchanged;
          other.groups[j] = group;
        });
      });
      if (group.samples.length === 1) return;
      const { key, prefixLength } = group;
      const host = other.groups.find((candidate) => candidate.key === key);
      group.samples.forEach((sample, j) => {
        const branch = sample.inputIds.length - prefixLength;
        consider(branch, branch + (host ? 0 : prefixLength), () => {
          group.samples.splice(j, 1);
          group.length -= branch;
          if (host) {
            host.samples.push(sample);
            host.length += branch;
          } else other.groups.push({ key, samples: [sample], prefixLength, length: prefixLength + branch });
        });
      });
    });
  }
  bestMove?.();
  return bestMove !== undefined;
}

/** How much longer than asked for a row may come out for the sake of less padding. */
const STRETCH = 1.25;

/**
 * Packs samples into rows of about `rowLength` tokens, at most a quarter more unless a single sample is
 * longer. Of the row counts near total / rowLength, the one with the least padding is taken. `limit`: the
 * positions that the language model has; no row is longer, if no sample is.
 */
export function packSamples(samples: readonly EncodedSample[], rowLength: number, limit = Number.POSITIVE_INFINITY): PackedBatch {
  const groups = groupByPrefix(samples, Math.min(rowLength, limit));
  const total = groups.reduce((sum, group) => sum + group.length, 0);
  const longest = Math.max(Math.min(rowLength * STRETCH, limit), ...groups.map((group) => group.length));
  const fewest = Math.min(groups.length, Math.max(1, Math.round(total / rowLength) - 2));
  let best: { rows: Row[]; length: number } | undefined;
  for (let count = fewest; count <= Math.min(groups.length, fewest + 4) || best === undefined; count++) {
    const rows = balance(groups, count);
    const length = Math.max(...rows.map((row) => row.length));
    if (length <= longest && (best === undefined || count * length < best.rows.length * best.length)) best = { rows, length };
  }
  return layOut(
    best.rows.map((row) => row.groups),
    best.length,
  );
}

function layOut(rows: readonly (readonly Group[])[], length: number): PackedBatch {
  const size = rows.length * length;
  const inputIds = new Int32Array(size);
  const positions = new Int32Array(size);
  const sampleIds = new Int32Array(size);
  const branchIds = new Int32Array(size);
  const labelRows: number[] = [];
  const labels: number[] = [];
  const images: string[] = [];
  let tokens = 0;
  rows.forEach((groups, row) => {
    let at = row * length;
    groups.forEach((group, index) => {
      const start = at;
      const { prefixLength } = group;
      group.samples.forEach((sample, branch) => {
        // the first sample brings the prefix; the others begin after it
        const from = branch === 0 ? 0 : prefixLength;
        for (let t = from; t < sample.inputIds.length; t++) {
          inputIds[at] = sample.inputIds[t];
          positions[at] = t;
          sampleIds[at] = index + 1;
          branchIds[at] = t < prefixLength ? 0 : branch + 1;
          if (sample.labels[t] !== ignoreIndex && t > 0) {
            labelRows.push(t === prefixLength ? start + prefixLength - 1 : at - 1);
            labels.push(sample.labels[t]);
          }
          at++;
        }
        // the first image of later branches lies in the prefix
        images.push(...sample.images.slice(branch === 0 ? 0 : 1));
      });
      tokens += at - start;
    });
  });
  const shape = [rows.length, length];
  return {
    inputs: {
      input_ids: int32(inputIds, shape),
      position_ids: int32(positions, shape),
      sample_ids: int32(sampleIds, shape),
      branch_ids: int32(branchIds, shape),
      label_rows: int32(labelRows, [labelRows.length]),
      labels: int32(labels, [labels.length]),
    },
    images,
    tokens,
    rows: rows.length,
    length,
  };
}
