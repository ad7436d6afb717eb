import { fileURLToPath } from 'node:url';
import fc from 'fast-check';
import { beforeAll, describe, expect, test } from 'vitest';
import { readTokenizerFiles } from '../../checkpoint/tokenizer-files.ts';
import type { Value } from '../../engine/engine.ts';
import { createOrtEngine } from '../../engine/ort.ts';
import { clipConfigSchema } from '../../models/clip.ts';
import { contrastiveLoss } from '../../models/contrastive.ts';
import { initialize } from '../../nn/parameters.ts';
import { createRandom } from '../../random.ts';
import { createTokenizer, type Tokenizer } from '../../text/tokenizer.ts';
import {
  type ContrastiveOptions,
  contrastiveBatch,
  pixelInputs,
  regionInputs,
  regionSlots,
  regionWeights,
  textInputs,
} from './contrastive.ts';
import { type EmojiGlyphs, loadEmojiGlyphs, sharedConcepts } from './glyphs.ts';
import { defaultAugmentation, type PlacedGlyph } from './scene.ts';

let glyphs: EmojiGlyphs;
let tokenizer: Tokenizer;
let options: ContrastiveOptions;
beforeAll(async () => {
  glyphs = await loadEmojiGlyphs();
  const { tokenizerJson, tokenizerConfig } = await readTokenizerFiles(fileURLToPath(new URL('../../../assets/tokenizer', import.meta.url)));
  tokenizer = createTokenizer(tokenizerJson, tokenizerConfig);
  options = {
    concepts: sharedConcepts(glyphs).slice(0, 40),
    artists: glyphs.artists.slice(0, 2),
    counts: [1, 2, 3, 4],
    imageSize: 32,
    patchSize: 8,
    augmentation: defaultAugmentation,
    captionWeight: 0.5,
    singlePatchChance: 0,
    mean: [0.5, 0.4, 0.3],
    std: [0.2, 0.25, 0.3],
  };
});

const placed = (x: number, y: number, size: number): PlacedGlyph => ({ concept: 0, artist: '', cell: 0, x, y, size });
const ints = (value: Value) => [...(value.data as Int32Array)];

describe('regionWeights', () => {
  test('is the share of each patch in the drawing, row by row', () => {
    // a box of 8 centered on the corner where four patches meet, and one inside the second patch of the third
    // row
    expect([...regionWeights(placed(8, 8, 8), 24, 8)]).toEqual([0.25, 0.25, 0, 0.25, 0.25, 0, 0, 0, 0]);
    expect([...regionWeights(placed(12, 20, 4), 24, 8)]).toEqual([0, 0, 0, 0, 0, 0, 0, 1, 0]);
    // wide: x from 6 to 18 covers 2, 8 and 2 of the columns
    const wide = regionWeights(placed(12, 12, 12), 24, 8);
    expect(wide[4] / wide[3]).toBeCloseTo(4, 5);
    expect(wide[4] / wide[0]).toBeCloseTo(16, 5);
  });

  test('sums to one wherever the drawing stands, even when it hangs over the edge', () => {
    const at = fc.double({ min: 0, max: 32, noNaN: true });
    fc.assert(
      fc.property(at, at, fc.double({ min: 1, max: 40, noNaN: true }), (x, y, size) => {
        const weights = regionWeights(placed(x, y, size), 32, 8);
        expect(weights.every((weight) => weight >= 0)).toBe(true);
        expect(weights.reduce((a, b) => a + b, 0)).toBeCloseTo(1, 5);
      }),
    );
  });
});

test('textInputs: <bos> text <eos>, padded, the end marked once a row', () => {
  const inputs = textInputs(tokenizer, 'name', ['a red apple', 'cat']);
  const { name_ids: ids, name_mask: mask, name_end: end, name_positions: positions } = inputs;
  const [rows, tokens] = ids.dims;
  expect(rows).toBe(2);
  const words = ['a red apple', 'cat'].map((text) => [tokenizer.bosTokenId, ...tokenizer.encode(text), tokenizer.eosTokenId]);
  expect(tokens).toBe(Math.max(...words.map((row) => row.length)));
  words.forEach((row, i) => {
    const padding = Array<number>(tokens - row.length).fill(tokenizer.padTokenId);
    expect(ints(ids).slice(i * tokens, (i + 1) * tokens)).toEqual([...row, ...padding]);
    expect(ints(mask).slice(i * tokens, (i + 1) * tokens)).toEqual([...row.map(() => 1), ...padding.map(() => 0)]);
    expect([...(end.data as Uint8Array)].slice(i * tokens, (i + 1) * tokens).indexOf(1)).toBe(row.length - 1);
  });
  expect((end.data as Uint8Array).reduce((a, b) => a + b, 0)).toBe(2);
  expect(ints(positions)).toEqual([...Array(tokens).keys()]);
});

