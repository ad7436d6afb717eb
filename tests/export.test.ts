// llava-gemma export from the command line: what it writes, what it refuses, and that other software computes
// the same, where it is installed: in the folder that LLAVA_GEMMA_PEERS names (.cache/bench/peers, after
// scripts/install-peers.mjs), and in the virtual environment that LLAVA_GEMMA_PYTHON names, with torch,
// transformers, pillow and peft.

import { spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { saveCheckpoint } from '../src/checkpoint/checkpoint.ts';
import { createOrtEngine } from '../src/engine/ort.ts';
import { findPeers, findPython, startPeer } from '../src/export/peer.ts';
import { type Tolerance, verify } from '../src/export/verify.ts';
import { downName, upName } from '../src/nn/lora.ts';
import { adapterFiles, readAdapter } from '../src/pretrained/adapter.ts';
import { convertCheckpoint } from '../src/pretrained/convert.ts';
import { imageProcessorFor } from '../src/pretrained/processor.ts';
import { createRandom } from '../src/random.ts';
import { PAIRINGS, tinyModel } from './export-source.ts';
import { skipped } from './required.ts';
import { root } from './structure.ts';
import { bin, cli, tensorsOf } from './toy.ts';
import { webgpu } from './webgpu.ts';

const model = join(root, 'assets', 'models', 'tiny-llava');
const peers = resolve(process.env.LLAVA_GEMMA_PEERS ?? 'none');
const hasPeers = (...packages: string[]) => {
  const are = existsSync(peers) && findPeers(packages, [peers]) === peers;
  if (!are) skipped('peers', `${packages.join(' and ')} are not where LLAVA_GEMMA_PEERS says`);
  return are;
};
const environment = process.env.LLAVA_GEMMA_PYTHON;
const python = environment === undefined ? undefined : findPython(['torch', 'transformers', 'PIL', 'peft'], resolve(environment));
if (!python) skipped('python', 'torch, transformers, pillow and peft are not where LLAVA_GEMMA_PYTHON says');
let folder: string;
const at = (...names: string[]) => join(folder, ...names);
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'llava-gemma-export-'));
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const MODULE = 'language_model.model.layers.1.self_attn.q_proj';

/** A folder of peft with an adapter of one layer, and `further` tensors by their names in it. */
async function writeAdapter(to: string, further: Record<string, { shape: number[]; data: Float32Array }> = {}): Promise<void> {
  const random = createRandom(4);
  const values = (count: number) => Float32Array.from({ length: count }, () => 0.1 * random.normal());
  const tensor = (shape: number[]) => {
    const data = values(shape[0] * shape[1]);
    return { dtype: 'F32' as const, shape, data: new Uint8Array(data.buffer) };
  };
  const tensors = new Map([
    [downName(MODULE), tensor([4, 192])],
    [upName(MODULE), tensor([192, 4])],
  ]);
  const layers = new Map([[MODULE, { rank: 4, alpha: 8 }]]);
  const files = adapterFiles({ base: 'somewhere/base', isRankStabilized: false, dropout: 0, layers, tensors, wholeModules: [] });
  for (const [name, { shape, data }] of Object.entries(further))
    files.tensors.set(name, { dtype: 'F32', shape, data: new Uint8Array(data.buffer) });
  await saveCheckpoint(to, { files: { 'adapter_config.json': files.config }, tensorFiles: { 'adapter_model.safetensors': files.tensors } });
}

