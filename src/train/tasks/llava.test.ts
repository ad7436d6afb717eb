// Joining any encoder with a language model, and the folder that comes of it; training itself is tested in
// stage.test.ts and tests/.

import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import sharp from 'sharp';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { openCheckpoint, saveCheckpoint } from '../../checkpoint/checkpoint.ts';
import { readTokenizerFiles } from '../../checkpoint/tokenizer-files.ts';
import { createOrtEngine } from '../../engine/ort.ts';
import { UserError } from '../../errors.ts';
import { languageConfigSchema } from '../../models/language.ts';
import { imageSize, imageTokenCount, type LlavaConfig } from '../../models/llava.ts';
import { languageModelLoss } from '../../models/programs.ts';
import { visionFolderSchema, visionParameters } from '../../models/vision.ts';
import { alone } from '../../mpi/communicator.ts';
import { initialize, type Parameter, Parameters } from '../../nn/parameters.ts';
import { loadModel } from '../../pretrained/load.ts';
import { createRandom } from '../../random.ts';
import { createTokenizer } from '../../text/tokenizer.ts';
import { startSourceThread } from '../prefetch.ts';
import { type LlavaRecipe, parseRecipe } from '../recipe.ts';
import type { Task } from '../task.ts';
import { llavaTask } from './llava.ts';

const folders = mkdtempSync(join(tmpdir(), 'llava-'));
const thread = startSourceThread();
afterAll(async () => {
  await thread.close();
  rmSync(folders, { recursive: true, force: true });
});
const engine = createOrtEngine({ threads: 1 });
const languageModel = join(folders, 'gemma');
const picture = join(folders, 'picture.png');
const data = join(folders, 'data.json');

const save = (dir: string, config: object, parameters: readonly Parameter[], files = {}) => {
  const tensors = new Map(
    parameters.map((p) => [p.name, { shape: [...p.dims], data: initialize(p, createRandom(1, p.name)) as Float32Array }]),
  );
  return saveCheckpoint(dir, { config, tensors, dtype: 'F32', files });
};

beforeAll(async () => {
  const sizes = { hidden_size: 8, intermediate_size: 8, num_hidden_layers: 1, num_attention_heads: 1, num_key_value_heads: 1, head_dim: 8 };
  const config = languageConfigSchema.parse({ ...sizes, vocab_size: 4160 });
  await save(languageModel, config, languageModelLoss(config).parameters);
  await sharp({ create: { width: 30, height: 20, channels: 3, background: '#8040c0' } }).toFile(picture);
  const conversations = [
    { from: 'human', value: 'Say hello.' },
    { from: 'gpt', value: 'hello' },
  ];
  writeFileSync(data, JSON.stringify([{ conversations }]));
});

const tower = { hidden_size: 8, num_hidden_layers: 3, num_attention_heads: 2, patch_size: 4 };
const clip = { ...tower, intermediate_size: 12, model_type: 'clip_vision_model', image_size: 12 };
const siglip = { ...clip, model_type: 'siglip_vision_model', image_size: 14 };
const dinov2 = { ...tower, model_type: 'dinov2', image_size: 12, mlp_ratio: 2 };
// the classes of CLIP and DINOv2 crop unless told otherwise
const square = (side: number) => ({ size: { height: side, width: side }, do_center_crop: false });

function taskOver(visionTower: string, model: object = {}, stage: object = {}): Promise<Task> {
  const recipe = parseRecipe(
    {
      task: 'llava',
      model: { vision_tower: visionTower, language_model: languageModel, tokenizer: 'assets/tokenizer', ...model },
      stages: [
        { name: 'only', train: ['multi_modal_projector'], template: 'gemma', data: { data_path: data, image_folder: folders }, ...stage },
      ],
    },
    'recipe',
  ) as LlavaRecipe;
  const status = { note: () => {}, progress: () => {}, update: () => {}, close: () => {} };
  return llavaTask(recipe, {
    engine,
    status,
    thread,
    out: join(folders, 'run'),
    signal: new AbortController().signal,
    communicator: alone,
  });
}

/** Saves an encoder of fresh weights, whose processor is `processor`. */
async function saveEncoder(name: string, config: object, processor: object, lacks = /^$/): Promise<string> {
  const dir = join(folders, name);
  const p = new Parameters();
  visionParameters(p, visionFolderSchema.parse(config));
  const kept = p.list().filter(({ name }) => !lacks.test(name));
  await save(dir, config, kept, { 'preprocessor_config.json': JSON.stringify(processor) });
  return dir;
}

