// The order of samples: which an epoch has, which come after one another, which make one step. Each a pure
// function of seed, stage and epoch; what is held are a few numbers a sample, in typed arrays.

import { createRandom, type Random } from '../random.ts';
import type { DataSet } from './data-set.ts';

export interface SampleOrder {
  data: Pick<DataSet, 'files' | 'group' | 'hasPictures'>;
  seed: number;
  /** Keeps the orders of stages apart. */
  stage: string;
  /** Samples in a batch. */
  batchSize: number;
  /** Steps have samples with pictures, or without: `accumulation` batches are a step. Default: both mixed. */
  groupByModality?: { accumulation: number };
}

/** Samples of a file in one epoch: its share, and at least one. */
const drawnFrom = ({ share, samples }: DataSet['files'][number]) => Math.max(1, Math.round(share * samples));

/** Samples in one epoch over `files`. */
export const samplesPerEpoch = (files: DataSet['files']) => files.reduce((sum, file) => sum + drawnFrom(file), 0);

/** Batches in one pass over `samples` samples; the last may be smaller. */
export const batchesPerEpoch = (samples: number, batchSize: number) => Math.ceil(samples / batchSize);

/** The numbers from `first` on. */
const countUp = (length: number, first = 0) => Uint32Array.from({ length }, (_, i) => first + i);

/**
 * The samples of an epoch, in ascending order. Of a file whose share is not 1, epochs take one stretch after
 * the other from a deck that is shuffled anew each time it is through: none comes twice before all have come.
 */
export function drawSamples(files: DataSet['files'], { seed, stage }: { seed: number; stage: string }, epoch: number): Uint32Array {
  const drawn = new Uint32Array(samplesPerEpoch(files));
  let filled = 0;
  let first = 0;
  files.forEach((file, number) => {
    const count = drawnFrom(file);
    const own = drawn.subarray(filled, filled + count);
    const deck = countUp(file.samples, first);
    for (let taken = 0; taken < count; ) {
      const at = epoch * count + taken;
      if (file.share !== 1) {
        deck.set(countUp(file.samples, first));
        createRandom(seed, 'share', stage, number, Math.floor(at / file.samples)).shuffleInPlace(deck);
      }
      const stretch = deck.subarray(at % file.samples).subarray(0, count - taken);
      own.set(stretch, taken);
      taken += stretch.length;
    }
    if (file.share !== 1) own.sort();
    filled += count;
    first += file.samples;
  });
  return drawn;
}

/**
 * Groups are shuffled, then the samples of each. Groups are those of `groupOf`, in the order of their first
 * samples in `drawn`.
 */
function shuffleGroups(drawn: Uint32Array, groupOf: (sample: number) => number, random: Random): Uint32Array {
  // sorted by group without a list for each: how many a group has, where they begin, which they are
  const most = drawn.reduce((largest, sample) => Math.max(largest, groupOf(sample)), 0);
  const numbers = new Uint32Array(most + 1);
  let groups = 0;
  for (const sample of drawn) if (numbers[groupOf(sample)] === 0) numbers[groupOf(sample)] = ++groups;
  const ends = new Uint32Array(groups + 1);
  for (const sample of drawn) ends[numbers[groupOf(sample)]]++;
  for (let group = 1; group <= groups; group++) ends[group] += ends[group - 1];
  const filled = ends.slice(0, groups);
  const members = new Uint32Array(drawn.length);
  for (const sample of drawn) members[filled[numbers[groupOf(sample)] - 1]++] = sample;
  const shuffled = countUp(groups);
  random.shuffleInPlace(shuffled);
  const order = new Uint32Array(drawn.length);
  let at = 0;
  for (const group of shuffled) {
    const own = members.subarray(ends[group], ends[group + 1]);
    random.shuffleInPlace(own);
    order.set(own, at);
    at += own.length;
  }
  return order;
}

/**
 * Cuts samples into steps of one modality, in random order, as group_by_modality_length of LLaVA does; what
 * is left over of both comes last. The first `head` samples, which end a step of the epoch before, stay.
 */
function groupModalities(
  order: Uint32Array,
  hasPictures: (sample: number) => boolean,
  { head, step }: { head: number; step: number },
  random: Random,
): Uint32Array {
  const rest = order.subarray(head);
  const kinds = [rest.filter(hasPictures), rest.filter((sample) => !hasPictures(sample))];
  const whole = kinds.map(({ length }) => length - (length % step));
  const steps = kinds.flatMap((samples, kind) =>
    Array.from({ length: whole[kind] / step }, (_, i) => samples.subarray(i * step, (i + 1) * step)),
  );
  const grouped = order.slice();
  let at = head;
  for (const samples of [...random.shuffle(steps), ...kinds.map((samples, kind) => samples.subarray(whole[kind]))]) {
    grouped.set(samples, at);
    at += samples.length;
  }
  return grouped;
}

/** The samples of an epoch in their order: the samples of a picture stay together. */
export function epochOrder({ data, seed, stage, batchSize, groupByModality }: SampleOrder, epoch: number): Uint32Array {
  const drawn = drawSamples(data.files, { seed, stage }, epoch);
  const order = shuffleGroups(drawn, data.group, createRandom(seed, 'order', stage, epoch));
  if (!groupByModality) return order;
  const { accumulation } = groupByModality;
  const begun = (epoch * batchesPerEpoch(order.length, batchSize)) % accumulation;
  const head = begun === 0 ? 0 : Math.min(order.length, (accumulation - begun) * batchSize);
  const step = accumulation * batchSize;
  return groupModalities(order, data.hasPictures, { head, step }, createRandom(seed, 'modality', stage, epoch));
}