describe('writes', () => {
  test('a folder of Hugging Face in another type, in shards, with a card', async () => {
    const { code, stderr } = await cli(
      'export',
      model,
      '--to',
      'huggingface',
      '--out',
      at('hub'),
      '--dtype',
      'bfloat16',
      '--max-shard-size',
      '4MB',
    );
    expect(code, stderr).toBe(0);
    const names = readdirSync(at('hub'));
    expect(names.filter((name) => name.endsWith('.safetensors')).length).toBeGreaterThan(2);
    const card = readFileSync(at('hub', 'README.md'), 'utf8');
    expect(card).toMatch(/^---\nlicense: other\nlibrary_name: transformers\npipeline_tag: image-text-to-text\n/);
    expect(card).toContain('A LLaVA that joins CLIP to Gemma 1 by mlp2x_gelu');
    expect(card).toContain('million weights in bfloat16');
    expect(JSON.parse(readFileSync(at('hub', 'config.json'), 'utf8')).dtype).toBe('bfloat16');
  });

  test('a folder of Hugging Face in the type of the weights, whatever config.json calls it', async () => {
    const tiny = await writeTiny(at('older'), 'gemma', 'clip_vision_model');
    await convertCheckpoint(tiny, at('older-half'), { dtype: 'bfloat16', maxShardSize: 1e9 });
    const configFile = at('older-half', 'config.json');
    const { dtype, ...config } = JSON.parse(readFileSync(configFile, 'utf8'));
    writeFileSync(configFile, JSON.stringify({ ...config, torch_dtype: dtype }));
    const { code, stderr } = await cli('export', at('older-half'), '--to', 'huggingface', '--out', at('older-hub'));
    expect(code, stderr).toBe(0);
    expect(JSON.parse(readFileSync(at('older-hub', 'config.json'), 'utf8')).dtype).toBe('bfloat16');
    expect(statSync(at('older-hub', 'model.safetensors')).size).toBe(statSync(at('older-half', 'model.safetensors')).size);
  });

  test('what transformers.js reads of a tokenizer, of a folder with tokenizer.json alone', async () => {
    const tiny = await writeTiny(at('bare'), 'gemma', 'clip_vision_model');
    rmSync(join(tiny, 'tokenizer_config.json'));
    const { code, stderr } = await cli('export', tiny, '--to', 'transformers.js', '--out', at('bare-web'));
    expect(code, stderr).toBe(0);
    const config = JSON.parse(readFileSync(at('bare-web', 'tokenizer_config.json'), 'utf8'));
    expect(config).toMatchObject({ tokenizer_class: 'GemmaTokenizer', bos_token: '<bos>', eos_token: '<eos>', add_bos_token: false });
    expect(config.chat_template).toContain('bos_token');
    expect(JSON.parse(readFileSync(at('bare-web', 'tokenizer.json'), 'utf8')).post_processor).toBeNull();
  });

  test('a card with the recipe, the scores and the licences of a run', async () => {
    const run = at('runs', 'mine');
    const checkpoint = join(run, 'checkpoints', 'finetune');
    await convertCheckpoint(model, checkpoint, { maxShardSize: 1e9 });
    mkdirSync(at('clip'));
    writeFileSync(at('clip', 'hub.json'), JSON.stringify({ repo: 'openai/clip-vit-large-patch14-336', files: [] }));
    const stages =
      'stages:\n  - { name: pretrain, data: captions }\n  - { name: finetune, data: [{ data_path: a/mix.json, image_folder: a }] }\n';
    writeFileSync(
      join(run, 'recipe.yaml'),
      `task: llava\nmodel:\n  vision_tower: ${at('clip')}\n  language_model: my-gemma\ndata: { train_scenes: 8 }\n${stages}`,
    );
    const score = { accuracy: 0.5, ciLow: 0.4, ciHigh: 0.6, blind: 0.25, majority: 0.3, n: 40, correct: 20 };
    writeFileSync(join(run, 'summary.json'), JSON.stringify({ scores: { 'unseen-artist': { name: score } }, stages: [] }));
    expect((await cli('export', checkpoint, '--to', 'huggingface', '--out', at('carded'))).code).toBe(0);
    const card = readFileSync(at('carded', 'README.md'), 'utf8');
    expect(card).toContain('# mine\n');
    expect(card).toContain('base_model:\n  - openai/clip-vit-large-patch14-336');
    expect(card).toContain('| vision encoder | openai/clip-vit-large-patch14-336 | MIT |');
    expect(card).toContain('| language model | my-gemma | that of its own folder |');
    expect(card).toContain('| unseen-artist | name | 0.500 (0.400 to 0.600) | 0.250 | 0.300 | 40 |');
    expect(card).toContain('```yaml\ntask: llava\n');
    expect(card).toContain('| pretrain | captions of drawn scenes (8) |\n| finetune | mix.json |');

    // an earlier stage has not the scores of the last; a run that went on from this one has the licences of
    // its parts
    const earlier = join(run, 'checkpoints', 'pretrain');
    const next = at('runs', 'next');
    for (const dir of [earlier, join(next, 'checkpoints', 'more')]) await convertCheckpoint(model, dir, { maxShardSize: 1e9 });
    writeFileSync(join(next, 'recipe.yaml'), `task: llava\nmodel: { llava: ${checkpoint} }\nstages: [{ name: more, data: questions }]\n`);
    const cardOf = async (dir: string, out: string) => {
      expect((await cli('export', dir, '--to', 'huggingface', '--out', at(out))).code).toBe(0);
      return readFileSync(at(out, 'README.md'), 'utf8');
    };
    expect(await cardOf(earlier, 'earlier')).toContain('## Scores\n\nNone are recorded.');
    expect(await cardOf(join(next, 'checkpoints', 'more'), 'next')).toContain(
      '| vision encoder | openai/clip-vit-large-patch14-336 | MIT |',
    );
    // what was pulled is what it says
    writeFileSync(join(earlier, 'hub.json'), JSON.stringify({ repo: 'Intel/llava-gemma-2b', files: [] }));
    expect(await cardOf(earlier, 'pulled')).toContain('| whole model | Intel/llava-gemma-2b | Gemma Terms of Use');
  });

  test('the adapters of a stage alone, or put into the weights', async () => {
    await writeAdapter(at('stage', 'adapter'));
    expect((await cli('export', at('stage'), '--to', 'peft', '--out', at('adapters'), '--base', 'me/base')).code).toBe(0);
    const [before, after] = [await readAdapter(at('stage', 'adapter')), await readAdapter(at('adapters'))];
    expect(after).toEqual({ ...before, dir: at('adapters') });
    expect(JSON.parse(readFileSync(at('adapters', 'adapter_config.json'), 'utf8')).base_model_name_or_path).toBe('me/base');
    const words = ['--to', 'huggingface', '--out', at('merged'), '--adapter', at('stage', 'adapter'), '--dtype', 'float32'];
    const { code, stderr } = await cli('export', model, ...words);
    expect(code, stderr).toBe(0);
    await convertCheckpoint(model, at('expected'), {
      dtype: 'float32',
      maxShardSize: 1e9,
      adapter: { folder: at('stage', 'adapter'), engine: createOrtEngine() },
    });
    // by digests: element by element it takes a quarter of a minute
    const digests = async (dir: string) =>
      new Map([...(await tensorsOf(dir))].map(([name, values]) => [name, createHash('sha256').update(values).digest('hex')]));
    const [merged, expected, plain] = [await digests(at('merged')), await digests(at('expected')), await digests(model)];
    expect(merged).toEqual(expected);
    expect(merged.get(`${MODULE}.weight`)).not.toBe(plain.get(`${MODULE}.weight`));
    expect(plain.has(`${MODULE}.weight`)).toBe(true);
  });

  test('what is damaged, with a warning', async () => {
    const tiny = await writeTiny(at('damaged'), 'gemma', 'siglip_vision_model', (tensors) => {
      tensors.get('language_model.model.norm.weight')!.data[1] = Number.NaN;
    });
    const { code, stderr } = await cli('export', tiny, '--to', 'llama.cpp', '--out', at('damaged-gguf'));
    expect(code, stderr).toBe(0);
    expect(stderr).toContain('language_model.model.norm.weight holds NaN or infinity: the file is damaged, or its training went wrong');
  });

  test('says how large each file is', async () => {
    const { code, stdout } = await cli('export', model, '--to', 'transformers.js', '--out', at('web'), '--dtype', 'q8');
    expect(code).toBe(0);
    expect(stdout).toMatch(/onnx\/decoder_model_merged_quantized\.onnx: 2\.72 MB/);
    expect(stdout).toContain(`wrote ${at('web')}`);
    expect(readdirSync(at('web', 'onnx'))).toHaveLength(3);
  });
});