/** Joins such an encoder with the tiny Gemma. */
async function joined(name: string, config: object, processor: object, model: object = {}, lacks?: RegExp): Promise<Task> {
  return taskOver(await saveEncoder(name, config, processor, lacks), model);
}

const configOf = (task: Task) => task.saved.config as LlavaConfig;
const processorOf = (task: Task) => JSON.parse(String(task.saved.files['processor_config.json']));

/** Saves what a task would save and loads it as any folder: the model, and what it makes of a picture. */
async function reloaded(task: Task, name: string) {
  const dir = join(folders, name);
  await saveCheckpoint(dir, { ...task.saved, stored: await task.weights.sources() });
  const model = await loadModel(dir, { engine });
  const [rows] = await model.imageRows([picture]);
  await model.generator.dispose();
  const checkpoint = await openCheckpoint(dir);
  await checkpoint.close();
  return { config: model.config, rows: rows.length / model.config.text_config.hidden_size, names: checkpoint.names };
}

describe('an encoder joined with a language model', () => {
  test('SigLIP keeps all its rows, for it has no class token to leave out', async () => {
    const task = await joined('siglip', siglip, { image_processor_type: 'SiglipImageProcessor', ...square(14) });
    expect(configOf(task)).toMatchObject({ vision_feature_select_strategy: 'full', vision_config: { model_type: 'siglip_vision_model' } });
    expect(processorOf(task)).toMatchObject({ patch_size: 4, num_additional_image_tokens: 0, vision_feature_select_strategy: 'full' });
    const { rows, names } = await reloaded(task, 'llava-siglip');
    expect(rows).toBe(9);
    expect(imageTokenCount(configOf(task))).toBe(9);
    expect(names).toContain('vision_tower.vision_model.head.probe');
  });

  test('DINOv2 sees pictures of the size that its processor makes', async () => {
    const task = await joined('dinov2', dinov2, { image_processor_type: 'BitImageProcessor', size: { shortest_edge: 24 }, crop_size: 20 });
    expect(configOf(task)).toMatchObject({ vision_feature_select_strategy: 'default', image_size: 20, vision_config: { image_size: 12 } });
    expect(processorOf(task)).toMatchObject({ num_additional_image_tokens: 1 });
    const { rows, config } = await reloaded(task, 'llava-dinov2');
    expect(rows).toBe(25);
    expect(imageSize(config)).toBe(20);
    const own = await joined('dinov2-own', dinov2, square(12));
    expect(configOf(own)).not.toHaveProperty('image_size');
    expect((await reloaded(own, 'llava-dinov2-own')).rows).toBe(9);
  });

  test('an image processor inside processor_config.json is taken before the one beside it', async () => {
    const dir = await saveEncoder('nested', clip, square(16));
    writeFileSync(join(dir, 'processor_config.json'), JSON.stringify({ image_processor: square(12) }));
    expect((await reloaded(await taskOver(dir), 'llava-nested')).rows).toBe(9);
  });

  test('several hidden states of a whole CLIP are joined', async () => {
    const task = await joined('clip', { model_type: 'clip', vision_config: clip }, square(12), { vision_feature_layer: [-2, 1] });
    expect(task.weights.parameters.find(({ name }) => name === 'multi_modal_projector.linear_1.weight')?.dims).toEqual([8, 16]);
    expect((await reloaded(task, 'llava-clip')).rows).toBe(9);
  });

  test('what is never run may be missing, and then is missing in what is saved', async () => {
    const lacks = /head\.|post_layernorm|layers\.2\./;
    const task = await joined('bare-siglip', siglip, square(14), {}, lacks);
    const { rows, names } = await reloaded(task, 'llava-bare-siglip');
    expect(rows).toBe(9);
    expect(names.filter((name) => lacks.test(name))).toEqual([]);
    expect(names.filter((name) => name.includes('layers.1.')).length).toBeGreaterThan(0);
    const used = joined('short-siglip', siglip, square(14), { vision_feature_layer: -1 }, lacks);
    await expect(used).rejects.toThrow('short-siglip: the checkpoint has no tensor "vision_model.encoder.layers.2.layer_norm1.weight"');
  });

  test('pictures that do not fit the encoder are refused before anything is computed', async () => {
    const cases: [string, object, object, string][] = [
      ['wrong-clip', clip, square(16), 'pictures of 16 x 16 pixels do not fit the encoder, which takes 12 x 12'],
      ['wrong-siglip', siglip, square(12), 'pictures of 12 x 12 pixels do not fit the encoder, which takes 14 x 14'],
      [
        'oblong',
        dinov2,
        { size: { height: 8, width: 12 }, do_center_crop: false },
        'pictures come out 12 x 8 pixels, but the encoder takes squares',
      ],
      ['uncropped', dinov2, { size: 12, do_center_crop: false }, 'pictures come out in different sizes'],
    ];
    for (const [name, config, processor, message] of cases) {
      const joining = joined(name, config, processor);
      await expect(joining).rejects.toThrow(UserError);
      await expect(joining).rejects.toThrow(`${join(folders, name, 'preprocessor_config.json')}: ${message}`);
    }
  });

  test('an encoder of another family is named with those that are supported', async () => {
    const dir = join(folders, 'vit');
    await save(dir, { model_type: 'vit' }, [], { 'preprocessor_config.json': '{}' });
    const joining = taskOver(dir);
    await expect(joining).rejects.toThrow(UserError);
    await expect(joining).rejects.toThrow(
      `${join(dir, 'config.json')}: model_type: must be one of clip_vision_model, siglip_vision_model, dinov2 (it is "vit")`,
    );
  });
});

