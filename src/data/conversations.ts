// LLaVA JSON samples as optimizer steps: an epoch shuffles the images, keeps the samples of an image together
// (packing computes their image once), and cuts the list into batches. A step's samples are a pure function
// of seed, stage and step.

import { createRandom } from '../random.ts';
import { encodeConversation } from '../text/labels.ts';
import type { Tokenizer } from '../text/tokenizer.ts';
import type { DataSet } from './data-set.ts';
import type { EncodedSample } from './packing.ts';

export interface ConversationBatchesOptions {
  data: Pick<DataSet, 'files' | 'sample' | 'group'>;
  tokenizer: Tokenizer;
  /** Tokens that one image takes. */
  imageTokens: number;
  template: 'gemma' | 'plain';
  maxLength: number;
  /** Samples in a batch. */
  batchSize: number;
  seed: number;
  /** Keeps the orders of stages apart. */
  stage: string;
}

/** Samples of a file in one epoch: its share, and at least one. */
const drawnFrom = ({ share, samples }: DataSet['files'][number]) => Math.max(1, Math.round(share * samples));

/** Samples in one epoch over `files`. */
export const samplesPerEpoch = (files: DataSet['files']) => files.reduce((sum, file) => sum + drawnFrom(file), 0);

/** Batches in one pass over `samples` samples; the last may be smaller. */
export const batchesPerEpoch = (samples: number, batchSize: number) => Math.ceil(samples / batchSize);

/**
 * The samples of an epoch, in ascending order. Of a file whose share is not 1, epochs take one stretch after
 * the other from a deck that is shuffled anew each time it is through: none comes twice before all have come.
 */
export function drawSamples(files: DataSet['files'], { seed, stage }: { seed: number; stage: string }, epoch: number): Uint32Array {
  const drawn = new Uint32Array(samplesPerEpoch(files));
  let filled = 0;
  let first = 0;
  files.forEach((file, number) => {
    const inFile = Array.from({ length: file.samples }, (_, i) => first + i);
    const deck = (round: number) => (file.share === 1 ? inFile : createRandom(seed, 'share', stage, number, round).shuffle(inFile));
    const count = drawnFrom(file);
    for (let at = epoch * count; at < (epoch + 1) * count; ) {
      const start = at % file.samples;
      const taken = deck(Math.floor(at / file.samples)).slice(start, start + (epoch + 1) * count - at);
      drawn.set(taken, filled);
      filled += taken.length;
      at += taken.length;
    }
    first += file.samples;
  });
  return drawn.sort();
}

/** The samples of an epoch in their order. */
function orderOf({ data, seed, stage }: ConversationBatchesOptions, epoch: number): Uint32Array {
  const groups = new Map<number, number[]>();
  for (const index of drawSamples(data.files, { seed, stage }, epoch)) {
    const group = groups.get(data.group(index));
    if (group) group.push(index);
    else groups.set(data.group(index), [index]);
  }
  const random = createRandom(seed, 'order', stage, epoch);
  return Uint32Array.from(random.shuffle([...groups.values()]).flatMap((group) => random.shuffle(group)));
}

export interface ConversationBatches {
  /**
   * Encoded samples of batch `index`, counted over all epochs. `attempt` may leave one out: it is given its
   * number in the data and what encodes it.
   */
  batch(index: number, attempt?: (number: number, encode: () => EncodedSample) => EncodedSample | undefined): EncodedSample[];
}

export function conversationBatches(options: ConversationBatchesOptions): ConversationBatches {
  const { data, tokenizer, imageTokens, template, maxLength, batchSize } = options;
  const perEpoch = batchesPerEpoch(samplesPerEpoch(data.files), batchSize);
  let shuffled: { epoch: number; order: Uint32Array } | undefined;
  const encode = (index: number): EncodedSample => {
    const { id, images, conversations } = data.sample(index);
    // without a picture, `<image>` is text
    const rows = images.length > 0 ? imageTokens : 0;
    return { id, images, ...encodeConversation(tokenizer, conversations, { imageTokens: rows, template, maxLength, sampleId: id }) };
  };
  return {
    batch(index, attempt = (_, encoded) => encoded()) {
      const epoch = Math.floor(index / perEpoch);
      if (shuffled?.epoch !== epoch) shuffled = { epoch, order: orderOf(options, epoch) };
      const start = (index % perEpoch) * batchSize;
      const numbers = [...shuffled.order.subarray(start, start + batchSize)];
      return numbers.flatMap((number) => attempt(number, () => encode(number)) ?? []);
    },
  };
}
