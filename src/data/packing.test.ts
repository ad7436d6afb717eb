import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { float32, int32, type Program, type Value } from '../engine/engine.ts';
import { createOrtEngine } from '../engine/ort.ts';
import { grad } from '../graph/grad.ts';
import { mul } from '../graph/primitives.ts';
import { input } from '../graph/tensor.ts';
import { type LlavaConfig, llavaConfigSchema } from '../models/llava.ts';
import { type LossGraph, languageModelLoss, llavaLoss } from '../models/programs.ts';
import { initialize } from '../nn/parameters.ts';
import { createRandom, type Random } from '../random.ts';
import { type EncodedSample, type PackedBatch, packSamples } from './packing.ts';

// 4 image tokens an image; the image token lies behind the embedding table
const IMAGE = 31;
const PATCHES = 4;
const POSITIONS = 64;
const config: LlavaConfig = llavaConfigSchema.parse({
  vision_config: {
    hidden_size: 8,
    intermediate_size: 8,
    num_hidden_layers: 2,
    num_attention_heads: 2,
    image_size: 8,
    patch_size: 4,
  },
  text_config: {
    vocab_size: 31,
    hidden_size: 16,
    intermediate_size: 24,
    num_hidden_layers: 2,
    num_attention_heads: 2,
    num_key_value_heads: 1,
    head_dim: 8,
    max_position_embeddings: POSITIONS,
    // wide, so that what a token sees shows in its loss
    initializer_range: 0.4,
  },
  image_token_index: IMAGE,
});

// === Samples ===

const image = Array<number>(PATCHES).fill(IMAGE);

/** `<bos> image line break`, which the samples of an image share. */
const prefix = [2, ...image, 9];

function words(random: Random, length: number): number[] {
  return Array.from({ length }, () => 3 + random.integer(28));
}

/** Labels on a random part of the tokens behind `from`, at least on one. */
function labelsFor(random: Random, inputIds: readonly number[], from: number): number[] {
  const sure = from + random.integer(inputIds.length - from);
  return inputIds.map((id, t) => (t >= from && id !== IMAGE && (t === sure || random.uniform() < 0.5) ? id : -100));
}

/**
 * Samples as they come: text alone, questions that share an image, an image in the middle of a text, a second
 * image in the answer.
 */
function randomSamples(random: Random, count: number): EncodedSample[] {
  return Array.from({ length: count }, (_, i) => {
    const key = () => `image ${random.integer(3)}`;
    const kind = random.pick(['text', 'question', 'question', 'question', 'middle', 'two']);
    let inputIds: number[];
    let images: string[];
    if (kind === 'question') {
      inputIds = [...prefix, ...words(random, 1 + random.integer(8))];
      images = [key()];
    } else if (kind === 'two') {
      inputIds = [...prefix, 11, ...image, ...words(random, 1 + random.integer(4))];
      images = [key(), key()];
    } else if (kind === 'middle') {
      inputIds = [2, ...words(random, 2), ...image, ...words(random, 2)];
      images = [key()];
    } else {
      inputIds = [2, ...words(random, 1 + random.integer(9))];
      images = [];
    }
    const shared = kind === 'question' || kind === 'two';
    const from = shared ? prefix.length : inputIds.lastIndexOf(IMAGE) + 1 || 1;
    const labels = labelsFor(random, inputIds, kind === 'two' ? prefix.length + 1 + PATCHES : from);
    return { id: `${i}`, inputIds, labels, prefixLength: shared ? prefix.length : 0, images };
  });
}

const samplesOf = (minLength: number, maxLength: number) =>
  fc.tuple(fc.nat(), fc.integer({ min: minLength, max: maxLength })).map(([seed, count]) => randomSamples(createRandom(seed), count));
const rowLengths = fc.constantFrom(1, 16, 24, 40, 500);

// === Reading a packed batch back ===

