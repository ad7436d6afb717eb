// What is exported for transformers.js, run as transformers.js runs it, by ONNX Runtime alone: encoder,
// table, image rows put into their places, decoder with and without a cache. Logits must be those of our
// own pass.

import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { InferenceSession, Tensor } from 'onnxruntime-node';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { float32, int32 } from '../src/engine/engine.ts';
import { createOrtEngine } from '../src/engine/ort.ts';
import { exportTransformersJs, type OnnxDtype, type TransformersJsOptions } from '../src/export/transformers-js.ts';
import { forward } from '../src/generate/forward.ts';
import { imageTokenCount, type LlavaConfig } from '../src/models/llava.ts';
import { createRandom } from '../src/random.ts';
import { PAIRINGS, type TinyModel, tinyModel } from './export-source.ts';
import { readOnnxModel } from './onnx-reader.ts';

let folder: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'llava-gemma-onnx-'));
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const IMAGE = 4096;
const int64 = (values: readonly number[], dims: readonly number[]) => new Tensor('int64', BigInt64Array.from(values, BigInt), dims);
const floats = (tensor: Tensor) => tensor.data as Float32Array;

/** The three sessions of an exported folder. */
async function openExport(out: string, suffix = '') {
  const open = (name: string) => InferenceSession.create(join(out, 'onnx', `${name}${suffix}.onnx`), { intraOpNumThreads: 1 });
  const [vision, embed, decoder] = [await open('vision_encoder'), await open('embed_tokens'), await open('decoder_model_merged')];
  const emptyCache = (config: LlavaConfig, batch: number) => {
    const { num_hidden_layers: layers, num_key_value_heads: heads, head_dim: width } = config.text_config;
    const empty = () => new Tensor('float32', new Float32Array(0), [batch, heads, 0, width]);
    return Object.fromEntries(
      Array.from({ length: layers }, (_, i) => ['key', 'value'].map((kind) => [`past_key_values.${i}.${kind}`, empty()])).flat(),
    );
  };
  return {
    /** Rows of a batch with image rows in their places. */
    async embed(ids: number[][], pixels: Float32Array, hidden: number) {
      const { inputs_embeds: rows } = await embed.run({ input_ids: int64(ids.flat(), [ids.length, ids[0].length]) });
      const { image_features: features } = await vision.run({ pixel_values: new Tensor('float32', pixels, [1, 3, 32, 32]) });
      let image = 0;
      ids.flat().forEach((id, at) => {
        if (id === IMAGE) floats(rows).set(floats(features).subarray(image * hidden, ++image * hidden), at * hidden);
      });
      return rows;
    },
    async decode(rows: Tensor, mask: number[][], positions: number[][], past: Record<string, Tensor> | LlavaConfig, keep = 0) {
      const cache = 'text_config' in past ? emptyCache(past as LlavaConfig, mask.length) : (past as Record<string, Tensor>);
      const results = await decoder.run({
        inputs_embeds: rows,
        attention_mask: int64(mask.flat(), [mask.length, mask[0].length]),
        position_ids: int64(positions.flat(), [positions.length, positions[0].length]),
        num_logits_to_keep: int64([keep], []),
        ...cache,
      });
      const { logits, ...present } = results as Record<string, Tensor>;
      return {
        logits,
        past: Object.fromEntries(Object.entries(present).map(([name, tensor]) => [name.replace('present', 'past_key_values'), tensor])),
      };
    },
    async close() {
      for (const session of [vision, embed, decoder]) await session.release();
    },
  };
}

const random = createRandom(3, 'prompt');
const PIXELS = Float32Array.from({ length: 3 * 32 * 32 }, () => random.normal());

const promptOf = (config: LlavaConfig) => [2, 300, ...new Array<number>(imageTokenCount(config)).fill(IMAGE), 301, 302, 303, 304, 305];

/** Our own logits [tokens, vocab] of a prompt with the picture. */
async function ownLogits({ config, weights }: TinyModel, ids: readonly number[]): Promise<Float32Array> {
  const inputs = { input_ids: int32([...ids], [1, ids.length]), pixel_values: float32(PIXELS, [1, 3, 32, 32]) };
  const outputs = await forward(createOrtEngine({ threads: 1 }), { kind: 'llava', config }, weights, inputs);
  const pieces: number[] = [];
  for await (const piece of outputs.get('logits')!.pieces()) pieces.push(...piece);
  return Float32Array.from(pieces);
}

