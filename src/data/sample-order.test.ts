import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { createRandom } from '../random.ts';
import { epochOrder, type SampleOrder } from './sample-order.ts';

/** Samples of which some have a picture, shared by some of them. */
function dataOf(samples: number, seed: number): SampleOrder['data'] {
  const random = createRandom(seed);
  const pictures = Array.from({ length: samples }, () => (random.uniform() < 0.6 ? random.integer(1 + samples / 2) : -1));
  const keys = pictures.map((picture, i) => (picture < 0 ? `text ${i}` : `picture ${picture}`));
  const groups = [...new Set(keys)];
  return {
    files: [{ share: 1, samples }],
    group: (i) => groups.indexOf(keys[i]),
    hasPictures: (i) => pictures[i] >= 0,
  };
}

/** The samples of each step over some epochs: `accumulation` batches, also across epochs. */
function stepsOf(order: SampleOrder, epochs: number, accumulation: number): number[][] {
  const batches = Array.from({ length: epochs }, (_, epoch) => [...epochOrder(order, epoch)]).flatMap((samples) =>
    Array.from({ length: Math.ceil(samples.length / order.batchSize) }, (_, i) =>
      samples.slice(i * order.batchSize, (i + 1) * order.batchSize),
    ),
  );
  return Array.from({ length: Math.ceil(batches.length / accumulation) }, (_, i) =>
    batches.slice(i * accumulation, (i + 1) * accumulation).flat(),
  );
}

describe('steps of one modality', () => {
  const cases = fc.record({
    samples: fc.integer({ min: 1, max: 120 }),
    batchSize: fc.integer({ min: 1, max: 6 }),
    accumulation: fc.integer({ min: 1, max: 4 }),
    seed: fc.nat(1000),
  });

  test('have every sample once an epoch, and are of one kind but for what is left over at the end of an epoch', () => {
    fc.assert(
      fc.property(cases, ({ samples, batchSize, accumulation, seed }) => {
        const data = dataOf(samples, seed);
        const order: SampleOrder = { data, seed, stage: 'a', batchSize, groupByModality: { accumulation } };
        for (const epoch of [0, 1, 2])
          expect([...epochOrder(order, epoch)].sort((a, b) => a - b)).toEqual(Array.from({ length: samples }, (_, i) => i));
        const kindsOf = (step: readonly number[]) => new Set(step.map(data.hasPictures)).size;
        const steps = stepsOf(order, 3, accumulation);
        const mixed = steps.filter((step) => kindsOf(step) === 2).length;
        // of each kind less than a step is left over; where an epoch begins within a step, that is mixed too
        expect(mixed).toBeLessThanOrEqual(3 * 2 + 3);
        if (samples < 60) return;
        const whole = steps.slice(0, Math.floor(samples / (batchSize * accumulation)) - 2);
        expect(whole.every((step) => kindsOf(step) === 1)).toBe(true);
      }),
    );
  });

  test('come in random order, a function of seed, stage and epoch, and keep the samples of a picture together', () => {
    const data = dataOf(400, 7);
    const orderOf = (more: Partial<SampleOrder>, epoch = 0) => {
      return [...epochOrder({ data, seed: 1, stage: 'a', batchSize: 4, groupByModality: { accumulation: 2 }, ...more }, epoch)];
    };
    expect(orderOf({})).toEqual(orderOf({}));
    for (const other of [orderOf({ seed: 2 }), orderOf({ stage: 'b' }), orderOf({}, 1)]) expect(other).not.toEqual(orderOf({}));
    const kinds = stepsOf({ data, seed: 1, stage: 'a', batchSize: 4, groupByModality: { accumulation: 2 } }, 1, 2).map(([first]) =>
      data.hasPictures(first),
    );
    const changes = kinds.filter((kind, i) => i > 0 && kind !== kinds[i - 1]).length;
    // 30 of one kind and 20 of the other: shuffled, the kind changes some 24 times
    expect(changes).toBeGreaterThan(10);
    // a step cuts through a picture's samples at most at its ends
    const pictured = orderOf({}).filter(data.hasPictures);
    const runs = pictured.filter((sample, i) => i === 0 || data.group(sample) !== data.group(pictured[i - 1])).length;
    expect(runs).toBeLessThan(new Set(pictured.map(data.group)).size + kinds.length);
  });

  test('are the samples of a run that mixes both, in another order', () => {
    const data = dataOf(50, 3);
    const plain = epochOrder({ data, seed: 1, stage: 'a', batchSize: 4 }, 2);
    const grouped = epochOrder({ data, seed: 1, stage: 'a', batchSize: 4, groupByModality: { accumulation: 1 } }, 2);
    for (const kind of [true, false]) {
      const own = (order: Uint32Array) => [...order].filter((sample) => data.hasPictures(sample) === kind).sort((a, b) => a - b);
      expect(own(grouped)).toEqual(own(plain));
    }
    expect(grouped).not.toEqual(plain);
  });
});

test('a million samples are ordered in typed arrays: some tens of megabytes, for as long as it takes', () => {
  const samples = 1_000_000;
  const data = { files: [{ share: 1, samples }], group: (i: number) => i >> 1, hasPictures: (i: number) => i % 16 < 15 };
  const before = process.memoryUsage();
  const order = epochOrder({ data, seed: 1, stage: 'a', batchSize: 4, groupByModality: { accumulation: 32 } }, 0);
  const { heapUsed, arrayBuffers } = process.memoryUsage();
  expect(heapUsed - before.heapUsed).toBeLessThan(40e6);
  expect(arrayBuffers - before.arrayBuffers).toBeLessThan(60e6);
  const seen = new Uint8Array(samples);
  for (const sample of order) seen[sample]++;
  expect(seen.every((times) => times === 1)).toBe(true);
});
