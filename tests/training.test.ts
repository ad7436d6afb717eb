// Twenty steps of each kind of stage are those of PyTorch, transformers and peft
// (tests/reference/make_training.py): from pictures and JSON on disk to the losses that are logged and the
// weights that are saved.
import { copyFileSync, cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { beforeAll, describe, expect, it } from 'vitest';
import { stringify } from 'yaml';
import { readMetrics } from '../src/runs/metrics.ts';
import { openSafetensors } from '../src/weights/safetensors.ts';
import { cli } from './toy.ts';

const here = (path: string) => fileURLToPath(new URL(path, import.meta.url));
const golden = here('reference/goldens/training');
const losses: Record<string, number[]> = JSON.parse(readFileSync(join(golden, 'losses.json'), 'utf8'));

beforeAll(() => {
  const before = process.cwd();
  const folder = mkdtempSync(join(tmpdir(), 'training-'));
  process.chdir(folder);
  cpSync(golden, 'model', { recursive: true });
  for (const file of ['tokenizer.json', 'tokenizer_config.json']) copyFileSync(here(`../assets/tokenizer/${file}`), join('model', file));
  return () => {
    process.chdir(before);
    rmSync(folder, { recursive: true, force: true });
  };
});

const common = { data: { data_path: 'model/data.json', image_folder: 'model' }, steps: 20, batch_size: 8, max_length: 128, log_every: 1 };
const STAGES = {
  stage1: { train: ['multi_modal_projector'], template: 'gemma', lr: 1e-2 },
  stage2: {
    train: ['multi_modal_projector', 'language_model'],
    lr: 5e-3,
    lr_by_module: { multi_modal_projector: 1e-3 },
    weight_decay: 0.1,
  },
  lora: {
    train: ['multi_modal_projector'],
    lora: { adapter: 'model/adapter' },
    lr: 1e-2,
    lr_by_module: { multi_modal_projector: 1e-3 },
    weight_decay: 0.1,
  },
};

async function tensorsOf(path: string): Promise<Map<string, Float32Array>> {
  const file = await openSafetensors(path);
  const tensors = new Map<string, Float32Array>();
  for (const name of file.names) tensors.set(name, new Float32Array(new Uint8Array((await file.read(name)).data).buffer));
  await file.close();
  return tensors;
}

const norm = (values: Float32Array) => Math.sqrt(values.reduce((sum, value) => sum + value * value, 0));

async function succeed(...words: string[]): Promise<void> {
  const { code, stderr } = await cli(...words);
  expect(code, stderr).toBe(0);
}

describe('twenty steps', () => {
  it.each(Object.entries(STAGES))('%s', async (name, stage) => {
    const recipe = { task: 'llava', model: { llava: 'model' }, stages: [{ name, ...common, ...stage }] };
    writeFileSync(`${name}.yaml`, stringify(recipe));
    await succeed('train', `${name}.yaml`, '--out', name);
    const steps = readMetrics(join(name, 'metrics.jsonl')).flatMap((event) => (event.type === 'step' ? [event.loss] : []));
    expect(steps).toHaveLength(20);
    steps.forEach((loss, i) => {
      expect(Math.abs(loss - losses[name][i]), `step ${i + 1}: ${loss}, not ${losses[name][i]}`).toBeLessThan(1e-4);
    });
    const [ours, theirs, start] = await Promise.all([
      tensorsOf(join(name, 'checkpoints', name, 'model.safetensors')),
      tensorsOf(join(golden, `${name}.safetensors`)),
      tensorsOf(join(golden, 'model.safetensors')),
    ]);
    for (const [tensor, expected] of theirs) {
      const difference = norm(ours.get(tensor)!.map((value, i) => value - expected[i]));
      expect(difference / norm(expected), tensor).toBeLessThan(1e-3);
      // which would be nothing to be proud of, had it not moved
      expect(norm(start.get(tensor)!.map((value, i) => value - expected[i])) / norm(expected), tensor).toBeGreaterThan(5e-3);
    }
  });
});

describe('an adapter of peft', () => {
  it('merged says what peft says with it', async () => {
    await succeed('merge', 'model', 'model/adapter', 'merged');
    await succeed('forward', '--model', 'merged', '--inputs', 'model/inputs.safetensors', '--output', 'out.safetensors');
    const [ours, theirs] = [await tensorsOf('out.safetensors'), await tensorsOf('model/outputs.safetensors')];
    const expected = theirs.get('logits')!;
    const logits = ours.get('logits')!.subarray(-expected.length);
    const difference = expected.reduce((max, value, i) => Math.max(max, Math.abs(value - logits[i])), 0);
    expect(difference).toBeLessThan(1e-5);
    await succeed('forward', '--model', 'model', '--inputs', 'model/inputs.safetensors', '--output', 'out.safetensors');
    const without = (await tensorsOf('out.safetensors')).get('logits')!.subarray(-expected.length);
    expect(expected.some((value, i) => Math.abs(value - without[i]) > 0.1)).toBe(true);
  });
});