describe('refuses in one sentence, with nothing written,', () => {
  const refused = async (...words: string[]) => {
    const { code, stderr } = await cli('export', ...words);
    expect(code).toBe(1);
    expect(stderr.trim().split('\n')).toHaveLength(1);
    return stderr;
  };

  test('a folder that holds something', async () => {
    mkdirSync(at('full'));
    writeFileSync(at('full', 'mine.txt'), '');
    expect(await refused(model, '--to', 'llama.cpp', '--out', at('full'))).toContain('holds mine.txt; give a folder that is new or empty');
  });

  test('a dtype of other software', async () => {
    const message = await refused(model, '--to', 'llama.cpp', '--out', at('never'), '--dtype', 'q8');
    expect(message).toContain('--dtype q8: llama.cpp has F32, F16, BF16, Q8_0, Q4_0');
    expect(existsSync(at('never'))).toBe(false);
  });

  test('a killed export leaves nothing half-written', async () => {
    const child = spawn(process.execPath, [bin, 'export', model, '--to', 'transformers.js', '--out', at('killed')]);
    const ended = new Promise<number | null>((resolve) => child.on('exit', resolve));
    while (!existsSync(at('killed.incomplete', 'onnx'))) await new Promise((resolve) => setTimeout(resolve, 5));
    child.kill('SIGTERM');
    expect(await ended).toBe(130);
    expect([at('killed'), at('killed.incomplete')].filter((path) => existsSync(path))).toEqual([]);
  });

  test('a folder of peers that is not there', async () => {
    const message = await refused(model, '--to', 'llama.cpp', '--out', at('never'), '--verify', '--peers', at('no-peers'));
    expect(message).toContain(`--peers ${at('no-peers')}: there is no such folder`);
  });

  test('a peer that is not installed', async () => {
    const message = await refused(model, '--to', 'transformers.js', '--out', at('never'), '--verify', '--peers', at());
    expect(message).toContain('npm install --no-save --ignore-scripts @huggingface/transformers, or give --peers');
    expect(existsSync(at('never'))).toBe(false);
  });

  test('a Python without what it takes, and adapters without anything to compare with', async () => {
    const refusedPeer = (...words: string[]) => refused(...words, '--out', at('never'), '--verify', '--peers', at());
    expect(await refusedPeer(model, '--to', 'huggingface')).toContain(
      `--verify needs torch, transformers, pillow in ${at()}: python3 -m venv peers && peers/bin/pip install torch transformers pillow, and give --peers peers`,
    );
    expect(await refusedPeer(model, '--to', 'peft')).toContain('the model that the adapters go over: give its folder as --base-folder');
    expect(await refusedPeer(model, '--to', 'peft', '--base', 'me/base')).toContain('(there is none at me/base)');
    expect(await refused(model, '--to', 'llama.cpp', '--out', at('never'), '--device', 'webgpu')).toContain(
      '--device says what --verify runs on, which is not given',
    );
    mkdirSync(at('no-weights'));
    expect(await refusedPeer(at('no-weights'), '--to', 'peft', '--base', model)).toContain('has none: give the checkpoint of the stage');
    expect(existsSync(at('never'))).toBe(false);
  });

  test('an adapter with an output head that is not its embedding', async () => {
    const embedding = (await tensorsOf(model)).get('language_model.model.embed_tokens.weight')!;
    const [table, head] = ['model.language_model.embed_tokens.weight', 'lm_head.weight'].map((name) => `base_model.model.${name}`);
    const tensor = (data: Float32Array) => ({ shape: [embedding.length / 192, 192], data });
    await writeAdapter(at('tied'), { [table]: tensor(embedding.slice()), [head]: tensor(embedding.slice()) });
    expect((await readAdapter(at('tied'))).tensors.size).toBe(3);
    await writeAdapter(at('untied'), { [table]: tensor(embedding.slice()), [head]: tensor(embedding.map((value) => value + 1)) });
    const message = await refused(model, '--to', 'huggingface', '--out', at('never'), '--adapter', at('untied'));
    expect(message).toContain(
      'lm_head.weight differs from base_model.model.model.language_model.embed_tokens.weight: a language model whose',
    );
    expect(existsSync(at('never'))).toBe(false);
  });

  test('weights that are quantized, and a folder without adapters', async () => {
    await convertCheckpoint(model, at('int4'), { maxShardSize: 1e9, quantize: 'int4' });
    expect(await refused(at('int4'), '--to', 'transformers.js', '--out', at('never'))).toContain(
      'its weights are quantized already: export the model that they were made from',
    );
    expect(await refused(model, '--to', 'peft', '--out', at('never'))).toContain('has no adapters');
    expect(existsSync(at('never'))).toBe(false);
  });
});