test('feature mixup puts other pictures into the features of each, the same at the same step', async () => {
  const dir = await saveEncoder('mixed-clip', clip, square(12));
  const colours = ['#ff0000', '#00ff00', '#0000ff'];
  for (const background of colours)
    await sharp({ create: { width: 12, height: 12, channels: 3, background } }).toFile(join(folders, `${background.slice(1)}.png`));
  const samples = colours.map((colour) => ({
    image: `${colour.slice(1)}.png`,
    conversations: [
      { from: 'human', value: '<image>' },
      { from: 'gpt', value: 'a colour' },
    ],
  }));
  writeFileSync(join(folders, 'colours.json'), JSON.stringify(samples));
  const featuresAt = async (step: number, mixup: object) => {
    const pictures = { data_path: join(folders, 'colours.json'), image_folder: folders };
    const task = await taskOver(dir, {}, { data: pictures, batch_size: 3, ...mixup });
    const { data, dispose } = await task.prepareStage(0);
    const features: Float32Array[] = [];
    for await (const { inputs } of data.batches(step)) features.push(inputs.image_features.data as Float32Array);
    await dispose();
    return features[0];
  };
  /** Plain features of the batch's pictures, and what mixing adds to each. */
  const changesAt = async (step: number) => {
    const plain = await featuresAt(step, {});
    const mixed = await featuresAt(step, { feature_mixup: 0.5 });
    const size = plain.length / 3;
    return Array.from({ length: 3 }, (_, i) => {
      const row = plain.subarray(i * size, (i + 1) * size);
      return { row, change: mixed.subarray(i * size, (i + 1) * size).map((value, k) => value - row[k]) };
    });
  };
  const dot = (a: Float32Array, b: Float32Array) => a.reduce((sum, value, i) => sum + value * b[i], 0);
  const batch = await changesAt(4);
  for (const { row, change } of batch) {
    // change = share * (other - row) for one of the others
    const shares = batch.flatMap(({ row: other }) => {
      const way = other.map((value, k) => value - row[k]);
      const share = dot(change, way) / dot(way, way);
      const rest = change.map((value, k) => value - share * way[k]);
      return dot(rest, rest) < 1e-6 * dot(change, change) ? [share] : [];
    });
    expect(shares).toHaveLength(1);
    expect(shares[0]).toBeGreaterThan(0);
    expect(shares[0]).toBeLessThanOrEqual(0.5 + 1e-6);
  }
  expect(await changesAt(4)).toEqual(batch);
  // drawn anew: no picture changes twice in the same way
  for (const { row, change } of await changesAt(5)) {
    const before = batch.find(({ row: same }) => same.every((value, k) => value === row[k]))!;
    expect(change).not.toEqual(before.change);
  }
});

