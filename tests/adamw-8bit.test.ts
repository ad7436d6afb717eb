// AdamW with moments in 8-bit codes: as AdamW8bit of bitsandbytes computes it, and through a whole run of the
// toy recipe, which must learn, go on after a kill and take the memory that its plan has said.

import { cpSync, mkdtempSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { beforeAll, describe, expect, test } from 'vitest';
import { stringify } from 'yaml';
import { signedCode, unsignedCode } from '../src/dynamic-code.ts';
import { float32 } from '../src/engine/engine.ts';
import { createOrtEngine } from '../src/engine/ort.ts';
import { readMetrics } from '../src/runs/metrics.ts';
import { createAdamW } from '../src/train/optimizer.ts';
import type { RunPlan } from '../src/train/plan.ts';
import { openSafetensors } from '../src/weights/safetensors.ts';
import { cli, spawnCli, train } from './toy.ts';

const golden = (file: string) => fileURLToPath(new URL(`./reference/goldens/adamw_8bit/${file}`, import.meta.url));

interface GoldenTensor {
  dims: number[];
  data: Float32Array | Uint8Array;
}

async function readGolden(name: string): Promise<Map<string, GoldenTensor>> {
  const file = await openSafetensors(golden(`${name}.safetensors`));
  try {
    const tensors = new Map<string, GoldenTensor>();
    for (const tensor of file.names) {
      const { dtype, shape, data } = await file.read(tensor);
      tensors.set(tensor, { dims: shape, data: dtype === 'U8' ? data : new Float32Array(data.slice().buffer) });
    }
    return tensors;
  } finally {
    await file.close();
  }
}

const largest = (a: ArrayLike<number>, b: ArrayLike<number>) =>
  Array.from(a).reduce((most, value, i) => Math.max(most, Math.abs(value - b[i])), 0);

test('the codes are those of bitsandbytes', async () => {
  const outputs = await readGolden('outputs');
  for (const [name, { values }] of [
    ['exp_avg', signedCode],
    ['exp_avg_sq', unsignedCode],
  ] as const) {
    const { data } = outputs.get(`code.${name}`)!;
    // it rounds each step of the definition to float32
    expect(data.length).toBe(256);
    expect(Math.max(...Array.from(data, (value, i) => Math.abs(value - values[i]) / (Math.abs(value) || 1)))).toBeLessThan(1e-6);
  }
});

test('five steps are those of AdamW8bit of bitsandbytes', async () => {
  const [inputs, outputs] = [await readGolden('inputs'), await readGolden('outputs')];
  const { betas, eps, weightDecay, learningRates } = JSON.parse(readFileSync(golden('config.json'), 'utf8'));
  const engine = createOrtEngine({ threads: 1 });
  const parameters = ['weight', 'bias'].map((name) => {
    const { dims, data } = inputs.get(`params.${name}`)!;
    return { name, dims, values: engine.state(float32(data.slice() as Float32Array, dims)), gradient: engine.zeros('float32', dims) };
  });
  const options = { optim: 'adamw_8bit', betas, eps, weightDecay: (name: string) => weightDecay[name], maxGradNorm: 0 } as const;
  const optimizer = await createAdamW(engine, parameters, options);
  for (const [step, rate] of learningRates.entries()) {
    for (const { name, dims, gradient } of parameters)
      await gradient.write(float32(inputs.get(`gradients.${step}.${name}`)!.data as Float32Array, dims));
    await optimizer.step({ step: step + 1, scale: 1, learningRate: () => rate });
    if (!outputs.has(`params.${step}.weight`)) continue;
    // both round to float32, in another order; no number came to lie on another side of a bound
    for (const { name, values } of parameters) {
      const difference = largest((await values.read()).data as Float32Array, outputs.get(`params.${step}.${name}`)!.data);
      expect(difference, `${name} after step ${step}`).toBeLessThan(1e-6);
    }
    for (const [name, moment] of optimizer.moments) {
      const { dtype, data } = await moment.read();
      const [, parameter, kind, absmax = ''] = /^(\w+)\.(exp_avg\w*)(\.absmax)?$/.exec(name)!;
      const expected = outputs.get(`${kind}.${step}.${parameter}${absmax}`)!.data;
      if (dtype === 'uint8') expect(data, name).toEqual(new Uint8Array(expected));
      else expect(largest(data as Float32Array, expected), name).toBeLessThan(1e-7);
    }
  }
  expect([...optimizer.moments.values()].map(({ dtype }) => dtype)).toEqual(['uint8', 'float32', 'uint8', 'float32', 'float32', 'float32']);
  await optimizer.dispose();
});

// === A run ===

const recipe = {
  task: 'language-model',
  model: {
    text_config: {
      hidden_size: 64,
      intermediate_size: 131,
      num_hidden_layers: 1,
      num_attention_heads: 4,
      num_key_value_heads: 1,
      head_dim: 16,
      max_position_embeddings: 192,
    },
    tokenizer: 'assets/tokenizer',
  },
  data: { generate: 'emoji' },
  stages: [
    { name: 'text', steps: 30, batch_size: 8, lr: 0.01, max_length: 64, log_every: 1, mixture: [{ source: 'captions', weight: 1 }] },
  ],
};
const eightBit = ['--set', 'stages.0.optim=adamw_8bit'];

/** Matrices of 4,096 numbers and more that are no table of embeddings. */
const CODED = ['self_attn.q_proj', 'self_attn.o_proj', 'mlp.gate_proj', 'mlp.up_proj', 'mlp.down_proj'];
const codedNumbers = 2 * 64 * 64 + 3 * 64 * 131;

const weightsOf = (out: string) => readFileSync(join(out, 'checkpoints', 'text', 'model.safetensors')).toString('base64');
const lossesOf = (out: string) => readMetrics(join(out, 'metrics.jsonl')).flatMap((event) => (event.type === 'step' ? [event.loss] : []));

describe('a run with moments in 8 bits', () => {
  let told = '';

  beforeAll(async () => {
    const before = process.cwd();
    const folder = mkdtempSync(join(tmpdir(), 'llava-gemma-'));
    process.chdir(folder);
    writeFileSync('text.yaml', stringify(recipe));
    await train('text.yaml', '--out', 'float32');
    const saving = ['--set', 'stages.0.save_every=14', '--set', 'stages.0.keep_checkpoints=2'];
    const { code, stderr } = await cli('train', 'text.yaml', '--out', 'coded', ...eightBit, ...saving);
    expect(code, stderr).toBe(0);
    told = stderr;
    return () => {
      process.chdir(before);
      rmSync(folder, { recursive: true, force: true });
    };
  }, 60_000);

  test('learns as one with float32 moments does', () => {
    const [plain, coded] = ['float32', 'coded'].map(lossesOf);
    expect(plain.at(-1)!).toBeLessThan(0.6 * plain[0]);
    expect(Math.abs(coded.at(-1)! / plain.at(-1)! - 1)).toBeLessThan(0.03);
    expect(weightsOf('coded')).not.toBe(weightsOf('float32'));
  });

  test('says which moments are codes', () => {
    expect(told).toMatch(/peak lr +weight decay +moments\n +language_model .* 8 bits \(5 tensors\)$/m);
    const event = readMetrics('coded/metrics.jsonl').find(({ type }) => type === 'trains');
    expect(event).toMatchObject({ groups: [{ name: 'language_model', coded: 5 }] });
  });

  test('keeps in checkpoints what its plan has counted', async () => {
    const { stdout } = await cli('plan', 'text.yaml', ...eightBit, '--json');
    const [{ trained, memory, disk }] = (JSON.parse(stdout) as RunPlan).stages;
    const file = await openSafetensors(join('coded', 'checkpoints', 'text-step-000028', 'optimizer.safetensors'));
    const sizes = new Map<string, number>();
    for (const name of file.names) sizes.set(name, (await file.read(name)).data.byteLength);
    await file.close();
    const blocks = 2 * 16 + 3 * Math.ceil((64 * 131) / 256);
    const bytes = [...sizes.values()].reduce((sum, size) => sum + size);
    const numbers = trained.language_model;
    expect(bytes).toBe(8 * (numbers - codedNumbers) + 2 * (codedNumbers + 4 * blocks));
    expect(memory.gradientsAndMoments).toBe(4 * numbers + bytes);
    expect(disk.checkpoint).toBe(4 * numbers + bytes);
    const coded = [...sizes.keys()].filter((name) => name.endsWith('.exp_avg.absmax'));
    expect(coded.sort()).toEqual(CODED.map((layer) => `model.layers.0.${layer}.weight.exp_avg.absmax`).sort());
  });

  test('goes on to the same bits after a kill', async () => {
    const { child, outcome } = spawnCli(['train', 'text.yaml', '--out', 'killed', ...eightBit, '--set', 'stages.0.save_every=7']);
    child.stderr!.on('data', (text: string) => {
      if (/step +20\//.test(text)) child.kill('SIGKILL');
    });
    expect((await outcome).code).toBeNull();
    await train('--resume', '--out', 'killed');
    expect(weightsOf('killed')).toBe(weightsOf('coded'));
    expect(lossesOf('killed')).toEqual(lossesOf('coded'));
  }, 60_000);

  test('cannot go on with moments of the other kind', async () => {
    cpSync('coded', 'changed', { recursive: true });
    rmSync('changed/checkpoints/text', { recursive: true });
    renameSync('changed/checkpoints/text-step-000028', 'changed/checkpoints/text');
    writeFileSync('changed/recipe.yaml', readFileSync('changed/recipe.yaml', 'utf8').replace('adamw_8bit', 'adamw_torch'));
    const { code, stderr } = await cli('train', '--resume', '--out', 'changed');
    expect(code).toBe(1);
    expect(stderr).toContain('optim of the recipe has changed since stage text began');
  });
});

test('a plan offers moments in 8 bits where they make a recipe fit', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'llava-gemma-'));
  const path = join(folder, 'wide.yaml');
  const text_config = { ...recipe.model.text_config, hidden_size: 128, intermediate_size: 4096 };
  writeFileSync(path, stringify({ ...recipe, model: { ...recipe.model, text_config } }));
  const planned = async (...words: string[]) => JSON.parse((await cli('plan', path, '--json', ...words)).stdout) as RunPlan;
  try {
    const [plain, coded] = [await planned(), await planned(...eightBit)];
    expect(coded.memory.peak).toBeLessThan(plain.memory.peak - 5.9 * 3 * 128 * 4096);
    const between = (plain.memory.peak + coded.memory.peak) / 2e9;
    const { fits, remedies } = await planned('--memory', String(between));
    expect(fits).toBe(false);
    expect(remedies).toContainEqual({ set: ['stages.0.optim=adamw_8bit'], peak: coded.memory.peak });
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
});