test('pixelInputs: channels apart, in [0, 1], less the mean, over the deviation', () => {
  const { data, dims } = pixelInputs([{ data: Uint8Array.of(255, 0, 51, 0, 255, 102, 0, 0, 0, 1, 2, 3) }], 2, options.mean, options.std);
  expect(dims).toEqual([1, 3, 2, 2]);
  const expected = [1, 0, 0, 1 / 255].map((v) => (v - 0.5) / 0.2);
  expected.push(...[0, 1, 0, 2 / 255].map((v) => (v - 0.4) / 0.25), ...[0.2, 0.4, 0, 3 / 255].map((v) => (v - 0.3) / 0.3));
  expected.forEach((value, i) => {
    expect(data[i] as number).toBeCloseTo(value, 5);
  });
});

test('regionInputs: a slot a drawing, labelled with its name', () => {
  const scene = (...concepts: number[]) => ({
    size: 32,
    ground: [255, 255, 255] as const,
    glyphs: concepts.map((concept, i) => ({ ...placed(8 + 16 * (i % 2), 8 + 16 * Math.floor(i / 2), 12), concept })),
  });
  const inputs = regionInputs([scene(7, 5), scene(9), scene(5, 9, 7)], ({ concept }) => concept - 5, 32, 8);
  expect(inputs.region_weights.dims).toEqual([3, regionSlots, 16]);
  expect(ints(inputs.region_rows)).toEqual([0, 1, 4, 8, 9, 10]);
  expect(ints(inputs.region_labels)).toEqual([2, 0, 4, 0, 4, 2]);
  const weights = inputs.region_weights.data as Float32Array;
  const sums = Array.from({ length: 12 }, (_, slot) => Math.round(weights.slice(slot * 16, (slot + 1) * 16).reduce((a, b) => a + b, 0)));
  expect(sums).toEqual([1, 1, 0, 0, 1, 0, 0, 0, 1, 1, 1, 0]);
});

describe('contrastiveBatch', () => {
  const make = (seed: number, step: number) => contrastiveBatch(seed, `plain ${step}`, 6, glyphs, tokenizer, options);

  test('is a pure function of seed and step', () => {
    expect(make(1, 3)).toEqual(make(1, 3));
    expect(make(1, 4).pixel_values).not.toEqual(make(1, 3).pixel_values);
    expect(make(2, 3).pixel_values).not.toEqual(make(1, 3).pixel_values);
  });

  test('names every drawing once, and scales sums to means', () => {
    fc.assert(
      fc.property(fc.nat({ max: 1000 }), (step) => {
        const inputs = make(5, step);
        const labels = ints(inputs.region_labels);
        const names = inputs.name_ids.dims[0];
        expect(new Set(labels)).toEqual(new Set(Array(names).keys()));
        const tokens = inputs.name_ids.dims[1];
        const texts = Array.from({ length: names }, (_, i) =>
          ints(inputs.name_ids)
            .slice(i * tokens, (i + 1) * tokens)
            .join(),
        );
        expect(new Set(texts).size).toBe(names);
        expect(inputs.region_scale.data[0]).toBeCloseTo(1 / labels.length, 6);
        expect(inputs.caption_scale.data[0]).toBeCloseTo(0.5 / 12, 6);
        expect(ints(inputs.caption_labels)).toEqual([0, 1, 2, 3, 4, 5]);
        expect(inputs.caption_ids.dims[0]).toBe(6);
      }),
      { numRuns: 10 },
    );
  });

  test('holds the inputs of the contrastive objective, whose loss begins near that of guessing', async () => {
    const tower = { hidden_size: 16, intermediate_size: 32, num_hidden_layers: 1, num_attention_heads: 2 };
    const config = clipConfigSchema.parse({
      vision_config: { ...tower, image_size: 32, patch_size: 8 },
      text_config: { ...tower, vocab_size: tokenizer.vocabSize, eos_token_id: tokenizer.eosTokenId },
      projection_dim: 8,
      logit_scale_init_value: 0,
    });
    const { parameters, outputs } = contrastiveLoss(config, regionSlots);
    const inputs = make(1, 0);
    const constants = new Map(
      parameters.map((p) => {
        const value: Value = { dtype: 'float32', dims: p.dims, data: initialize(p, createRandom(1, p.name)) };
        return [p.name, value] as const;
      }),
    );
    const program = await createOrtEngine({ threads: 1 }).compile(outputs, { constants });
    expect([...program.inputNames].sort()).toEqual(Object.keys(inputs).sort());
    const results = await program.run(inputs);
    await program.dispose();
    // with temperature 1 the cosines lie within a logit of each other
    expect(Math.abs((results.region_loss.data[0] as number) - Math.log(inputs.name_ids.dims[0]))).toBeLessThan(1);
    expect(Math.abs((results.caption_loss.data[0] as number) - 0.5 * Math.log(6))).toBeLessThan(0.5);
    expect(results.loss.data[0]).toBeCloseTo((results.region_loss.data[0] as number) + (results.caption_loss.data[0] as number), 5);
  });
});
