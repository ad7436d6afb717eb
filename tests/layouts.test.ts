// One set of weights in every layout of LLaVA folders (older hub files, transformers 5, original LLaVA, in
// shards, with the vision tower elsewhere) loads as the same model, bit for bit.
import { cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest';
import { openCheckpoint, saveCheckpoint } from '../src/checkpoint/checkpoint.ts';
import { UserError } from '../src/errors.ts';
import { type LlavaConfig, llavaConfigSchema, llavaParameters } from '../src/models/llava.ts';
import { modelParameters } from '../src/models/model-parameters.ts';
import { shapeNamed } from '../src/models/shapes.ts';
import { initialize } from '../src/nn/parameters.ts';
import { openModel, withCheckpoint } from '../src/pretrained/folder.ts';
import { loadModel } from '../src/pretrained/load.ts';
import { imageProcessorFor } from '../src/pretrained/processor.ts';
import { readParameters } from '../src/pretrained/values.ts';
import { createRandom } from '../src/random.ts';
import { openSafetensors } from '../src/weights/safetensors.ts';
import { cli } from './toy.ts';

const root = mkdtempSync(join(tmpdir(), 'layouts-'));
afterAll(() => rmSync(root, { recursive: true, force: true }));
const at = (name: string) => join(root, name);

type Tensors = Map<string, { shape: number[]; data: Float32Array }>;

const config = shapeNamed('llava-gemma-tiny').config as unknown as LlavaConfig;
const tensors: Tensors = new Map(
  modelParameters(config).map((parameter) => {
    // biases too, so that a swap of two tensors shows
    const drawn = { ...parameter, initializer: { kind: 'normal', std: 0.2 } as const };
    return [parameter.name, { shape: [...parameter.dims], data: initialize(drawn, createRandom(7, parameter.name)) }];
  }),
);
const renamed = (rename: (name: string) => string, from: Tensors = tensors): Tensors =>
  new Map([...from].map(([name, tensor]) => [rename(name), tensor]));
const only = (pattern: RegExp): Tensors => new Map([...tensors].filter(([name]) => pattern.test(name)));

const nativeName = (name: string) =>
  name
    .replace(/^vision_tower\./, 'model.vision_tower.vision_tower.')
    .replace(/^multi_modal_projector\.linear_(\d)/, (_, n) => `model.mm_projector.${2 * (Number(n) - 1)}`)
    .replace(/^language_model\./, '');
const withHead = (from: Tensors, embedding: string, head: string): Tensors => new Map([...from, [head, from.get(embedding)!]]);

const { architectures: _, ...text } = config.text_config;
const nativeConfig = {
  ...text,
  architectures: ['LlavaGemmaForCausalLM'],
  model_type: 'llava_gemma',
  hidden_act: 'gelu',
  image_aspect_ratio: 'pad',
  mm_hidden_size: 32,
  mm_projector_type: 'mlp2x_gelu',
  mm_vision_select_feature: 'patch',
  mm_vision_select_layer: -2,
  // the last part of its name is the name of a shape
  mm_vision_tower: 'someone/llava-gemma-tiny-tower',
  transformers_version: '4.39.0.dev0',
};
const tokenizerFiles = () =>
  Object.fromEntries(
    ['tokenizer.json', 'tokenizer_config.json'].map((name) => [name, readFileSync(join('assets/tokenizer', name), 'utf8')]),
  );
const processorFile = { 'preprocessor_config.json': JSON.stringify(imageProcessorFor(32)) };

async function write(
  name: string,
  content: Tensors,
  more: { config?: object; files?: object; maxShardSize?: number } = {},
): Promise<string> {
  await saveCheckpoint(at(name), {
    config: more.config ?? config,
    tensors: content,
    dtype: 'F32',
    maxShardSize: more.maxShardSize,
    files: { ...tokenizerFiles(), ...(more.files ?? processorFile) },
  });
  return at(name);
}

/** Config and values as the trainer and the generator get them. */
const load = (dir: string) =>
  withCheckpoint(dir, llavaConfigSchema, async (config, checkpoint) => ({
    config,
    layout: checkpoint.layout,
    values: await readParameters(checkpoint, llavaParameters(config)),
  }));

function expectSameBits(values: ReadonlyMap<string, Float32Array>) {
  expect([...values.keys()].sort()).toEqual([...tensors.keys()].sort());
  for (const [name, data] of values)
    expect(
      Buffer.compare(Buffer.from(data.buffer, data.byteOffset, data.byteLength), Buffer.from(tensors.get(name)!.data.buffer)),
      name,
    ).toBe(0);
}

const sharedFields = ({
  image_token_index,
  mm_projector_type,
  vision_feature_layer,
  vision_feature_select_strategy,
  scale_image_features,
}: LlavaConfig) => ({
  image_token_index,
  mm_projector_type,
  vision_feature_layer,
  vision_feature_select_strategy,
  scale_image_features,
});

const tower = at('tower');
let native = '';
let nativeWithoutTower = '';

beforeAll(async () => {
  const visionConfig = config.vision_config as object;
  await saveCheckpoint(tower, {
    config: visionConfig,
    // as transformers 5 saves a CLIPVisionModel
    tensors: renamed((name) => name.replace('vision_tower.vision_model.', ''), only(/^vision_tower\./)),
    dtype: 'F32',
    files: processorFile,
  });
  const nativeTensors = withHead(renamed(nativeName), 'model.embed_tokens.weight', 'lm_head.weight');
  native = await write('native', nativeTensors, { config: nativeConfig, files: {} });
  nativeWithoutTower = await write('native-without-tower', new Map([...nativeTensors].filter(([name]) => !name.includes('vision_tower'))), {
    config: nativeConfig,
    files: {},
  });
});

describe('the same weights', () => {
  test('as older hub files', async () => {
    const loaded = await load(await write('huggingface', tensors));
    expect(loaded.layout).toBe('huggingface');
    expectSameBits(loaded.values);
  });

  test('as save_pretrained of transformers 5 writes them', async () => {
    const loaded = await load(
      await write(
        'saved-by-5',
        renamed((name) => name.replace('vision_model.', '')),
      ),
    );
    expectSameBits(loaded.values);
  });

  test('as transformers 5 names them in memory, with an output head', async () => {
    const inMemory = renamed((name) => `model.${name.replace('vision_model.', '').replace('language_model.model.', 'language_model.')}`);
    const dir = await write('transformers-5', withHead(inMemory, 'model.language_model.embed_tokens.weight', 'lm_head.weight'));
    const loaded = await load(dir);
    expect(loaded.layout).toBe('transformers-5');
    expectSameBits(loaded.values);
  });

  test('in shards', async () => {
    const dir = await write('sharded', tensors, { maxShardSize: 100_000 });
    const checkpoint = await openCheckpoint(dir);
    expect(checkpoint.files.length).toBeGreaterThan(2);
    await checkpoint.close();
    expectSameBits((await load(dir)).values);
  });

  test('in shards beside those of another conversion, which are not looked at', async () => {
    // as in Intel/llava-gemma-2b
    const dir = await write('two-sets', tensors, { maxShardSize: 100_000 });
    const other = await write('two-sets-other', renamed(nativeName), { maxShardSize: 300_000 });
    const shards = Object.values(JSON.parse(readFileSync(join(other, 'model.safetensors.index.json'), 'utf8')).weight_map as object);
    for (const name of new Set(shards)) cpSync(join(other, name), join(dir, name), { errorOnExist: true, force: false });
    const checkpoint = await openCheckpoint(dir);
    expect(checkpoint.files.every(({ path }) => !shards.some((name) => path.endsWith(name)))).toBe(true);
    await checkpoint.close();
    const loaded = await load(dir);
    expect(loaded.layout).toBe('huggingface');
    expectSameBits(loaded.values);
  });

  test('as an original LLaVA folder that names its tower', async () => {
    const model = await openModel(native, { visionTower: tower });
    const parsed = llavaConfigSchema.parse(model.config);
    expect(model.layout).toBe('native');
    expect(sharedFields(parsed)).toEqual(sharedFields(llavaConfigSchema.parse(config)));
    expectSameBits(await readParameters(model, llavaParameters(parsed)));
    await model.close();
  });

  test.each(['a bare tower', 'a whole CLIP'])('as an original LLaVA folder whose vision tower lies elsewhere: %s', async (kind) => {
    let folder = tower;
    if (kind === 'a whole CLIP') {
      folder = at('clip');
      const scalar = { shape: [1], data: Float32Array.of(1) };
      const inClip = renamed((name) => name.replace('vision_tower.', ''), only(/^vision_tower\./));
      await saveCheckpoint(folder, {
        config: { model_type: 'clip', vision_config: config.vision_config, text_config: {} },
        tensors: new Map([...inClip, ['text_model.final_layer_norm.bias', scalar], ['logit_scale', scalar]]),
        dtype: 'F32',
      });
    }
    const model = await openModel(nativeWithoutTower, { visionTower: folder });
    expectSameBits(await readParameters(model, llavaParameters(llavaConfigSchema.parse(model.config))));
    await model.close();
  });
});

describe('convert --quantize', () => {
  const float = at('to-be-packed');
  const packedFolder = at('packed');

  beforeAll(async () => {
    const files = { ...tokenizerFiles(), 'preprocessor_config.json': JSON.stringify(imageProcessorFor(config.vision_config.image_size)) };
    await saveCheckpoint(float, { config, tensors, dtype: 'F32', files });
    expect((await cli('convert', float, packedFolder, '--quantize', 'int4', '--dtype', 'float32')).code).toBe(0);
  });

  test('writes a folder that answers as one that is packed while loading', async () => {
    const { tensorNames } = await withCheckpoint(packedFolder, llavaConfigSchema, async (_, { names }) => ({ tensorNames: names }));
    expect(tensorNames).toContain('language_model.model.embed_tokens.weight_packed');
    expect(tensorNames).not.toContain('language_model.model.embed_tokens.weight');
    const answer = async (dir: string, quantize?: 'int4') => {
      const { generator } = await loadModel(dir, { quantize });
      const prompts = [{ inputIds: [2, 5, 9, 300] }, { inputIds: [2, 40] }];
      return generator.generate(prompts, { maxNewTokens: 12, stopTokenIds: [] });
    };
    expect(await answer(packedFolder)).toEqual(await answer(float, 'int4'));
    expect(statSync(join(packedFolder, 'model.safetensors')).size).toBeLessThan(0.3 * statSync(join(float, 'model.safetensors')).size);
  });

  test('info counts its parameters as those of the model', async () => {
    const infoOf = async (dir: string) => JSON.parse((await cli('info', dir, '--json', '--check')).stdout);
    const whole = await infoOf(float);
    const packed = await infoOf(packedFolder);
    expect(packed.parameters).toEqual(whole.parameters);
    expect(packed.problems).toEqual([]);
    expect(Object.keys(packed.dtypes).sort()).toEqual(['F32', 'int4', 'int8']);
    expect(packed.memory.run).toBeLessThan(0.3 * packed.memory.float32);
    expect(packed.memory.trainStage1).toBeUndefined();
  });

  test('another float type or shards keep what is packed', async () => {
    expect((await cli('convert', packedFolder, at('packed-bf16'), '--dtype', 'bfloat16', '--max-shard-size', '100KB')).code).toBe(0);
    const [before, after] = await Promise.all([packedFolder, at('packed-bf16')].map((dir) => openCheckpoint(dir)));
    expect([...after.names].sort()).toEqual([...before.names].sort());
    for (const name of before.names.filter((name) => /_(packed|scale)$/.test(name)))
      expect(Buffer.compare(await after.bytes(name), await before.bytes(name))).toBe(0);
    await Promise.all([before.close(), after.close()]);
  });

  test('is refused twice over, and what is packed cannot be trained', async () => {
    const again = await cli('convert', packedFolder, at('never'), '--quantize', 'int8');
    expect(again.code).toBe(1);
    expect(again.stderr).toContain('quantized already');
    await expect(
      withCheckpoint(packedFolder, llavaConfigSchema, (config, checkpoint) => readParameters(checkpoint, llavaParameters(config))),
    ).rejects.toThrow(/weight is quantized: such a model answers and is scored, but it cannot be trained/);
    expect((await cli('convert', float, at('never'), '--quantize', 'int3')).stderr).toContain('Allowed choices are int4, int8');
  });
});

describe('convert', () => {
  test('makes a Hugging Face folder of an original LLaVA folder and its vision tower', async () => {
    const out = at('joined');
    const { code, stderr } = await cli(
      'convert',
      nativeWithoutTower,
      out,
      '--vision-tower',
      tower,
      '--dtype',
      'float32',
      '--max-shard-size',
      '200kB',
    );
    expect(code, stderr).toBe(0);
    const loaded = await load(out);
    expect(loaded.layout).toBe('huggingface');
    // the scale of the image rows is in the connector, where transformers 5 finds it
    const scaled = /^multi_modal_projector\.linear_2\./;
    for (const [name, { data }] of only(scaled)) {
      expect(loaded.values.get(name)).toEqual(data.map((value) => value * Math.sqrt(32)));
      loaded.values.set(name, data);
    }
    expectSameBits(loaded.values);
    expect(JSON.parse(readFileSync(join(out, 'config.json'), 'utf8'))).toMatchObject({
      model_type: 'llava',
      dtype: 'float32',
      scale_image_features: false,
    });
    expect(JSON.parse(readFileSync(join(out, 'processor_config.json'), 'utf8'))).toMatchObject({
      patch_size: 8,
      num_additional_image_tokens: 1,
    });
    // training padded images to squares
    expect(JSON.parse(readFileSync(join(out, 'preprocessor_config.json'), 'utf8'))).toMatchObject({
      do_pad: true,
      crop_size: { height: 32 },
    });

    // and it runs: the image rows are those from the folder with the same weights that was never converted
    const [joined, original] = await Promise.all([loadModel(out), loadModel(await write('original', tensors))]);
    const pixels = Float32Array.from({ length: 3 * 32 * 32 }, (_, i) => Math.sin(i));
    const rows = async ({ generator }: typeof joined) => generator.imageRows(await generator.imageFeatures(pixels));
    const expected = await rows(original);
    for (const [i, value] of (await rows(joined)).entries()) expect(value).toBeCloseTo(expected[i], 4);
  });
});

describe('what cannot be loaded is said in a sentence', () => {
  const failing = async (dir: string, message: string) => {
    const loading = load(dir);
    await expect(loading).rejects.toThrow(UserError);
    await expect(loading).rejects.toThrow(message);
  };

  test('a vision tower that is elsewhere: where to get it and how to join it', async () => {
    await failing(nativeWithoutTower, `${nativeWithoutTower}: the vision tower someone/llava-gemma-tiny-tower is not in this folder`);
    await failing(
      nativeWithoutTower,
      'get it with: llava-gemma pull someone/llava-gemma-tiny-tower, then join both with: llava-gemma convert',
    );
    await failing(
      native,
      `${join(native, 'config.json')}: mm_vision_tower: the shape of "someone/llava-gemma-tiny-tower" is not known here`,
    );
    await expect(openModel(await write('has-a-tower', tensors), { visionTower: tower })).rejects.toThrow('is no original LLaVA folder');
  });

  test('an output head of its own', async () => {
    const embedding = 'language_model.model.embed_tokens.weight';
    const own = withHead(tensors, embedding, 'language_model.lm_head.weight');
    const { shape, data } = tensors.get(embedding)!;
    const changed = data.slice();
    changed[changed.length - 1] += 1e-3;
    own.set('language_model.lm_head.weight', { shape, data: changed });
    const dir = await write('untied', own);
    await failing(dir, `${dir}: language_model.lm_head.weight differs from ${embedding}`);
    expect((await cli('convert', dir, at('never'))).stderr).toContain('differs from');
    own.set('language_model.lm_head.weight', { shape: [1, shape[1]], data: data.slice(0, shape[1]) });
    await failing(await write('short-head', own), 'differs from');
  });

  test('two layouts in one folder', async () => {
    const dir = await write(
      'mixed',
      new Map([...tensors, ...only(/^multi_modal/)].map(([name, tensor], i) => [i === 0 ? nativeName(name) : name, tensor])),
    );
    await failing(dir, `${dir}: its tensors are named in two ways`);
  });

  test('a model of another kind', async () => {
    await failing(await write('qwen', tensors, { config: { ...config, model_type: 'qwen2_vl' } }), '(it is "qwen2_vl")');
    const llama = {
      ...nativeConfig,
      architectures: ['LlavaLlamaForCausalLM'],
      mm_vision_tower: 'openai/clip-vit-large-patch14-336',
      mm_hidden_size: 1024,
    };
    await failing(await write('llama', renamed(nativeName), { config: llama }), 'text_config.model_type: ');
  });

  test('a shard that is missing', async () => {
    const dir = await write('lost-shard', tensors, { maxShardSize: 100_000 });
    const checkpoint = await openCheckpoint(dir);
    const { path } = checkpoint.files[1];
    await checkpoint.close();
    rmSync(path);
    await failing(dir, `${path}: no such file, but ${join(dir, 'model.safetensors.index.json')} names it`);
  });
});

test('NaN ends training, and is told on stderr where a model is only run', async () => {
  const name = 'language_model.model.layers.1.mlp.up_proj.weight';
  const { shape, data } = tensors.get(name)!;
  const dir = await write('nan', new Map([...tensors, [name, { shape, data: data.map((value, i) => (i === 5 ? Number.NaN : value)) }]]));
  await expect(load(dir)).rejects.toThrow(`${dir}: ${name} holds NaN or infinity`);
  const told = vi.spyOn(console, 'error').mockImplementation(() => {});
  try {
    await (await loadModel(dir)).generator.dispose();
    expect(told.mock.calls).toEqual([[`warning: ${dir}: ${name} holds NaN or infinity: the file is damaged, or its training went wrong`]]);
  } finally {
    told.mockRestore();
  }
});

test('safetensors written as shards are plain files', async () => {
  mkdirSync(at('plain'), { recursive: true });
  const dir = await write('plain', tensors, { maxShardSize: 150_000 });
  const index = JSON.parse(readFileSync(join(dir, 'model.safetensors.index.json'), 'utf8')) as {
    metadata: { total_size: number };
    weight_map: Record<string, string>;
  };
  let total = 0;
  for (const fileName of new Set(Object.values(index.weight_map))) {
    const file = await openSafetensors(join(dir, fileName));
    expect(file.metadata).toEqual({ format: 'pt' });
    expect(file.names.sort()).toEqual(
      Object.keys(index.weight_map)
        .filter((name) => index.weight_map[name] === fileName)
        .sort(),
    );
    for (const name of file.names) total += (await file.read(name)).data.length;
    await file.close();
  }
  expect(index.metadata.total_size).toBe(total);
  writeFileSync(join(dir, 'unrelated.safetensors'), 'x');
  expectSameBits((await load(dir)).values);
});