/** The largest difference, but for the image token, which an export rules out. */
function furthest(actual: Float32Array, expected: Float32Array, vocabulary: number): number {
  expect(actual.length).toBe(expected.length);
  return expected.reduce((most, value, i) => (i % vocabulary === IMAGE ? most : Math.max(most, Math.abs(value - actual[i]))), 0);
}

async function exported(name: string, { source }: TinyModel, options: Partial<TransformersJsOptions> = {}): Promise<string> {
  const out = join(folder, name);
  await exportTransformersJs(source, out, { dtypes: ['fp32'], ...options });
  return out;
}

describe.each(PAIRINGS)('%s with %s', (language, encoder) => {
  test('gives the logits of our own pass, at once and token by token', async () => {
    const model = tinyModel(language, encoder, { scale_image_features: language !== 'gemma3_text' });
    const { vocab_size: vocabulary, hidden_size: hidden } = model.config.text_config;
    const parts = await openExport(await exported(`${language}-${encoder}`, model));
    const ids = promptOf(model.config);
    const expected = await ownLogits(model, ids);
    const rows = await parts.embed([ids], PIXELS, hidden);
    const ones = (length: number) => [new Array<number>(length).fill(1)];
    const upTo = (from: number, to: number) => [Array.from({ length: to - from }, (_, i) => from + i)];

    const whole = await parts.decode(rows, ones(ids.length), upTo(0, ids.length), model.config);
    expect(whole.logits.dims).toEqual([1, ids.length, vocabulary]);
    expect(furthest(floats(whole.logits), expected, vocabulary)).toBeLessThan(1e-4);
    expect(floats(whole.logits)[IMAGE]).toBe(-Infinity);

    const cut = ids.length - 3;
    const part = (from: number, to: number) =>
      new Tensor('float32', floats(rows).slice(from * hidden, to * hidden), [1, to - from, hidden]);
    let step = await parts.decode(part(0, cut), ones(cut), upTo(0, cut), model.config, 1);
    for (let at = cut; at < ids.length; at++) step = await parts.decode(part(at, at + 1), ones(at + 1), upTo(at, at + 1), step.past, 1);
    expect(step.logits.dims).toEqual([1, 1, vocabulary]);
    expect(furthest(floats(step.logits), expected.slice(-vocabulary), vocabulary)).toBeLessThan(1e-4);
    await parts.close();
  });
});

test('padding at either side of a row changes nothing', async () => {
  const model = tinyModel('gemma2', 'clip_vision_model');
  const { vocab_size: vocabulary, hidden_size: hidden } = model.config.text_config;
  const parts = await openExport(await exported('padded', model));
  const ids = promptOf(model.config);
  const expected = (await ownLogits(model, ids)).slice(-vocabulary);
  const padding = [0, 0, 0];
  const real = ids.map(() => 1);
  const places = ids.map((_, i) => i);
  const left = await parts.decode(
    await parts.embed([[...padding, ...ids]], PIXELS, hidden),
    [[...padding, ...real]],
    [[1, 1, 1, ...places]],
    model.config,
    1,
  );
  expect(furthest(floats(left.logits), expected, vocabulary)).toBeLessThan(1e-4);
  const right = await parts.decode(
    await parts.embed([[...ids, ...padding]], PIXELS, hidden),
    [[...real, ...padding]],
    [[...places, 1, 1, 1]],
    model.config,
    4,
  );
  expect(furthest(floats(right.logits).slice(0, vocabulary), expected, vocabulary)).toBeLessThan(1e-4);
  await parts.close();
});

describe('dtypes', () => {
  const limits: [OnnxDtype, string, number][] = [
    ['fp16', '_fp16', 0.02],
    ['q8', '_quantized', 0.15],
    ['q4', '_q4', 1],
    ['q4f16', '_q4f16', 1],
  ];
  test.each(limits)('%s is smaller and near', async (dtype, suffix, limit) => {
    const model = tinyModel('gemma3_text', 'siglip_vision_model');
    const { vocab_size: vocabulary, hidden_size: hidden } = model.config.text_config;
    const out = await exported(dtype, model, { dtypes: ['fp32', dtype] });
    const parts = await openExport(out, suffix);
    const ids = promptOf(model.config);
    const rows = await parts.embed([ids], PIXELS, hidden);
    const { logits } = await parts.decode(rows, [ids.map(() => 1)], [ids.map((_, i) => i)], model.config, 1);
    const expected = (await ownLogits(model, ids)).slice(-vocabulary);
    const spread = Math.sqrt(expected.reduce((sum, value) => sum + value * value, 0) / vocabulary);
    expect(furthest(floats(logits), expected, vocabulary) / spread).toBeLessThan(3 * limit);
    const size = (name: string) => statSync(join(out, 'onnx', `embed_tokens${name}.onnx`)).size;
    expect(size(suffix)).toBeLessThan(0.6 * size(''));
    await parts.close();
  });
});