/** What each branch of a batch reads, in order of position, with the images and labels that it meets. */
function unpack({ inputs, images, length, rows }: PackedBatch): string[] {
  const data = (name: string) => inputs[name].data as Int32Array;
  const [ids, positions, samples, branches] = ['input_ids', 'position_ids', 'sample_ids', 'branch_ids'].map(data);
  let imageTokens = 0;
  const imageAt = Array.from(ids, (id) => (id === IMAGE ? images[Math.floor(imageTokens++ / PATCHES)] : ''));
  expect(imageTokens).toBe(images.length * PATCHES);
  const found: string[] = [];
  for (let row = 0; row < rows; row++) {
    const places = Array.from({ length }, (_, t) => row * length + t).filter((at) => samples[at] > 0);
    for (const sample of new Set(places.map((at) => samples[at])))
      for (const branch of new Set(places.filter((at) => samples[at] === sample && branches[at] > 0).map((at) => branches[at]))) {
        const visible = places.filter((at) => samples[at] === sample && (branches[at] === 0 || branches[at] === branch));
        expect(visible.map((at) => positions[at])).toEqual(visible.map((_, t) => t));
        // a label belongs to the branch whose token it is: that of its row, or the one that follows the
        // prefix
        const labels = visible.map((at, t) => {
          if (t === 0 || branches[at] === 0) return [];
          const matches = [...data('label_rows').entries()].filter(([, from]) => from === visible[t - 1]).map(([i]) => data('labels')[i]);
          return branches[visible[t - 1]] === 0 ? matches.filter((label) => label === ids[at]).slice(0, 1) : matches;
        });
        found.push(
          JSON.stringify([visible.map((at) => ids[at]), labels.map(([label]) => label ?? -100), visible.map((at) => imageAt[at])]),
        );
      }
  }
  return found.sort();
}

/** The same of a sample by itself. */
function described({ inputIds, labels, images }: EncodedSample): string {
  let imageTokens = 0;
  return JSON.stringify([inputIds, labels, inputIds.map((id) => (id === IMAGE ? images[Math.floor(imageTokens++ / PATCHES)] : ''))]);
}

const labelled = (samples: readonly EncodedSample[]) => samples.flatMap(({ labels }) => labels.slice(1).filter((label) => label !== -100));

