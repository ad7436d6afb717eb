import { mkdtempSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { saveCheckpoint } from '../checkpoint/checkpoint.ts';
import { modelParameters } from '../models/model-parameters.ts';
import { shapeNamed } from '../models/shapes.ts';
import { type CheckpointInfo, describeCheckpoint, memoryOf } from '../pretrained/inspect.ts';
import { run } from './main.ts';

const scratch = mkdtempSync(join(tmpdir(), 'info-'));
afterAll(() => rmSync(scratch, { recursive: true, force: true }));

let stdout = '';
let stderr = '';
beforeEach(() => {
  stdout = '';
  stderr = '';
  vi.spyOn(console, 'log').mockImplementation((text) => {
    stdout += `${text}\n`;
  });
  vi.spyOn(console, 'error').mockImplementation((text) => {
    stderr += `${text}\n`;
  });
});
afterEach(() => {
  vi.restoreAllMocks();
});
const info = (...words: string[]) => run(['node', 'llava-gemma', 'info', ...words]);

const config = shapeNamed('llava-gemma-tiny').config;
type Tensors = Map<string, { shape: number[]; data: Float32Array }>;
const sizeOf = (dims: readonly number[]) => dims.reduce((product, size) => product * size, 1);
const tensors = (change: (tensors: Tensors) => void = () => {}): Tensors => {
  const all: Tensors = new Map(
    modelParameters(config).map(({ name, dims }) => [name, { shape: [...dims], data: new Float32Array(sizeOf(dims)) }]),
  );
  change(all);
  return all;
};

let folders = 0;
async function folder(content: { config?: unknown; tensors?: Tensors; files?: Record<string, string> } = {}): Promise<string> {
  const dir = join(scratch, String(folders++));
  await saveCheckpoint(dir, { config, tensors: tensors(), dtype: 'BF16', ...content });
  return dir;
}

describe('a LLaVA', () => {
  const files = { 'tokenizer.json': '{}', 'tokenizer_config.json': '{"chat_template":"x"}', LICENSE: 'terms' };

  it('is described with its parts, sizes and what comes with it', async () => {
    const dir = await folder({ files });
    const described = await describeCheckpoint(dir);
    const { visionTower, connector, languageModel, total } = described.parameters;
    expect([visionTower, connector, languageModel, total]).toEqual([32480, 2112, 151712, 186304]);
    expect(described).toMatchObject({
      folder: dir,
      architecture: 'LLaVA: CLIP and Gemma 1',
      layout: 'huggingface',
      dtypes: { BF16: 186304 },
      bytes: { weights: readFileSync(join(dir, 'model.safetensors')).length },
      memory: {
        float32: 4 * 186304,
        stored: 2 * 186304,
        // the embedding is cast to float32 as a whole
        trainStage1: 2 * (186304 - 2112) + 16 * 2112 + 4 * 4160 * 32,
        trainStage2: 2 * (186304 - 2112 - 151712) + 16 * (2112 + 151712),
      },
      tokenizer: true,
      chatTemplate: true,
      imageProcessor: false,
      licence: 'LICENSE',
      problems: [],
    });
    expect(described.bytes.folder).toBeGreaterThan(described.bytes.weights);
  });

  it('prints a table, or one JSON object', async () => {
    const dir = await folder({ files });
    expect(await info(dir), stderr).toBe(0);
    expect(stdout).toMatch(/^architecture +LLaVA: CLIP and Gemma 1$/m);
    expect(stdout).toMatch(/^stored as +BF16$/m);
    expect(stdout).toMatch(/^to train +stage 1 935 kB, stage 2 2\.53 MB, without activations$/m);
    expect(stdout).toMatch(/^language model +151,712 {2}81\.4 %$/m);
    expect(stdout).toMatch(/^total +186,304$/m);
    stdout = '';
    expect(await info(dir, '--json')).toBe(0);
    expect(JSON.parse(stdout)).toEqual(await describeCheckpoint(dir));
    expect(stderr).toBe('');
  });

  it('has its chat template and its image processor wherever transformers finds them', async () => {
    const without = await folder({ files: { 'tokenizer.json': '{}', 'tokenizer_config.json': '{}' } });
    expect(await describeCheckpoint(without)).toMatchObject({ chatTemplate: false, imageProcessor: false });
    await info(without);
    expect(stdout).toMatch(/^chat template +none, Gemma's is used$/m);
    const elsewhere = { 'chat_template.json': '{"chat_template":"x"}', 'processor_config.json': '{"image_processor":{}}' };
    const found = await folder({ files: { 'tokenizer.json': '{}', ...elsewhere } });
    expect(await describeCheckpoint(found)).toMatchObject({ chatTemplate: true, imageProcessor: true });
  });

  it('is read by its headers: the values may be absent', async () => {
    const dir = await folder();
    const path = join(dir, 'model.safetensors');
    const bytes = readFileSync(path);
    const headerEnd = 8 + Number(bytes.readBigUInt64LE());
    const before = await describeCheckpoint(dir);
    // a hole in place of the data reads as zeros and takes no space
    writeFileSync(path, bytes.subarray(0, headerEnd));
    truncateSync(path, bytes.length);
    expect(await describeCheckpoint(dir)).toEqual(before);
  });

  it('of original LLaVA without its tower says where the tower is', async () => {
    const native = new Map(
      [...tensors()]
        .filter(([name]) => !name.startsWith('vision_tower.'))
        .map(([name, tensor]) => [
          name.replace(/^language_model\./, '').replace(/^multi_modal_projector\.linear_(\d)/, (_, n) => `model.mm_projector.${2 * n - 2}`),
          tensor,
        ]),
    );
    native.set('lm_head.weight', native.get('model.embed_tokens.weight')!);
    const described = async (mm_vision_tower: string) => {
      const names = {
        architectures: ['LlavaGemmaForCausalLM'],
        model_type: 'llava_gemma',
        mm_projector_type: 'mlp2x_gelu',
        mm_vision_tower,
      };
      const dir = await folder({ tensors: native, config: { ...(config.text_config as object), ...names } });
      return describeCheckpoint(dir);
    };
    const known = await described('openai/clip-vit-large-patch14-336');
    expect(known).toMatchObject({
      architecture: 'LLaVA: CLIP and Gemma 1',
      layout: 'native',
      missingVisionTower: 'openai/clip-vit-large-patch14-336',
      // the second copy of the embedding is on disk, but no parameter
      parameters: { connector: 2112, languageModel: 151712, total: 153824 },
      problems: [
        'the vision tower is in another folder, openai/clip-vit-large-patch14-336: join both with llava-gemma convert --vision-tower',
        'model.mm_projector.0.weight has shape [32, 32], but config.json asks for [32, 1024]',
      ],
    });
    expect('visionTower' in known.parameters).toBe(false);
    const unknown = await described('somebody/tower');
    expect(unknown.architecture).toBe('LLaVA: unknown (model_type "somebody/tower") and Gemma 1');
    expect(unknown.problems).toContainEqual(expect.stringContaining('the shape of "somebody/tower" is not known here'));
    expect(unknown.problems).toContainEqual(expect.stringContaining('the vision tower is in another folder, somebody/tower'));
  });
});

describe('other models', () => {
  it.each([
    ['assets/models/tiny-gemma', 'Gemma 1', ['languageModel']],
    ['assets/models/tiny-gemma-large', 'Gemma 1', ['languageModel']],
    ['assets/models/tiny-clip', 'CLIP', ['other', 'textTower', 'visionTower']],
    ['assets/models/tiny-dinov2', 'DINOv2', ['visionTower']],
    ['tests/reference/goldens/llava', 'LLaVA: CLIP and Gemma 1', ['connector', 'languageModel', 'visionTower']],
  ])('%s', async (dir, architecture, parts) => {
    const described = await describeCheckpoint(dir);
    expect(described.architecture).toBe(architecture);
    expect(
      Object.keys(described.parameters)
        .filter((part) => part !== 'total')
        .sort(),
    ).toEqual(parts);
    expect(described.problems).toEqual([]);
    expect('trainStage1' in described.memory).toBe(parts.includes('connector'));
  });

  it('of an unknown kind are described as far as the headers go', async () => {
    for (const unknown of [{ model_type: 'qwen2_vl' }, {}, [], null]) {
      const described = await describeCheckpoint(await folder({ config: unknown }));
      expect(described.architecture).toMatch(/^unknown \(model_type /);
      expect(described.parameters.total).toBe(186304);
      expect(described.problems.length).toBe(1);
    }
  });
});

describe('what is wrong', () => {
  const problemsOf = async (change: (tensors: Tensors) => void, check = false): Promise<string[]> =>
    (await describeCheckpoint(await folder({ tensors: tensors(change) }), { check })).problems;
  const name = 'language_model.model.layers.0.mlp.up_proj.weight';

  it('with tensors is told', async () => {
    expect(await problemsOf((all) => all.delete(name))).toEqual([
      expect.stringMatching(`^1 of \\d+ tensors are missing, such as ${name}$`),
    ]);
    expect(await problemsOf((all) => all.set(name, { shape: [32, 64], data: new Float32Array(2048) }))).toEqual([
      `${name} has shape [32, 64], but config.json asks for [64, 32]`,
    ]);
  });

  it('with values is told with --check, on stderr', async () => {
    const spoil = (all: Tensors) => {
      all.get(name)!.data[7] = Number.NaN;
      all.get('language_model.model.norm.weight')!.data[0] = Number.POSITIVE_INFINITY;
    };
    expect(await problemsOf(spoil)).toEqual([]);
    expect((await problemsOf(spoil, true)).sort()).toEqual(
      [name, 'language_model.model.norm.weight'].map((bad) => expect.stringContaining(`${bad} holds NaN or infinity`)),
    );
    expect(await info(await folder({ tensors: tensors(spoil) }), '--check')).toBe(0);
    expect(stderr).toMatch(new RegExp(`^warning: ${name} holds NaN or infinity`, 'm'));
    expect(
      await problemsOf((all) => {
        const { shape, data } = all.get('language_model.model.embed_tokens.weight')!;
        all.set('language_model.lm_head.weight', { shape, data: data.map((_, i) => i) });
      }, true),
    ).toEqual([expect.stringContaining('lm_head.weight differs from')]);
  });

  it('with the folder is an error', async () => {
    expect(await info('nowhere')).toBe(1);
    expect(stderr).toContain('there is nothing at nowhere');
    expect(await info('recipes')).toBe(1);
    expect(stderr).toContain('config.json: no such file');
  });
});

it('memory follows its formula at full size', () => {
  const parameters: CheckpointInfo['parameters'] = {
    visionTower: 303_507_456,
    connector: 6_295_552,
    languageModel: 2_506_172_416,
    total: 2_815_975_424,
  };
  expect(memoryOf(parameters, 2 * 2_815_975_424)).toEqual({
    run: 11_263_901_696,
    float32: 11_263_901_696,
    stored: 5_631_950_848,
    // 2 bytes for each frozen parameter, 16 for each trained one
    trainStage1: 5_720_088_576,
    trainStage2: 40_806_502_400,
  });
  // and the embedding cast to float32
  expect(memoryOf(parameters, 2 * 2_815_975_424, undefined, 4 * 256000 * 2048).trainStage1).toBe(5_720_088_576 + 2_097_152_000);
});