const exact = { stages: 1e-5, logits: 1e-4, answers: 1 };

const check = async (
  process: string,
  out: string,
  dtype: string,
  tolerance: Tolerance,
  dir = model,
  { questions = 20, ...load }: { base?: string; device?: 'webgpu'; questions?: number } = {},
) => {
  const peer = startPeer(process, process === 'hugging-face' ? python : undefined);
  try {
    return await verify(dir, peer, { load: { peers, folder: out, dtype, ...load }, tolerance, questions, maxNewTokens: 16 });
  } finally {
    peer.stop();
  }
};

describe.skipIf(!hasPeers('@huggingface/transformers'))('transformers.js', () => {
  test('computes the same, and its verification names the first stage that does not', async () => {
    await cli('export', model, '--to', 'transformers.js', '--out', at('tj'));
    const { same, asked, stages } = await check('transformers-js', at('tj'), 'fp32', exact);
    expect([same, asked]).toEqual([20, 20]);
    expect(stages.map(({ name }) => name)).toEqual(expect.arrayContaining(['pixel_values', 'image_features', 'present.3.value', 'logits']));
    // another model in its place: the layer whose weights differ
    await writeAdapter(at('other'));
    await convertCheckpoint(model, at('wrong'), { maxShardSize: 1e9, adapter: { folder: at('other'), engine: createOrtEngine() } });
    await expect(check('transformers-js', at('tj'), 'fp32', exact, at('wrong'))).rejects.toThrow(
      /present\.2\.key is the first that differs/,
    );
  }, 120_000);
});