describe('packSamples', () => {
  test('loses, repeats and mixes nothing', () => {
    fc.assert(
      fc.property(samplesOf(1, 25), rowLengths, (samples, rowLength) => {
        const batch = packSamples(samples, rowLength);
        const sorted = (list: Iterable<number>) => [...list].sort((a, b) => a - b);
        expect(sorted(batch.inputs.labels.data as Int32Array)).toEqual(sorted(labelled(samples)));
        expect(batch.tokens).toBe((batch.inputs.sample_ids.data as Int32Array).filter((id) => id > 0).length);
        expect(batch.inputs.input_ids.dims).toEqual([batch.rows, batch.length]);
        // two samples of an image may label their first own token differently: this is compared by losses
        // below
        const keepFirst = samples.map((sample) => ({
          ...sample,
          labels: sample.labels.map((label, t) => (t === sample.prefixLength ? -100 : label)),
        }));
        expect(unpack(packSamples(keepFirst, rowLength))).toEqual(keepFirst.map(described).sort());
      }),
      { numRuns: 200 },
    );
  });

  test('makes no row longer than the limit or a quarter above what is asked for, if no sample is', () => {
    fc.assert(
      fc.property(samplesOf(1, 40), rowLengths, fc.constantFrom(20, 64, 1000), (samples, rowLength, limit) => {
        const longest = Math.max(...samples.map(({ inputIds }) => inputIds.length));
        const { length } = packSamples(samples, rowLength, limit);
        expect(length).toBeLessThanOrEqual(Math.max(longest, Math.min(limit, 1.25 * rowLength)));
      }),
    );
  });

  test('is the same for the same samples', () => {
    const samples = randomSamples(createRandom(5), 30);
    expect(packSamples(samples, 40)).toEqual(packSamples(samples, 40));
  });

  test('leaves no row that handing over or exchanging would shorten', () => {
    // a sample about picture k is `prefix` times k and then its own number, so that a packed row can be read
    // back
    const pictured = fc.record({ picture: fc.nat(3), branch: fc.integer({ min: 1, max: 9 }) });
    const setting = fc.record({ prefix: fc.integer({ min: 0, max: 6 }), list: fc.array(pictured, { minLength: 2, maxLength: 14 }) });
    fc.assert(
      fc.property(setting, fc.integer({ min: 12, max: 40 }), ({ prefix, list }, rowLength) => {
        const samples = list.map(({ picture, branch }, i): EncodedSample => {
          const inputIds = [...Array<number>(prefix).fill(picture), ...Array<number>(branch).fill(100 + i)];
          return { id: `${i}`, inputIds, labels: inputIds, prefixLength: prefix, images: [`${picture}`] };
        });
        const { inputs, rows, length } = packSamples(samples, rowLength);
        const [ids, groupIds, branchIds] = ['input_ids', 'sample_ids', 'branch_ids'].map((name) => inputs[name].data as Int32Array);
        const packed = Array.from({ length: rows }, (_, row) => {
          const groups = new Map<number, { picture: number; branches: number[] }>();
          for (let at = row * length; at < (row + 1) * length && groupIds[at] > 0; at++) {
            const { picture } = branchIds[at] === 0 ? { picture: ids[at] } : list[ids[at] - 100];
            const group = groups.get(groupIds[at]) ?? { picture, branches: [] };
            groups.set(groupIds[at], group);
            if (branchIds[at] > 0) group.branches[branchIds[at] - 1] = (group.branches[branchIds[at] - 1] ?? 0) + 1;
          }
          const whole = [...groups.values()].map((group) => ({ ...group, length: prefix + group.branches.reduce((a, b) => a + b, 0) }));
          return { groups: whole, length: whole.reduce((sum, group) => sum + group.length, 0) };
        });
        const longest = Math.max(...packed.map((row) => row.length));
        expect(longest).toBe(length);
        if (packed.filter((row) => row.length === longest).length > 1) return;
        const full = packed.find((row) => row.length === longest)!;
        for (const other of packed.filter((row) => row !== full)) {
          const longer = (given: number, taken: number) => Math.max(longest - given, other.length + taken);
          for (const group of full.groups) {
            expect(longer(group.length, group.length)).toBeGreaterThanOrEqual(longest);
            for (const { length: theirs } of other.groups)
              expect(longer(group.length - theirs, group.length - theirs)).toBeGreaterThanOrEqual(longest);
            if (group.branches.length === 1) continue;
            const known = prefix > 0 && other.groups.some(({ picture }) => picture === group.picture);
            for (const branch of group.branches) expect(longer(branch, branch + (known ? 0 : prefix))).toBeGreaterThanOrEqual(longest);
          }
        }
      }),
      { numRuns: 300 },
    );
  });

  test('fills a row to the last token with questions about one picture', () => {
    const about = (branches: readonly number[], rowLength: number) => {
      const samples = branches.map((branch, i): EncodedSample => {
        const inputIds = [...prefix, ...Array<number>(branch).fill(11)];
        return { id: `${i}`, inputIds, labels: inputIds, prefixLength: prefix.length, images: ['a'] };
      });
      const { tokens, rows, length } = packSamples(samples, rowLength);
      return { tokens, rows, length };
    };
    expect(about([8, 8, 8], 30)).toEqual({ tokens: 30, rows: 1, length: 30 });
    // one token more than there is room for: the picture is there twice
    expect(about([8, 8, 9], 30).tokens).toBe(37);
    expect(about([4], 30)).toEqual({ tokens: 10, rows: 1, length: 10 });
  });

  test('computes an image once for all its questions in a row', () => {
    const random = createRandom(1);
    const questions = Array.from({ length: 6 }, (_, i) => {
      const inputIds = [...prefix, ...words(random, 5)];
      return { id: `${i}`, inputIds, labels: labelsFor(random, inputIds, 6), prefixLength: 6, images: ['a'] };
    });
    const { tokens, images, rows } = packSamples(questions, 64);
    expect({ tokens, images, rows }).toEqual({ tokens: 6 + 6 * 5, images: ['a'], rows: 1 });
  });

  test('shares a prefix only among samples whose prefix is the same', () => {
    const sample = (id: string, inputIds: number[]) => ({
      id,
      inputIds,
      labels: inputIds.map((t, i) => (i > 6 ? t : -100)),
      images: ['a'],
    });
    const samples = [
      { ...sample('1', [2, ...image, 9, 12, 13]), prefixLength: 6 },
      { ...sample('2', [2, ...image, 10, 12, 13]), prefixLength: 6 },
    ];
    expect(unpack(packSamples(samples, 64))).toEqual(samples.map(described).sort());
  });

  test.each([4, 8, 16, 128])(
    'fills rows of 2,048 with pictures of 576 rows: less than 5 % of %i long and short samples is padding',
    (size) => {
      // as in llava_v1_5_mix665k: most have a picture and some hundred words, others text alone, and more
      const random = createRandom(size);
      const sampleOf = (i: number): EncodedSample => {
        const isPictured = random.uniform() > 0.06;
        const text = Math.round(isPictured ? Math.exp(4.9 + 0.8 * random.normal()) : Math.exp(6.6 + 0.7 * random.normal()));
        const prefixLength = isPictured ? 590 : 0;
        const inputIds = new Array<number>(Math.min(2048, prefixLength + Math.max(20, text))).fill(5);
        const labels = inputIds.map((id, t) => (t >= prefixLength + 10 ? id : -100));
        return { id: `${i}`, inputIds, labels, prefixLength, images: isPictured ? [`${i}.jpg`] : [] };
      };
      let [tokens, places] = [0, 0];
      for (let from = 0; from < 1024; from += size) {
        const packed = packSamples(
          Array.from({ length: size }, (_, i) => sampleOf(from + i)),
          2048,
          8192,
        );
        expect(packed.length).toBeLessThanOrEqual(2048 * 1.25);
        tokens += packed.tokens;
        places += packed.rows * packed.length;
      }
      expect(1 - tokens / places).toBeLessThan(0.05);
    },
  );

  test('fills rows: padding stays below 5 % for batches of 64 questions, some six an image', () => {
    for (const rowLength of [256, 384, 512]) {
      let padding = 0;
      let size = 0;
      let worst = 0;
      for (let seed = 0; seed < 50; seed++) {
        const random = createRandom(seed, 'padding');
        const samples: EncodedSample[] = [];
        for (let i = 0; samples.length < 64; i++)
          for (let question = 4 + random.integer(5); question > 0 && samples.length < 64; question--) {
            const inputIds = new Array<number>(40 + 15 + random.integer(31)).fill(5);
            samples.push({ id: `${samples.length}`, inputIds, labels: inputIds, prefixLength: 40, images: [`${i}`] });
          }
        const { tokens, rows, length } = packSamples(samples, rowLength);
        padding += rows * length - tokens;
        size += rows * length;
        worst = Math.max(worst, 1 - tokens / (rows * length));
      }
      const percent = (share: number) => `${(100 * share).toFixed(1)} %`;
      console.log(`rows of about ${rowLength} tokens: padding ${percent(padding / size)}, of the worst batch ${percent(worst)}`);
      expect(padding / size).toBeLessThan(0.05);
    }
  });
});

