// The folders that are written, as transformers 5 finds them; what it makes of them is shown by
// tests/reference/ask_transformers.py.

import { cpSync, existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, test } from 'vitest';
import { openCheckpoint, saveCheckpoint } from '../checkpoint/checkpoint.ts';
import { createOrtEngine } from '../engine/ort.ts';
import { imageProcessorConfig } from '../images/processor.ts';
import { llavaConfigSchema, llavaParameters } from '../models/llava.ts';
import { shapeNamed } from '../models/shapes.ts';
import { initialize } from '../nn/parameters.ts';
import { createRandom } from '../random.ts';
import { encodePrompt } from '../text/chat.ts';
import { gemmaChatTemplate } from '../text/chat-template.ts';
import { convertCheckpoint } from './convert.ts';
import { hubForm } from './hub-form.ts';
import { loadModel } from './load.ts';
import { imageProcessorFor, processorFilesOf } from './processor.ts';

const scratch = mkdtempSync(join(tmpdir(), 'hub-form-'));
afterAll(() => rmSync(scratch, { recursive: true, force: true }));
const engine = createOrtEngine({ threads: 1 });
const json = (dir: string, name: string) => JSON.parse(readFileSync(join(dir, name), 'utf8'));

const TABLE = 'language_model.model.embed_tokens.weight';
const LAST = 'multi_modal_projector.linear_2';

/**
 * A LLaVA as this project wrote it up to 0.1: `<image>` lies behind the table, and the image rows are scaled.
 */
async function oldFolder(): Promise<string> {
  const dir = join(scratch, 'old');
  const { text_config, ...shape } = shapeNamed('llava-gemma-tiny').config;
  const config = { ...shape, text_config: { ...(text_config as object), vocab_size: 4096 }, scale_image_features: true };
  const wide = llavaParameters(llavaConfigSchema.parse(config)).map((p) => {
    const random = createRandom(1, p.name);
    const data: Float32Array = initialize(p, random).map((value) => value + 0.1 * random.normal());
    return [p.name, { shape: [...p.dims], data }] as [string, { shape: number[]; data: Float32Array }];
  });
  const files = {
    ...Object.fromEntries(
      ['tokenizer.json', 'tokenizer_config.json'].map((name) => [name, readFileSync(join('assets/tokenizer', name), 'utf8')]),
    ),
    'preprocessor_config.json': JSON.stringify({ ...imageProcessorFor(32), image_processor_type: 'CLIPImageProcessor' }),
  };
  await saveCheckpoint(dir, { config, tensors: new Map(wide), files });
  return dir;
}

const old = await oldFolder();
const written = join(scratch, 'written');
await convertCheckpoint(old, written, { dtype: 'float32', maxShardSize: 1e9 });