describe.skipIf(!webgpu || !hasPeers('@huggingface/transformers'))('transformers.js on WebGPU', () => {
  test.each([
    ['fp32', exact],
    ['q8', { stages: 0.1, logits: 0.1, isRelative: true, answers: 0 }],
  ])('computes a tiny random model in %s', { timeout: 120_000 }, async (dtype, tolerance) => {
    const tiny = await writeTiny(at(`tiny-${dtype}`), 'gemma', 'siglip_vision_model');
    await cli('export', tiny, '--to', 'transformers.js', '--out', at(`tiny-${dtype}-web`), '--dtype', dtype);
    const { peer, stages } = await check('transformers-js', at(`tiny-${dtype}-web`), dtype, tolerance, tiny, {
      device: 'webgpu',
      questions: 3,
    });
    expect(peer).toMatch(/ on webgpu$/);
    expect(stages.map(({ name }) => name)).toEqual(['pixel_values', 'input_ids', 'image_features', 'logits']);
  });
});

/** A tiny random model as a folder. */
async function writeTiny(
  to: string,
  language: string,
  encoder: string,
  change?: (tensors: ReadonlyMap<string, { data: Float32Array }>) => void,
): Promise<string> {
  const { source, values } = tinyModel(language, encoder);
  const tensors = new Map([...values.keys()].map((name) => [name, { shape: source.tensor(name).shape, data: values.get(name)! }]));
  change?.(tensors);
  const files = { ...source.files, 'preprocessor_config.json': JSON.stringify(imageProcessorFor(32)) };
  await saveCheckpoint(to, { config: source.json, tensors, files });
  return to;
}

