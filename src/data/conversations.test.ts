import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { createRandom } from '../random.ts';
import { trainTokenizer } from '../text/bpe-trainer.ts';
import { createTokenizer } from '../text/tokenizer.ts';
import { conversationBatches } from './conversations.ts';
import { createGrouping } from './data-set.ts';
import type { Sample } from './llava-json.ts';
import { batchesPerEpoch, drawSamples, samplesPerEpoch } from './sample-order.ts';

const { tokenizerJson, tokenizerConfig } = trainTokenizer([{ text: 'what is it? a cat', weight: 1 }], { vocabSize: 365 });
const tokenizer = createTokenizer(tokenizerJson, tokenizerConfig);

/** `sizes[i]` samples about picture i, then `textOnly` samples about none. */
function samplesAbout(sizes: readonly number[], textOnly = 0): Sample[] {
  const answer = { from: 'gpt' as const, value: 'a cat' };
  const ask = (image: boolean) => ({ from: 'human' as const, value: `${image ? '<image>\n' : ''}what is it?` });
  const pictured = sizes.flatMap((size, image) =>
    Array.from({ length: size }, (_, i) => ({
      id: `${image}-${i}`,
      images: [`${image}.png`],
      conversations: [ask(true), answer],
      fields: {},
    })),
  );
  const others = Array.from({ length: textOnly }, (_, i) => ({
    id: `text-${i}`,
    images: [],
    conversations: [ask(false), answer],
    fields: {},
  }));
  // an order in which the samples of a picture are not neighbours
  return [...pictured, ...others].sort((a, b) => (a.id.split('-')[1] + a.id < b.id.split('-')[1] + b.id ? -1 : 1));
}

/** Samples as if they had been read from one file. */
function dataOf(samples: readonly Sample[], share = 1) {
  const groups = samples.map(createGrouping());
  return {
    files: [{ share, samples: samples.length }],
    sample: (i: number) => samples[i],
    group: (i: number) => groups[i],
    hasPictures: (i: number) => samples[i].images.length > 0,
  };
}

const options = { tokenizer, imageTokens: 4, template: 'gemma', maxLength: 64, seed: 1, stage: 'a' } as const;
const open = (samples: readonly Sample[], batchSize: number, more: { seed?: number; stage?: string } = {}) =>
  conversationBatches({ ...options, data: dataOf(samples), batchSize, ...more });

/** Of the samples in each batch of an epoch that has `count` batches. */
const ids = ({ batch }: ReturnType<typeof open>, epoch: number, count: number) =>
  Array.from({ length: count }, (_, i) => batch(epoch * count + i).map(({ id }) => id));

const sizes = fc.array(fc.integer({ min: 1, max: 5 }), { minLength: 1, maxLength: 6 });