test('a stage cuts pictures to squares or pads them, as it is told, and is saved so', async () => {
  const processor = { size: { shortest_edge: 12 }, do_center_crop: true, crop_size: { height: 12, width: 12 } };
  const dir = await saveEncoder('wide-clip', clip, processor);
  const wide = sharp({ create: { width: 24, height: 12, channels: 3, background: '#ff0000' } });
  // in CLIP's mean color
  const bars = { top: 6, bottom: 6, background: { r: 122, g: 116, b: 104 } };
  await wide.clone().png().toFile(join(folders, 'wide.png'));
  await wide.clone().extend(bars).png().toFile(join(folders, 'padded.png'));
  const conversations = [
    { from: 'human', value: '<image>' },
    { from: 'gpt', value: 'red' },
  ];
  const featuresOf = async (image: string, stage: object) => {
    const path = join(folders, `${image}.json`);
    writeFileSync(path, JSON.stringify([{ image: `${image}.png`, conversations }]));
    const task = await taskOver(dir, {}, { data: { data_path: path, image_folder: folders }, batch_size: 1, ...stage });
    const { data, dispose } = await task.prepareStage(0);
    const features: Float32Array[] = [];
    for await (const { inputs } of data.batches(0)) features.push(inputs.image_features.data as Float32Array);
    await dispose();
    const saved = JSON.parse(task.savedIn!(0).files['preprocessor_config.json'] as string);
    return { features: [...features[0]], saved: [saved.do_pad, saved.image_processor_type] };
  };
  const cut = await featuresOf('wide', { image_aspect_ratio: 'square' });
  const padded = await featuresOf('wide', { image_aspect_ratio: 'pad' });
  const byHand = await featuresOf('padded', {});
  const asItSays = await featuresOf('wide', {});
  expect(asItSays.features).toEqual(cut.features);
  expect(padded.features).not.toEqual(cut.features);
  for (const [i, value] of padded.features.entries()) expect(value).toBeCloseTo(byHand.features[i], 4);
  expect([cut.saved[0], padded.saved]).toEqual([false, [true, 'LlavaImageProcessor']]);
});

test('a stage over several files takes the share of each in an epoch', async () => {
  const dir = await saveEncoder('shares-clip', clip, square(12));
  const conversations = (answer: string) => [
    { from: 'human', value: 'Say it.' },
    { from: 'gpt', value: answer },
  ];
  const save = (name: string, answers: string) => {
    writeFileSync(join(folders, name), JSON.stringify([...answers].map((answer) => ({ conversations: conversations(answer) }))));
    return { data_path: join(folders, name), image_folder: folders };
  };
  const files = [save('abc.json', 'abc'), { ...save('defg.json', 'defg'), share: 0.5 }];
  const task = await taskOver(dir, {}, { data: files, batch_size: 1, epochs: 2, template: 'gemma' });
  const { data, totalSteps, dispose } = await task.prepareStage(0);
  expect({ totalSteps, stepsPerEpoch: data.stepsPerEpoch }).toEqual({ totalSteps: 10, stepsPerEpoch: 5 });
  const { tokenizerJson, tokenizerConfig } = await readTokenizerFiles('assets/tokenizer');
  const tokenizer = createTokenizer(tokenizerJson, tokenizerConfig);
  let answers = '';
  for (let step = 0; step < totalSteps; step++)
    for await (const { inputs } of data.batches(step)) answers += tokenizer.decode([...(inputs.labels.data as Int32Array)])[0];
  expect([...answers.slice(0, 5)].filter((answer) => answer < 'd').sort()).toEqual(['a', 'b', 'c']);
  expect([...answers].sort().join('')).toBe('aabbccdefg');
  await dispose();
});

test('feature mixup is refused where the encoder is trained', () => {
  const joining = () => taskOver('any', {}, { train: ['vision_tower'], feature_mixup: 0.5 });
  expect(joining).toThrow(UserError);
  expect(joining).toThrow('stages.0.feature_mixup: needs a frozen encoder, but vision_tower is trained');
});

test('feature mixup is refused where the encoder is adapted', async () => {
  const dir = await saveEncoder('adapted-clip', clip, square(12));
  const task = await taskOver(dir, {}, { lora: { rank: 2, targets: ['vision_tower.*'] }, feature_mixup: 0.5 });
  await expect(task.prepareStage(0)).rejects.toThrow('feature_mixup needs a frozen encoder, but lora adapts vision_tower');
});
