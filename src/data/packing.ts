// Packing: encoded samples become rows of nearly equal length. Samples of one image share its prefix (image rows are computed once)
// and branch off after it; models/llava.ts packedBias keeps branches apart, so the loss is that of separate rows at a fraction of
// the work. Row lengths are balanced, which keeps padding to a few percent.

import { int32, type Value } from '../engine/engine.ts';

export interface EncodedSample {
  id: string;
  inputIds: readonly number[];
  /** One a token, -100 where not trained. */
  labels: readonly number[];
  /** Leading tokens that every sample of the same image has in common; 0 for none. */
  prefixLength: number;
  /** Keys of its images in order, one for each run of image tokens. */
  images: readonly string[];
}

/** Samples laid out together: one shared prefix, then a branch a sample. */
interface Group {
  samples: EncodedSample[];
  prefixLength: number;
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

const IGNORED = -100;

function groupByPrefix(samples: readonly EncodedSample[], maxLength: number): Group[] {
  const open = new Map<string, Group>();
  const groups: Group[] = [];
  for (const sample of samples) {
    const { prefixLength } = sample;
    const key = prefixLength > 0 ? `${sample.images.join('\n')}\n${prefixLength}` : undefined;
    const branch = sample.inputIds.length - prefixLength;
    const group = key === undefined ? undefined : open.get(key);
    if (group && group.length + branch <= maxLength) {
      group.samples.push(sample);
      group.length += branch;
      continue;
    }
    const fresh = { samples: [sample], prefixLength, length: sample.inputIds.length };
    groups.push(fresh);
    if (key !== undefined) open.set(key, fresh);
  }
  return groups;
}

/** Longest first, each into the row that is shortest so far (LPT): rows end almost equally long. */
function balance(groups: readonly Group[], rowCount: number): { groups: Group[]; length: number }[] {
  const rows = Array.from({ length: rowCount }, () => ({ groups: [] as Group[], length: 0 }));
  for (const group of [...groups].sort((a, b) => b.length - a.length)) {
    const row = rows.reduce((best, candidate) => (candidate.length < best.length ? candidate : best));
    row.groups.push(group);
    row.length += group.length;
  }
  return rows;
}

/** How much longer than asked for a row may come out for the sake of less padding. */
const STRETCH = 1.25;

/**
 * Packs samples into rows of about `rowLength` tokens, at most a quarter more unless a single sample is longer. Of the row counts
 * near total / rowLength, the one with the least padding is taken.
 */
export function packSamples(samples: readonly EncodedSample[], rowLength: number): PackedBatch {
  const groups = groupByPrefix(samples, rowLength);
  const total = groups.reduce((sum, group) => sum + group.length, 0);
  const longest = Math.max(rowLength * STRETCH, ...groups.map((group) => group.length));
  const fewest = Math.min(groups.length, Math.max(1, Math.round(total / rowLength) - 2));
  let best: { rows: ReturnType<typeof balance>; length: number } | undefined;
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
          if (sample.labels[t] !== IGNORED && t > 0) {
            labelRows.push(t === prefixLength ? start + prefixLength - 1 : at - 1);
            labels.push(sample.labels[t]);
          }
          at++;
        }
        if (branch === 0 || prefixLength === 0) images.push(...sample.images);
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
