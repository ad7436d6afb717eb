// Self-distillation from its recipe to an encoder that a LLaVA can be made with.
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { beforeAll, expect, test } from 'vitest';
import { stringify } from 'yaml';
import { effectiveRank } from '../src/alignment/effective-rank.ts';
import { pixelInputs } from '../src/data/emoji/contrastive.ts';
import { loadEmojiGlyphs, sharedConcepts } from '../src/data/emoji/glyphs.ts';
import { renderScene, sampleScene } from '../src/data/emoji/scene.ts';
import { float32 } from '../src/engine/engine.ts';
import { createOrtEngine } from '../src/engine/ort.ts';
import { dinov2ConfigSchema } from '../src/models/dinov2.ts';
import { compileGraph, visionStatesGraph } from '../src/models/programs.ts';
import { createRandom } from '../src/random.ts';
import { readMetrics } from '../src/runs/metrics.ts';
import { openSafetensors } from '../src/weights/safetensors.ts';
import { cli, enterToyFolder, recipes, spawnCli, tensorsOf, train } from './toy.ts';

const stage = { steps: 60, batch_size: 8, lr: 3e-3, warmup_steps: 5, log_every: 1, ema_decay: 0.9 };
const recipe = {
  task: 'self-distillation',
  model: {
    vision_config: { hidden_size: 32, num_hidden_layers: 2, num_attention_heads: 2, image_size: 32, patch_size: 8 },
    head_hidden_dim: 48,
    head_bottleneck_dim: 16,
    head_n_prototypes: 32,
  },
  data: { generate: 'emoji', local_crops_number: 2, local_crops_size: 16 },
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

test('a short run lowers both losses, and its features do not collapse', async () => {
  const losses = readMetrics('dinov2/metrics.jsonl').flatMap((event) => (event.type === 'step' && event.stage === 'first' ? [event] : []));
  const meanOf = (name: string, from: number, to: number) =>
    losses.slice(from, to).reduce((sum, { extra }) => sum + extra![name], 0) / (to - from);
  // as long as nothing is known, all prototypes are equally likely
  for (const name of ['dino_loss', 'ibot_loss']) {
    expect(meanOf(name, 0, 5)).toBeGreaterThan(Math.log(32) - 0.25);
    expect(meanOf(name, 50, 60)).toBeLessThan(meanOf(name, 0, 5) - 0.2);
  }
  const config = dinov2ConfigSchema.parse(JSON.parse(readFileSync('dinov2/checkpoints/first/config.json', 'utf8')));
  const tensors = await tensorsOf('dinov2/checkpoints/first');
  const graph = visionStatesGraph(config, [32, 32]);
  const values = new Map(graph.parameters.map(({ name, dims }) => [name, float32(tensors.get(name)!, [...dims])]));
  const program = await compileGraph(createOrtEngine({ threads: 1 }), graph, values);
  const glyphs = await loadEmojiGlyphs();
  const scenes = Array.from({ length: 64 }, (_, i) => {
    const random = createRandom(1, 'scene', i);
    return renderScene(sampleScene(random, glyphs, { concepts: sharedConcepts(glyphs), artists: glyphs.artists, size: 32 }), glyphs);
  });
  const pixel_values = pixelInputs(scenes, 32, [0.5, 0.5, 0.5], [0.25, 0.25, 0.25]);
  const last = (await program.run({ pixel_values }))['hidden_states.2'].data as Float32Array;
  const classTokens = new Float32Array(64 * 32);
  for (let i = 0; i < 64; i++) classTokens.set(last.subarray(i * 17 * 32, i * 17 * 32 + 32), i * 32);
  // 1 where pictures differ in one number only
  expect(effectiveRank({ data: classTokens, count: 64, width: 32 })).toBeGreaterThan(2);
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
  expect([...first.keys()].filter((name) => /head|teacher/.test(name))).toEqual([]);
  const apart = await openSafetensors('dinov2/checkpoints/first/trained.safetensors');
  expect(apart.names.every((name) => name.startsWith('dino_head.'))).toBe(true);
  await apart.close();
  expect((await cli('convert', 'dinov2/checkpoints/second', 'encoder', '--dtype', 'float16')).code).toBe(0);
  expect(existsSync('encoder/trained.safetensors')).toBe(false);
  writeFileSync('with.yaml', stringify({ ...recipes.llava, model: { ...recipes.llava.model, vision_tower: 'encoder' } }));
  await train('with.yaml', '--out', 'with', ...words('evaluate='));
  expect(existsSync('with/checkpoints/finetune/model.safetensors')).toBe(true);
});

test('names drawings better than an encoder that was not trained would by chance', () => {
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
  ['model.vision_config.use_mask_token=false', 'model.vision_config.use_mask_token: must be true'],
  ['data.local_crops_size=4', 'data.local_crops_size is 4: a crop has at least one patch, of 8 pixels'],
  ['data.local_crops_scale=[0.5, 0.2]', 'data.local_crops_scale: must be a range: its second number is smaller than its first'],
  ['stages.0.steps=', 'stage first: its data is made afresh at each step and has no epochs; give steps'],
])('%s is refused in one sentence', async (change, message) => {
  const { code, stderr } = await cli('train', 'dinov2.yaml', '--out', 'refused', ...words(change));
  expect([code, stderr]).toEqual([1, expect.stringContaining(message)]);
});