describe('batches of conversations', () => {
  it('have every sample once an epoch, and the samples of a picture one after the other', () => {
    fc.assert(
      fc.property(sizes, fc.nat(3), fc.integer({ min: 1, max: 7 }), fc.nat(3), (pictures, textOnly, batchSize, epoch) => {
        const samples = samplesAbout(pictures, textOnly);
        const batches = open(samples, batchSize);
        const seen = ids(batches, epoch, batchesPerEpoch(samples.length, batchSize));
        for (const batch of seen.slice(0, -1)) expect(batch).toHaveLength(batchSize);
        expect(seen.flat().sort()).toEqual(samples.map(({ id }) => id).sort());
        const groups = seen.flat().map((id) => (id.startsWith('text') ? id : id.split('-')[0]));
        const changes = groups.filter((group, i) => group !== groups[i - 1]);
        expect(changes).toHaveLength(new Set(groups).size);
      }),
      { numRuns: 50 },
    );
  });

  it('are a function of seed, stage and index, whatever was asked for before', () => {
    const samples = samplesAbout([3, 1, 4, 2, 5], 2);
    const straight = open(samples, 4);
    const expected = Array.from({ length: 12 }, (_, i) => straight.batch(i));
    const jumping = open(samples, 4);
    for (const i of [11, 0, 7, 7, 3]) expect(jumping.batch(i)).toEqual(expected[i]);
    const order = (more: Parameters<typeof open>[2]) => ids(open(samples, 4, more), 0, 5).flat();
    expect(order({})).toEqual(order({}));
    expect(order({ seed: 2 })).not.toEqual(order({}));
    expect(order({ stage: 'b' })).not.toEqual(order({}));
    expect(ids(straight, 1, 5)).not.toEqual(ids(straight, 0, 5));
  });

  it('come in another order than the file: pictures, and the samples of a picture, are shuffled anew each epoch', () => {
    // 12 pictures of 6 questions each: that a shuffle leaves either as it was does not happen by chance
    const samples = samplesAbout(Array(12).fill(6));
    const batches = open(samples, 9);
    const pictureOf = (id: string) => id.split('-')[0];
    const pictures = (order: readonly string[]) => [...new Set(order.map(pictureOf))];
    const inFile = samples.map(({ id }) => id);
    /** How many pictures have their samples in the same order in both. */
    const sameWithin = (a: readonly string[], b: readonly string[]) => {
      const within = (order: readonly string[], picture: string) => order.filter((id) => pictureOf(id) === picture).join();
      return pictures(a).filter((picture) => within(a, picture) === within(b, picture)).length;
    };
    const orders = [inFile, ...[0, 1, 2].map((epoch) => ids(batches, epoch, 8).flat())];
    for (const [i, order] of orders.entries())
      for (const later of orders.slice(i + 1)) {
        expect(pictures(later)).not.toEqual(pictures(order));
        // of the orders of 6 samples, one in 720 is the same
        expect(sameWithin(later, order)).toBeLessThan(3);
      }
  });

  it('do not keep samples without a picture together', () => {
    const batches = open(samplesAbout([1, 1, 1, 1, 1, 1], 6), 12);
    const runs = [0, 1, 2].map((epoch) => {
      const kinds = ids(batches, epoch, 1)
        .flat()
        .map((id) => id.startsWith('text'));
      return kinds.filter((kind, i) => kind && !kinds[i - 1]).length;
    });
    expect(Math.max(...runs)).toBeGreaterThan(1);
  });

  it('have no more samples without a picture together when all have the same id', () => {
    const samples = samplesAbout([1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1], 12).map((sample) =>
      sample.images.length > 0 ? sample : { ...sample, id: 'same' },
    );
    const batches = open(samples, 24);
    for (const epoch of [0, 1, 2]) {
      const [order] = ids(batches, epoch, 1);
      // all twelve side by side are one order in a hundred thousand
      expect(order.lastIndexOf('same') - order.indexOf('same')).toBeGreaterThan(11);
    }
  });

  it('come in the order of samples that are all in memory: groups are shuffled, then the samples of each', () => {
    fc.assert(
      fc.property(sizes, fc.nat(3), fc.nat(5), fc.nat(3), (pictures, textOnly, seed, epoch) => {
        const samples = samplesAbout(pictures, textOnly);
        const groups = new Map<string, Sample[]>();
        for (const sample of samples) {
          const key = sample.images[0] ?? sample.id;
          groups.set(key, [...(groups.get(key) ?? []), sample]);
        }
        const random = createRandom(seed, 'order', 'a', epoch);
        const expected = random.shuffle([...groups.values()]).flatMap((group) => random.shuffle(group));
        const [order] = ids(open(samples, samples.length, { seed }), epoch, 1);
        expect(order).toEqual(expected.map(({ id }) => id));
      }),
    );
  });

  it('are encoded: image rows in the prompt, labels on the answer', () => {
    const [[sample]] = [open(samplesAbout([1]), 1).batch(0)];
    expect(sample.images).toEqual(['0.png']);
    expect(sample.inputIds.filter((id) => id === tokenizer.imageTokenId)).toHaveLength(4);
    expect(tokenizer.decode(sample.labels.filter((label) => label >= 0))).toBe('a cat<end_of_turn>\n');
  });

  it('name the sample of which nothing would be trained', () => {
    const [sample] = samplesAbout([1]);
    const unanswered = { ...sample, id: 'q7', conversations: sample.conversations.slice(0, 1) };
    expect(() => open([unanswered], 1).batch(0)).toThrow('"q7": nothing of it would be trained');
  });
});

describe('the samples of an epoch', () => {
  const draw = (files: { share: number; samples: number }[], epoch: number, seed = 1, stage = 'a') => [
    ...drawSamples(files, { seed, stage }, epoch),
  ];
  const all = (from: number, samples: number) => Array.from({ length: samples }, (_, i) => from + i);

  it('are as many of each file as its share says, and none comes again before all have come', () => {
    const file = fc.record({ share: fc.constantFrom(0.01, 0.25, 0.4, 1, 1.5, 2), samples: fc.integer({ min: 1, max: 30 }) });
    fc.assert(
      fc.property(fc.array(file, { minLength: 1, maxLength: 3 }), fc.nat(5), (files, seed) => {
        const epochs = all(0, 7).map((epoch) => draw(files, epoch, seed));
        let first = 0;
        for (const { share, samples } of files) {
          const own = epochs.map((epoch) => epoch.filter((index) => index >= first && index < first + samples));
          for (const drawn of own) expect(drawn).toHaveLength(Math.max(1, Math.round(share * samples)));
          const times = all(first, samples).map((index) => own.flat().filter((drawn) => drawn === index).length);
          expect(Math.max(...times) - Math.min(...times)).toBeLessThan(2);
          first += samples;
        }
        expect(epochs[0]).toHaveLength(samplesPerEpoch(files));
      }),
    );
  });

  it('are a function of seed, stage and epoch', () => {
    const files = [
      { share: 0.5, samples: 40 },
      { share: 1, samples: 10 },
    ];
    expect(draw(files, 3)).toEqual(draw(files, 3));
    for (const other of [draw(files, 2), draw(files, 3, 2), draw(files, 3, 1, 'b')]) expect(other).not.toEqual(draw(files, 3));
    expect(draw(files, 3).slice(-10)).toEqual(all(40, 10));
    expect(draw([{ share: 1, samples: 10 }], 5)).toEqual(all(0, 10));
    expect(draw([{ share: 2, samples: 3 }], 5)).toEqual([0, 0, 1, 1, 2, 2]);
  });

  it('are trained in batches, those of one picture side by side', () => {
    const samples = samplesAbout([4, 4, 4, 4]);
    const batches = conversationBatches({ ...options, data: dataOf(samples, 0.5), batchSize: 3 });
    const [first, second] = [0, 1].map((epoch) => ids(batches, epoch, 3).flat());
    expect(first).toHaveLength(8);
    expect([...first, ...second].sort()).toEqual(samples.map(({ id }) => id).sort());
    const pictures = first.map((id) => id.split('-')[0]);
    expect(pictures.filter((picture, i) => picture !== pictures[i - 1])).toHaveLength(new Set(pictures).size);
  });
});
