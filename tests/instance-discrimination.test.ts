// Instance discrimination from its recipe to an encoder that a LLaVA can be made with.
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { beforeAll, expect, test } from 'vitest';
import { stringify } from 'yaml';
import { readMetrics } from '../src/runs/metrics.ts';
import { openSafetensors } from '../src/weights/safetensors.ts';
import { cli, enterToyFolder, recipes, spawnCli, tensorsOf, train } from './toy.ts';

const stage = { steps: 80, batch_size: 8, lr: 3e-3, warmup_steps: 5, log_every: 1 };
const recipe = {
  task: 'instance-discrimination',
  model: {
    vision_config: { hidden_size: 32, num_hidden_layers: 2, num_attention_heads: 2, image_size: 32, patch_size: 8 },
    projection_dim: 16,
  },
  data: { generate: 'emoji' },
  stages: [
    { name: 'first', ...stage },
    { name: 'second', ...stage, steps: 6 },
  ],
};
const words = (...set: string[]) => set.flatMap((change) => ['--set', change]);
const filesOf = (out: string, stage: string) =>
  ['model.safetensors', 'trained.safetensors'].map((file) => readFileSync(join(out, 'checkpoints', stage, file)).toString('base64'));

beforeAll(async () => {
  const leave = await enterToyFolder();
  writeFileSync('dinov2.yaml', stringify(recipe));
  await train('dinov2.yaml', '--out', 'dinov2');
  return leave;
}, 180_000);

test('a short run begins where all drawings are equally likely, and learns to tell them apart', () => {
  const losses = readMetrics('dinov2/metrics.jsonl').flatMap((event) =>
    event.type === 'step' && event.stage === 'first' ? [event.loss] : [],
  );
  const mean = (from: number, to: number) => losses.slice(from, to).reduce((sum, loss) => sum + loss, 0) / (to - from);
  // 325 concepts by five artists; cosines over a temperature of 0.07 spread by (1 / 0.07) / sqrt(16) = 3.6
  expect(mean(0, 5)).toBeGreaterThan(Math.log(1625));
  expect(mean(70, 80)).toBeLessThan(mean(0, 5) - 1);
});

test('goes on after being killed to the same bits, of the head too', async () => {
  const short = words('stages.0.steps=6', 'stages.0.save_every=4', 'stages.1.save_every=4');
  await train('dinov2.yaml', '--out', 'straight', ...short);
  const { child, outcome } = spawnCli(['train', 'dinov2.yaml', ...short, '--out', 'killed']);
  child.stderr!.on('data', (text: string) => /second {2}step 5\//.test(text) && child.kill('SIGKILL'));
  expect((await outcome).code).toBeNull();
  await train('--resume', '--out', 'killed');
  for (const name of ['first', 'second']) expect(filesOf('killed', name)).toEqual(filesOf('straight', name));
  // the second stage went on with the head of the first
  expect(filesOf('straight', 'second')).not.toEqual(filesOf('straight', 'first'));
}, 240_000);

test('a checkpoint is an encoder without the head, which a converted folder lacks altogether', async () => {
  const first = await tensorsOf('dinov2/checkpoints/first');
  expect([...first.keys()].filter((name) => /head\./.test(name))).toEqual([]);
  const apart = await openSafetensors('dinov2/checkpoints/first/trained.safetensors');
  expect(apart.names.toSorted()).toEqual(['head.instances.weight', 'head.projection.weight']);
  await apart.close();
  expect((await cli('convert', 'dinov2/checkpoints/second', 'encoder', '--dtype', 'float16')).code).toBe(0);
  expect(existsSync('encoder/trained.safetensors')).toBe(false);
  writeFileSync('with.yaml', stringify({ ...recipes.llava, model: { ...recipes.llava.model, vision_tower: 'encoder' } }));
  await train('with.yaml', '--out', 'with', ...words('evaluate='));
  expect(existsSync('with/checkpoints/finetune/model.safetensors')).toBe(true);
});

test('names drawings better than chance', () => {
  const { scores } = JSON.parse(readFileSync('dinov2/summary.json', 'utf8'));
  for (const split of ['unseen-scenes', 'unseen-artist'])
    for (const reading of ['drawing', 'patch']) {
      const { accuracy, ciLow, n, random } = scores[split][reading];
      expect(n).toBeGreaterThan(900);
      expect(ciLow).toBeLessThan(accuracy);
      expect(ciLow).toBeGreaterThan(random);
    }
});

test.each([
  ['model.vision_config.use_mask_token=true', 'model.vision_config.use_mask_token: must be false'],
  ['stages.0.temperature=0', 'stages.0.temperature: must be'],
  ['stages.0.steps=', 'stage first: its data is made afresh at each step and has no epochs; give steps'],
])('%s is refused in one sentence', async (change, message) => {
  const { code, stderr } = await cli('train', 'dinov2.yaml', '--out', 'refused', ...words(change));
  expect([code, stderr]).toEqual([1, expect.stringContaining(message)]);
});
