// LLaVA JSON samples as optimizer steps: an epoch shuffles the images, keeps the samples of an image together
// (packing computes their image once), and cuts the list into batches. A step's samples are a pure function
// of seed, stage and step.

import { encodeConversation } from '../text/labels.ts';
import type { Tokenizer } from '../text/tokenizer.ts';
import type { DataSet } from './data-set.ts';
import type { EncodedSample } from './packing.ts';
import { batchesPerEpoch, epochOrder, type SampleOrder, samplesPerEpoch } from './sample-order.ts';

export interface ConversationBatchesOptions extends SampleOrder {
  data: SampleOrder['data'] & Pick<DataSet, 'sample'>;
  tokenizer: Tokenizer;
  /** Tokens that one image takes. */
  imageTokens: number;
  template: 'gemma' | 'plain';
  maxLength: number;
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
      if (shuffled?.epoch !== epoch) shuffled = { epoch, order: epochOrder(options, epoch) };
      const start = (index % perEpoch) * batchSize;
      const numbers = [...shuffled.order.subarray(start, start + batchSize)];
      return numbers.flatMap((number) => attempt(number, () => encode(number)) ?? []);
    },
  };
}
