// Plans: what they say is what the run then does, and what cannot fit is said before anything is read.
import { existsSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { beforeAll, describe, expect, it } from 'vitest';
import { stringify } from 'yaml';
import { createOrtEngine } from '../src/engine/ort.ts';
import { alone } from '../src/mpi/communicator.ts';
import { readMetrics } from '../src/runs/metrics.ts';
import { silentStatus } from '../src/runs/status.ts';
import { checkMemory } from '../src/train/memory-check.ts';
import type { RunPlan } from '../src/train/plan.ts';
import { startSourceThread } from '../src/train/prefetch.ts';
import { loadRecipe } from '../src/train/recipe.ts';
import { createTask } from '../src/train/run.ts';
import { cli, enterToyFolder, recipes, train } from './toy.ts';

beforeAll(async () => enterToyFolder(), 180_000);

async function planned(...words: string[]): Promise<RunPlan> {
  const { code, stdout, stderr } = await cli('plan', ...words, '--json');
  expect(code, stderr).toBe(0);
  return JSON.parse(stdout) as RunPlan;
}

describe('a plan', () => {
  it('knows what the run trains, how long it is, and how its rows are filled', async () => {
    const { stages, fits, problems } = await planned('llava.yaml');
    expect([fits, problems]).toEqual([true, []]);
    expect(existsSync('runs')).toBe(false);
    const said = await cli('train', 'llava.yaml', '--out', 'run');
    expect(said.code, said.stderr).toBe(0);
    for (const { name, trained, steps, padding } of stages) {
      for (const [module, numbers] of Object.entries(trained))
        expect(said.stderr).toMatch(new RegExp(`${module} +\\d+ +${numbers.toLocaleString('en')}\\b`));
      const events = readMetrics('run/metrics.jsonl').flatMap((event) => (event.type === 'step' && event.stage === name ? [event] : []));
      expect(events.length).toBe(steps);
      // the toy's batches are all looked at
      const share = events.reduce((sum, { extra }) => sum + (extra?.padding ?? 0), 0) / events.length;
      expect(Math.abs(padding - share)).toBeLessThan(0.02);
    }
  });

  it('counts what is kept of each number that is trained: its value, gradient and two moments', async () => {
    const { stages } = await planned('llava.yaml');
    for (const { trained, memory } of stages) {
      const numbers = Object.values(trained).reduce((sum, count) => sum + count);
      expect(memory.values).toBe(4 * numbers);
      expect(memory.gradientsAndMoments).toBe(3 * 4 * numbers);
      const { values, gradientsAndMoments, constants, activations, process, peak } = memory;
      expect(peak).toBeCloseTo(values + gradientsAndMoments + constants + activations + process, 0);
      expect(activations).toBeGreaterThan(0);
    }
    const [, averaged] = (await planned('llava.yaml', '--set', 'stages.1.ema_decay=0.9')).stages;
    expect(averaged.memory.gradientsAndMoments).toBe(4 * averaged.memory.values);
    const lora = await planned('llava.yaml', '--set', 'stages.1.train=[]', '--set', 'stages.1.lora={rank: 4, alpha: 8}');
    expect(lora.stages[1].memory.values).toBe(4 * 4 * (32 + 24 + 24 + 32 + 48 + 48 + 48));
    expect(lora.stages[1].frozen).toBeGreaterThan(stages[1].frozen);
  });

  it('takes longer samples for more memory, and smaller batches for less', async () => {
    const activations = async (...words: string[]) => (await planned('llava.yaml', ...words)).stages[1].memory.activations;
    const whole = await activations();
    expect(await activations('--set', 'stages.1.batch_size=4', '--set', 'stages.1.accumulation=2')).toBeLessThan(0.8 * whole);
  });

  it('reads no weight: a folder whose values are cut off is planned, and then refused by train', async () => {
    const file = 'gemma/checkpoints/gemma/model.safetensors';
    const bytes = readFileSync(file);
    const broken = Buffer.from(bytes);
    broken.fill(0xff, bytes.length - 400);
    writeFileSync(file, broken);
    try {
      await planned('llava.yaml');
      const { code, stderr } = await cli('train', 'llava.yaml', '--out', 'broken');
      expect(code).toBe(1);
      expect(stderr).toContain('NaN');
    } finally {
      writeFileSync(file, bytes);
    }
  });

  it('counts what is kept beside a checkpoint, as the run then leaves it', async () => {
    const bytesIn = (folder: string) =>
      readdirSync(folder)
        .filter((name) => name.endsWith('.safetensors'))
        .reduce((sum, name) => sum + statSync(join(folder, name)).size, 0);
    const held = 'held_out={samples: 2, every: 1}';
    const own = ['keep_checkpoints=2', 'save_every=1', 'keep_best=true', 'ema_decay=0.5', held, 'data=captions', 'max_length=160'];
    const words = ['llava.yaml', ...own.flatMap((field) => ['--set', `stages.1.${field}`])];
    const plan = await planned(...words);
    await train(...words, '--out', 'keeping');
    const folders = readdirSync('keeping/checkpoints').filter((name) => name.startsWith('finetune-'));
    expect(folders).toEqual(['finetune-best', 'finetune-step-000002', 'finetune-step-000003']);
    const kept = folders.reduce((sum, name) => sum + bytesIn(join('keeping/checkpoints', name)), 0);
    const [first, second] = plan.stages.map(({ disk }) => disk);
    // beside the numbers, files have headers
    expect(second.kept / kept).toBeGreaterThan(0.9);
    expect(second.kept / kept).toBeLessThan(1);
    expect(second.checkpoint / bytesIn('keeping/checkpoints/finetune-step-000003')).toBeGreaterThan(0.9);
    expect(first.kept).toBe(0);
    // both stages show the same pictures
    expect(first.features).toBeGreaterThan(0);
    expect(plan.disk.needed).toBe(first.features + first.checkpoint + second.kept + 2 * second.checkpoint);
  });

  it.runIf(process.platform === 'linux')('does not say that a disk is full that does not tell how much is free', async () => {
    const { disk, fits } = await planned('llava.yaml', '--out', '/proc/run');
    expect([disk.free, fits]).toEqual([null, true]);
    const { code, stdout } = await cli('plan', 'llava.yaml', '--out', '/proc/run');
    expect([code, stdout]).toEqual([0, expect.stringMatching(/; disk [\d.]+ [kM]B$/m)]);
  });

  it('leaves out bad samples where the recipe does, also whole batches of them', async () => {
    await train('llava.yaml', '--out', 'drawn');
    const good = JSON.parse(readFileSync('scenes/train_captions.json', 'utf8')) as { conversations: object[] }[];
    const long = { from: 'human', value: `<image>\n${'what is it? '.repeat(200)}` };
    const bad = [...good.map((sample) => ({ ...sample, conversations: [long, sample.conversations[1]] })), { conversations: 'none' }];
    writeFileSync('mixed.json', JSON.stringify([...bad, ...bad, good[0]]));
    const [, { data: _, ...stage }] = recipes.llava.stages;
    const data = { data_path: 'mixed.json', image_folder: 'scenes/images' };
    const mixed = {
      task: 'llava',
      model: recipes.llava.model,
      stages: [{ ...stage, batch_size: 2, steps: 8, data, on_bad_sample: 'skip' }],
    };
    writeFileSync('mixed.yaml', stringify(mixed));
    const { stages } = await planned('mixed.yaml');
    expect(stages[0].tokensPerStep).toBeGreaterThan(4);
    const { code, stderr } = await cli('plan', 'mixed.yaml', '--set', 'stages.0.on_bad_sample=error');
    expect([code, stderr]).toEqual([1, expect.stringContaining('on_bad_sample: skip')]);
  });

  it('runs a few steps where it is asked how long the run would take', async () => {
    const { stages } = await planned('llava.yaml', '--time');
    for (const { seconds, steps, pictures } of stages) {
      expect(seconds!.step).toBeGreaterThan(0);
      expect(seconds!.total).toBeCloseTo(steps * seconds!.step + pictures! * seconds!.picture, 6);
    }
    expect((await cli('plan', 'llava.yaml', '--time')).stdout).toMatch(/time {5}0:\d\d: 4 steps of [\d.]+ s/);
  });

  it('says what checkpointing would take, and how features are kept', async () => {
    const [plain, checkpointed] = [
      await planned('llava.yaml'),
      await planned('llava.yaml', '--set', 'stages.0.gradient_checkpointing=true'),
    ];
    expect(plain.stages[0].otherwise).toEqual({ gradientCheckpointing: true, peak: checkpointed.stages[0].memory.peak });
    expect(checkpointed.stages[0].otherwise).toEqual({ gradientCheckpointing: false, peak: plain.stages[0].memory.peak });
    expect(plain.stages[0].memory.peak).not.toBe(checkpointed.stages[0].memory.peak);
    expect(plain.stages[0].features).toBe('float32');
    const { stdout } = await cli('plan', 'llava.yaml', '--set', 'stages.0.feature_cache=float16', '--time');
    expect(stdout).toMatch(/MB with gradient_checkpointing: true, and [\d.]+ s a step/);
    expect(stdout).toMatch(/features in float16/);
  });

  it('runs a few batches of a step, however many it has', async () => {
    const began = performance.now();
    const { stages } = await planned('llava.yaml', '--time', '--set', 'stages.0.accumulation=20000');
    const took = (performance.now() - began) / 1000;
    expect(stages[0].seconds!.step).toBeGreaterThan(2 * took);
    expect(stages[0].seconds!.step / 20000).toBeLessThan(stages[1].seconds!.step * 5);
  });

  it('is made of the other kinds of recipes, too', async () => {
    const [clip, gemma] = [await planned('clip.yaml'), await planned('gemma.yaml')];
    expect(clip.stages.map(({ steps, samples }) => [steps, samples])).toEqual([[2, undefined]]);
    expect(Object.keys(gemma.stages[0].trained)).toEqual(['language_model']);
  });
});

describe('a recipe that cannot fit', () => {
  it('fails with how much is missing, and names settings with which it fits', async () => {
    const { stages } = await planned('llava.yaml', '--set', 'stages.1.batch_size=64');
    // between what it needs and what a smaller batch needs
    const memory = (stages[1].memory.peak - 0.3 * stages[1].memory.activations) / 1e9;
    const words = ['llava.yaml', '--set', 'stages.1.batch_size=64', '--memory', String(memory)];
    const { code, stdout, stderr } = await cli('plan', ...words);
    expect(code).toBe(1);
    expect(stderr).toMatch(/^error: stage finetune needs [\d.]+ GB of memory and the machine has [\d.]+ GB: [\d.]+ GB too little$/m);
    expect(stdout).toContain('it would fit with:');
    const remedy = /--set 'stages\.1\.batch_size=\d+' --set 'stages\.1\.accumulation=\d+'/.exec(stdout);
    expect(remedy).not.toBeNull();
    const fields = [...remedy![0].matchAll(/'([^']+)'/g)].flatMap(([, field]) => ['--set', field]);
    const fitting = await planned('llava.yaml', ...fields, '--memory', String(memory));
    expect(fitting.fits).toBe(true);
    await train('llava.yaml', ...fields, '--set', 'stages.1.steps=1', '--out', 'fitting');
  });

  it('is refused by train where its model is large, before a step', async () => {
    const recipe = loadRecipe('llava.yaml', ['stages.1.batch_size=64']);
    const thread = startSourceThread();
    try {
      const { signal } = new AbortController();
      const task = await createTask(recipe, {
        engine: createOrtEngine(),
        status: silentStatus,
        thread,
        out: 'run',
        signal,
        communicator: alone,
      });
      const notes: string[] = [];
      const check = (available: number) => checkMemory(task, { folder: '.', available, note: (line) => notes.push(line) });
      // less than a sixteenth of the memory: not looked at
      await check(24e9);
      expect(notes).toEqual([]);
      const numbers = task.weights.parameters.reduce((sum, { dims }) => sum + dims.reduce((product, dim) => product * dim, 1), 0);
      await expect(check(4 * numbers)).rejects.toThrow(/^stage \w+ needs .+ too little; llava-gemma plan .+--no-memory-check/);
    } finally {
      await thread.close();
    }
  });

  it('says so where nothing would make it fit', async () => {
    const { code, stdout } = await cli('plan', 'llava.yaml', '--memory', '0.01');
    expect(code).toBe(1);
    expect(stdout).toContain('no smaller batch, checkpointing or adapters would make it fit');
  });

  it('says what is wrong with a recipe or its options as train does', async () => {
    writeFileSync('bad.yaml', stringify({ ...recipes.llava, model: { ...recipes.llava.model, vision_tower: 'nowhere' } }));
    for (const [words, message] of [
      [['bad.yaml'], 'nowhere'],
      [['missing.yaml'], 'missing.yaml'],
      [['llava.yaml', '--memory', 'much'], '--memory takes gigabytes'],
    ] as const) {
      const { code, stderr } = await cli('plan', ...words);
      expect(code).toBe(1);
      expect(stderr).toContain(message);
    }
    expect(existsSync(join('runs', 'bad'))).toBe(false);
  });
});