describe.each([
  { to: 'transformers.js', process: 'transformers-js', dtype: 'fp32', isThere: hasPeers('@huggingface/transformers') },
  { to: 'huggingface', process: 'hugging-face', dtype: 'float32', isThere: python !== undefined },
])('the software of $to', ({ to, process, dtype, isThere }) => {
  test.skipIf(!isThere).each(PAIRINGS)(
    'computes a tiny random model of %s with %s',
    async (language, encoder) => {
      const tiny = await writeTiny(at('tiny', to, language, encoder), language, encoder);
      const out = at('tiny', to, `${language}-${encoder}`);
      const { code, stderr } = await cli('export', tiny, '--to', to, '--out', out);
      expect(code, stderr).toBe(0);
      const { same } = await check(process, out, dtype, exact, tiny);
      expect(same).toBe(20);
    },
    120_000,
  );
});

describe.skipIf(!hasPeers('node-llama-cpp', '@fugood/llama.node'))('llama.cpp computes the text of tiny random models', () => {
  test.each(['gemma', 'gemma2', 'gemma3_text'])(
    'of %s',
    async (language) => {
      const tiny = await writeTiny(at('tiny-text', language), language, 'siglip_vision_model');
      const { code, stderr } = await cli('export', tiny, '--to', 'llama.cpp', '--out', at('tiny-gguf', language), '--dtype', 'F32');
      expect(code, stderr).toBe(0);
      await check('llama-cpp', at('tiny-gguf', language), 'F32', { stages: 0, logits: 5e-3, answers: 0 }, tiny);
    },
    240_000,
  );
});

describe.skipIf(!hasPeers('node-llama-cpp', '@fugood/llama.node'))('llama.cpp', () => {
  test('cuts texts the same, computes the same logits, and answers alike', async () => {
    await cli('export', model, '--to', 'llama.cpp', '--out', at('gguf'), '--dtype', 'F32');
    const { stages } = await check('llama-cpp', at('gguf'), 'F32', { stages: 0, logits: 2e-3, answers: 0.8 });
    expect(stages.map(({ name }) => name)).toEqual(['text_ids', 'text_logits']);
  }, 240_000);
});

describe.skipIf(!python)('peft', () => {
  test('computes over the base what the merged weights do, and a verification over another base names where they part', async () => {
    await convertCheckpoint(model, at('base'), { maxShardSize: 1e9, dtype: 'float32' });
    await writeAdapter(at('peft-stage', 'adapter'));
    const adapter = { folder: at('peft-stage', 'adapter'), engine: createOrtEngine() };
    await convertCheckpoint(at('base'), at('peft-merged'), { maxShardSize: 1e9, adapter });
    await cli('export', at('peft-stage'), '--to', 'peft', '--out', at('peft-out'), '--base', at('base'));
    const over = { base: at('base') };
    const { same } = await check('hugging-face', at('peft-out'), 'float32', exact, at('peft-merged'), over);
    expect(same).toBe(20);
    await expect(check('hugging-face', at('peft-out'), 'float32', exact, at('base'), over)).rejects.toThrow(
      /present\.2\.key is the first that differs/,
    );
  }, 120_000);
});