// === Losses ===

interface Compiled {
  program: Program;
  feeds: Record<string, Value>;
  names: string[];
}

const engine = createOrtEngine({ threads: 1 });

async function compile({ parameters: list, outputs }: LossGraph): Promise<Compiled> {
  // the mean over labels
  const loss = mul(outputs.loss, input('loss_scale', 'float32', []));
  const gradients = grad(
    loss,
    list.map(({ tensor }) => tensor),
  );
  const names = list.map(({ name }) => `gradient.${name}`);
  return {
    program: await engine.compile({ loss, ...Object.fromEntries(names.map((name, i) => [name, gradients[i]])) }),
    feeds: Object.fromEntries(list.map((p) => [p.name, float32(initialize(p, createRandom(9, p.name)), p.dims)])),
    names,
  };
}

/** A row of its own, written down without any packing. */
function alone({ inputIds, labels }: EncodedSample): Record<string, Value> {
  const shape = [1, inputIds.length];
  const rows = [...inputIds.keys()].slice(1).filter((t) => labels[t] !== -100);
  return {
    input_ids: int32(inputIds, shape),
    position_ids: int32([...inputIds.keys()], shape),
    sample_ids: int32(new Int32Array(inputIds.length), shape),
    branch_ids: int32(new Int32Array(inputIds.length), shape),
    label_rows: int32(
      rows.map((t) => t - 1),
      [rows.length],
    ),
    labels: int32(
      rows.map((t) => labels[t]),
      [rows.length],
    ),
  };
}