describe('a LLaVA that is written', () => {
  test('has a row for <image>: the mean of the others, in a table padded to a multiple of 64', async () => {
    const config = json(written, 'config.json');
    expect(config.image_token_index).toBe(4096);
    expect(config.text_config.vocab_size).toBe(4160);
    const [before, after] = await Promise.all([old, written].map((dir) => openCheckpoint(dir)));
    const [rows, more] = [await before.float32(TABLE), await after.float32(TABLE)];
    expect(after.shape(TABLE)).toEqual([4160, 32]);
    expect(more.subarray(0, rows.length)).toEqual(rows);
    for (let column = 0; column < 32; column++) {
      let sum = 0;
      for (let row = 0; row < 4096; row++) sum += rows[row * 32 + column];
      for (const row of [4096, 4159]) expect(more[row * 32 + column]).toBeCloseTo(sum / 4096, 7);
    }
    await Promise.all([before.close(), after.close()]);
  });

  test('has the scale of image rows in the last layer of its connector', async () => {
    expect(json(written, 'config.json').scale_image_features).toBe(false);
    const [before, after] = await Promise.all([old, written].map((dir) => openCheckpoint(dir)));
    for (const name of before.names.filter((name) => name !== TABLE)) {
      const factor = name.startsWith(LAST) ? Math.sqrt(32) : 1;
      expect(await after.float32(name), name).toEqual((await before.float32(name)).map((value) => value * factor));
    }
    await Promise.all([before.close(), after.close()]);
  });

  test('says what transformers 5 says', () => {
    expect(json(written, 'config.json')).toMatchObject({
      architectures: ['LlavaForConditionalGeneration'],
      model_type: 'llava',
      image_seq_length: 16,
      tie_word_embeddings: true,
      dtype: 'float32',
    });
    expect(Number.parseInt(json(written, 'config.json').transformers_version, 10)).toBe(5);
    expect(json(written, 'config.json').text_config).not.toHaveProperty('architectures');
    // answers end with a turn, too
    expect(json(written, 'generation_config.json')).toMatchObject({ bos_token_id: 2, pad_token_id: 0, eos_token_id: [1, 6] });
    const { image_processor, ...processor } = json(written, 'processor_config.json');
    expect(processor).toEqual({
      processor_class: 'LlavaProcessor',
      image_token: '<image>',
      patch_size: 8,
      num_additional_image_tokens: 1,
      vision_feature_select_strategy: 'default',
    });
    // CLIPImageProcessor does not pad
    expect(image_processor).toMatchObject({
      image_processor_type: 'LlavaImageProcessor',
      do_pad: true,
      crop_size: { height: 32, width: 32 },
    });
    expect(json(written, 'preprocessor_config.json')).toEqual({ ...image_processor, processor_class: 'LlavaProcessor' });
    const template = readFileSync(join(written, 'chat_template.jinja'), 'utf8');
    expect(template.endsWith(gemmaChatTemplate)).toBe(true);
    expect(json(written, 'tokenizer_config.json').chat_template).toBe(template);
  });

  test('has no older template beside its own, which transformers would take', async () => {
    const [from, to] = ['older-template', 'one-template'].map((name) => join(scratch, name));
    cpSync(old, from, { recursive: true });
    writeFileSync(join(from, 'chat_template.json'), JSON.stringify({ chat_template: `{# older #}${gemmaChatTemplate}` }));
    await convertCheckpoint(from, to, { dtype: 'float32', maxShardSize: 1e9 });
    expect(existsSync(join(to, 'chat_template.json'))).toBe(false);
    expect(readFileSync(join(to, 'chat_template.jinja'), 'utf8')).toContain('{# older #}');
  });

  test('answers as the folder it was made from, which goes on loading', async () => {
    const answersOf = async (dir: string) => {
      const { generator, tokenizer } = await loadModel(dir, { engine });
      const pixels = Float32Array.from({ length: 3 * 32 * 32 }, (_, i) => Math.sin(i));
      const imageRows = await generator.imageRows(await generator.imageFeatures(pixels));
      const prompts = ['What is it?', 'How many?', 'Where?'].map((value) => ({
        inputIds: encodePrompt(tokenizer, [{ from: 'human', value: `<image>\n${value}` }], 16),
        imageRows,
      }));
      const answers = await generator.generate(prompts, { maxNewTokens: 12, stopTokenIds: [] });
      await generator.dispose();
      return answers;
    };
    expect(await answersOf(written)).toEqual(await answersOf(old));
  });

  test('comes out the same when it is written again', async () => {
    const again = join(scratch, 'again');
    await convertCheckpoint(written, again, { dtype: 'float32', maxShardSize: 1e9 });
    for (const name of ['config.json', 'model.safetensors', 'processor_config.json', 'tokenizer.json', 'chat_template.jinja'])
      expect(readFileSync(join(again, name)).equals(readFileSync(join(written, name))), name).toBe(true);
  });

  test('keeps the sampling of its own generation_config.json, and all ends of answers', async () => {
    const dir = join(scratch, 'sampling');
    await convertCheckpoint(written, dir, { dtype: 'float32', maxShardSize: 1e9 });
    writeFileSync(join(dir, 'generation_config.json'), JSON.stringify({ eos_token_id: 9, temperature: 0.7 }));
    const again = join(scratch, 'sampling-again');
    await convertCheckpoint(dir, again, { dtype: 'float32', maxShardSize: 1e9 });
    expect(json(again, 'generation_config.json')).toMatchObject({ eos_token_id: [9, 1, 6], temperature: 0.7 });
  });
});

test('the bundled model is such a folder', async () => {
  const dir = 'assets/models/tiny-llava';
  const config = json(dir, 'config.json');
  const checkpoint = await openCheckpoint(dir);
  const [rows] = checkpoint.shape(TABLE);
  await checkpoint.close();
  expect(rows).toBe(config.text_config.vocab_size);
  expect(rows % 64).toBe(0);
  expect(config.image_token_index).toBeLessThan(rows);
  expect(config).toMatchObject({ architectures: ['LlavaForConditionalGeneration'], scale_image_features: false, image_seq_length: 36 });
  const { image_processor } = json(dir, 'processor_config.json');
  expect(image_processor.image_processor_type).toBe('LlavaImageProcessor');
  expect(json(dir, 'preprocessor_config.json')).toEqual({ ...image_processor, processor_class: 'LlavaProcessor' });
  expect(readFileSync(join(dir, 'chat_template.jinja'), 'utf8')).toBe(json(dir, 'tokenizer_config.json').chat_template);
  expect(json(dir, 'generation_config.json').eos_token_id).toEqual([1, 6]);
  // nothing is left to be done
  const again = hubForm(config, new Map([[TABLE, { shape: [rows, 192], data: () => [] }]]));
  expect([again.widened.size, again.folded.size]).toEqual([0, 0]);
  expect(again.config).toEqual(config);
});

test('what is packed, or of another kind, is left as it is', () => {
  const { config } = shapeNamed('llava-gemma-2b');
  const packed = hubForm(config, new Map());
  expect([packed.widened.size, packed.folded.size]).toEqual([0, 0]);
  expect(packed.config).toMatchObject({ scale_image_features: true, text_config: { vocab_size: 256000 } });
  const gemma = shapeNamed('gemma-2b').config;
  expect(hubForm(gemma, new Map()).config).toBe(gemma);
});

test('every field of an image processor is written: the classes have different defaults', () => {
  const config = llavaConfigSchema.parse(shapeNamed('llava-gemma-tiny').config);
  const siglip = imageProcessorConfig.parse({ image_processor_type: 'SiglipImageProcessor' });
  expect(JSON.parse(processorFilesOf(config, siglip)['processor_config.json']).image_processor).toMatchObject({
    image_processor_type: 'SiglipImageProcessor',
    do_pad: false,
    do_center_crop: false,
    size: { height: 224, width: 224 },
    image_mean: [0.5, 0.5, 0.5],
  });
});
