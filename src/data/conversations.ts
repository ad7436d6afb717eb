// LLaVA JSON samples as optimizer steps: an epoch shuffles the images, keeps the samples of an image together
// (packing computes their image once), and cuts the list into batches. A step's samples are a pure function
// of seed, stage and step.

import { createRandom } from '../random.ts';
import { encodeConversation } from '../text/labels.ts';
import type { Tokenizer } from '../text/tokenizer.ts';
import type { Sample } from './llava-json.ts';
import type { EncodedSample } from './packing.ts';

export interface ConversationBatchesOptions {
  samples: readonly Sample[];
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

/** Batches in one pass over `samples` samples; the last may be smaller. */
export const batchesPerEpoch = (samples: number, batchSize: number) => Math.ceil(samples / batchSize);

export interface ConversationBatches {
  /** Encoded samples of batch `index`, counted over all epochs. */
  batch(index: number): EncodedSample[];
}

export function conversationBatches(options: ConversationBatchesOptions): ConversationBatches {
  const { samples, tokenizer, imageTokens, template, maxLength, batchSize, seed, stage } = options;
  const byImage = new Map<string, Sample[]>();
  for (const sample of samples) {
    const key = sample.images.length > 0 ? sample.images.join('\n') : sample.id;
    const group = byImage.get(key);
    if (group) group.push(sample);
    else byImage.set(key, [sample]);
  }
  const groups = [...byImage.values()];
  const perEpoch = batchesPerEpoch(samples.length, batchSize);
  let shuffled: { epoch: number; samples: Sample[] } | undefined;
  const orderOf = (epoch: number): Sample[] => {
    if (shuffled?.epoch !== epoch) {
      const random = createRandom(seed, 'order', stage, epoch);
      shuffled = { epoch, samples: random.shuffle(groups).flatMap((group) => random.shuffle(group)) };
    }
    return shuffled.samples;
  };
  const encode = (sample: Sample): EncodedSample => ({
    id: sample.id,
    images: sample.images,
    ...encodeConversation(tokenizer, sample.conversations, { imageTokens, template, maxLength, sampleId: sample.id }),
  });
  return {
    batch(index) {
      const order = orderOf(Math.floor(index / perEpoch));
      const start = (index % perEpoch) * batchSize;
      return order.slice(start, start + batchSize).map(encode);
    },
  };
}