function features(images: readonly string[]): Value {
  const width = config.vision_config.hidden_size;
  const rows = images.flatMap((key) => {
    const random = createRandom(2, key);
    return Array.from({ length: PATCHES * width }, () => random.normal());
  });
  return float32(rows, [images.length, PATCHES, width]);
}

describe('the loss of packed samples', () => {
  let llava: Compiled;
  let language: Compiled;
  beforeAll(async () => {
    llava = await compile(llavaLoss(config));
    language = await compile(languageModelLoss(config.text_config));
  });
  afterAll(async () => {
    await llava.program.dispose();
    await language.program.dispose();
  });

  async function run({ program, feeds }: Compiled, inputs: Record<string, Value>, images: readonly string[] | undefined, labels: number) {
    const shown: Record<string, Value> = images ? { image_features: features(images) } : {};
    const results = await program.run({ ...feeds, ...inputs, ...shown, loss_scale: float32([1 / labels], []) });
    return Object.fromEntries(Object.entries(results).map(([name, { data }]) => [name, Float64Array.from(data as Float32Array)]));
  }

  /** Packed against one by one: loss and gradients. */
  async function expectSameLoss(compiled: Compiled, samples: readonly EncodedSample[], rowLength: number) {
    const labels = labelled(samples).length;
    const withImages = compiled === llava;
    const batch = packSamples(samples, rowLength, POSITIONS);
    const packed = await run(compiled, batch.inputs, withImages ? batch.images : undefined, labels);
    const sums: Record<string, Float64Array> = {};
    for (const sample of samples) {
      const single = await run(compiled, alone(sample), withImages ? sample.images : undefined, labels);
      for (const [name, values] of Object.entries(single)) {
        sums[name] ??= new Float64Array(values.length);
        values.forEach((v, i) => {
          sums[name][i] += v;
        });
      }
    }
    // relative to the largest gradient of all: that of a query which sees one key alone is rounding and
    // nothing else
    const scale = Math.max(1, ...Object.values(sums).map((values) => values.reduce((max, v) => Math.max(max, Math.abs(v)), 0)));
    for (const [name, expected] of Object.entries(sums)) {
      const error = expected.reduce((max, v, i) => Math.max(max, Math.abs(v - packed[name][i])), 0);
      expect(error, name).toBeLessThan(1e-5 * scale);
    }
  }

  test('and its gradients are those of the samples one by one', async () => {
    await fc.assert(
      fc.asyncProperty(samplesOf(1, 10), rowLengths, (samples, rowLength) => expectSameLoss(llava, samples, rowLength)),
      { numRuns: 30 },
    );
    const texts = samplesOf(1, 10).map((samples) => samples.filter(({ images }) => images.length === 0));
    await fc.assert(
      fc.asyncProperty(texts, rowLengths, async (samples, rowLength) => {
        if (samples.length > 0) await expectSameLoss(language, samples, rowLength);
      }),
      { numRuns: 20 },
    );
  });

  test('of one branch does not depend on the words of another', async () => {
    const random = createRandom(8);
    const question = (id: string, labels: boolean): EncodedSample => {
      const inputIds = [...prefix, ...words(random, 6)];
      return { id, inputIds, labels: inputIds.map((t, i) => (labels && i >= 6 ? t : -100)), prefixLength: 6, images: ['a'] };
    };
    const asked = question('asked', true);
    const lossBeside = async (...others: EncodedSample[]) => {
      const batch = packSamples([others[0], asked, ...others.slice(1)], 100);
      expect(batch.rows).toBe(1);
      return (await run(llava, batch.inputs, batch.images, 6)).loss[0];
    };
    const expected = await lossBeside(question('x', false), question('y', false));
    expect(await lossBeside(question('p', false), question('q', false))).toBe(expected);
    // but it does on its own and on the image
    const other = await run(llava, alone({ ...asked, inputIds: [...prefix, ...words(random, 6)] }), ['a'], 6);
    expect(Math.abs(other.loss[0] - expected)).toBeGreaterThan(1e-3);
    const elsewhere = await run(llava, alone(asked), ['b'], 6);
    expect(Math.abs(elsewhere.loss[0] - expected)).toBeGreaterThan(1e-3);
  });
});