describe('weights beyond a limit', () => {
  test('go into files beside the graph, in parts that a buffer holds, and compute the same', async () => {
    const model = tinyModel('gemma', 'clip_vision_model');
    const { hidden_size: hidden, vocab_size: vocabulary } = model.config.text_config;
    const bufferLimit = 100_000;
    const out = await exported('sharded', model, { dtypes: ['fp32', 'q4'], bufferLimit, inlineLimit: 0, maxShardSize: 300_000 });
    const { use_external_data_format: shards } = JSON.parse(readFileSync(join(out, 'config.json'), 'utf8'))['transformers.js_config'];
    const names = readdirSync(join(out, 'onnx'));
    for (const file of ['vision_encoder', 'embed_tokens', 'decoder_model_merged', 'decoder_model_merged_q4']) {
      const data = names.filter((name) => name.startsWith(`${file}.onnx_data`)).sort();
      expect(data.length).toBe(shards[`${file}.onnx`]);
      expect(data[0]).toBe(`${file}.onnx_data`);
      if (data.length > 1) expect(data).toContain(`${file}.onnx_data_1`);
      for (const name of data) expect(statSync(join(out, 'onnx', name)).size).toBeLessThanOrEqual(300_064);
      const { initializer } = readOnnxModel(readFileSync(join(out, 'onnx', `${file}.onnx`)));
      for (const { externalData } of initializer.filter(({ external }) => external))
        expect(Number(externalData.length)).toBeLessThanOrEqual(bufferLimit);
    }
    expect(shards['embed_tokens.onnx']).toBeGreaterThan(1);
    const parts = await openExport(out);
    const ids = promptOf(model.config);
    const rows = await parts.embed([ids], PIXELS, hidden);
    const { logits } = await parts.decode(rows, [ids.map(() => 1)], [ids.map((_, i) => i)], model.config, 1);
    expect(furthest(floats(logits), (await ownLogits(model, ids)).slice(-vocabulary), vocabulary)).toBeLessThan(1e-4);
    await parts.close();
  });
});

describe('files', () => {
  test('say what transformers.js reads of them', async () => {
    const model = tinyModel('gemma2', 'siglip_vision_model');
    const out = await exported('files', model);
    const json = (name: string) => JSON.parse(readFileSync(join(out, name), 'utf8'));
    expect(json('config.json')).toMatchObject({
      model_type: 'llava',
      image_token_index: IMAGE,
      'transformers.js_config': { dtype: 'fp32' },
    });
    expect(json('preprocessor_config.json')).toMatchObject({
      image_processor_type: 'CLIPImageProcessor',
      processor_class: 'LlavaProcessor',
      pad_size: { height: 32, width: 32 },
    });
    // as many as there are patches: none is dropped, and there is no class token
    expect(json('processor_config.json').num_additional_image_tokens).toBe(0);
    // the template writes <bos>
    expect(json('tokenizer.json').post_processor).toBeNull();
    expect(json('tokenizer_config.json').chat_template).toContain('bos_token');
  });

  test('hold a graph of ops that are no CPU’s own, with the sizes of the cache in numbers', async () => {
    const out = await exported('graph', tinyModel('gemma3_text', 'clip_vision_model'));
    const { node, input } = readOnnxModel(readFileSync(join(out, 'onnx', 'decoder_model_merged.onnx')));
    expect(node.map(({ opType }) => opType)).not.toContain('FusedMatMul');
    expect(input.find(({ name }) => name === 'past_key_values.0.key')!.dims).toEqual(['batch_size', 2, 'past_sequence_length', 8]);
    expect(input.find(({ name }) => name === 'inputs_embeds')!.dims[0]).toBe('batch_size');
  });

  test('are not there at all where a weight does not fit', async () => {
    const model = tinyModel('gemma', 'clip_vision_model');
    model.values.get('language_model.model.layers.1.mlp.up_proj.weight')![5] = 1e6;
    const out = join(folder, 'lost');
    await expect(exportTransformersJs(model.source, out, { dtypes: ['fp16'] })).rejects.toThrow(
      'tiny: language_model.model.layers.1.mlp.up_proj.weight holds 1000000, but float16 ends at 65504: take another dtype',
    );
    expect(readdirSync(folder)).not.toContain('lost');
  });
});
