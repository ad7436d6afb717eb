// What makes a long run one that can be left alone: rates that take effect, a held-out loss, averages, kept
// checkpoints, a disk that fills up, and signs of failure named while it is on.
import { spawnSync } from 'node:child_process';
import { existsSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { beforeAll, describe, expect, it } from 'vitest';
import { stringify } from 'yaml';
import { createRandom } from '../src/random.ts';
import { type MetricEvent, readMetrics } from '../src/runs/metrics.ts';
import { bin, cli, enterToyFolder, recipes, spawnCli, tensorsOf, train } from './toy.ts';

const first = join('first', 'checkpoints', 'pretrain');
const { evaluate: _, data, model, ...rest } = recipes.llava;
const questions = { data_path: 'scenes/train_questions.json', image_folder: 'scenes/images' };

/** A stage over the toy questions, from the LLaVA that `first` made. */
const stage = { ...rest.stages[1], name: 'stage', data: questions, steps: 6, warmup_ratio: 0, schedule: 'constant' };

function writeRecipe(file: string, changes: object, from: object = { llava: first }): void {
  writeFileSync(file, stringify({ ...rest, model: from, stages: [{ ...stage, ...changes }] }));
}

/** Events of a kind. */
const eventsOf = <T extends MetricEvent['type']>(run: string, type: T) =>
  readMetrics(join(run, 'metrics.jsonl')).filter((event): event is Extract<MetricEvent, { type: T }> => event.type === type);

const signsOf = (run: string) => eventsOf(run, 'warning').map(({ sign }) => sign);

/** What happened, without times and measurements of the machine. */
const story = (run: string) =>
  readMetrics(join(run, 'metrics.jsonl')).map((event) =>
    JSON.stringify(event, (key, value) => (['time', 'seconds', 'tokensPerSecond', 'dataWait', 'memory'].includes(key) ? undefined : value)),
  );

const bytesOf = (run: string, file = 'model.safetensors') => readFileSync(join(run, 'checkpoints', 'stage', file)).toString('base64');

/**
 * More than a moment of each kind takes long: `LLAVA_GEMMA_KILLS=30 npx vitest run tests/trust.test.ts -t
 * 'random|keeps'`.
 */
const RANDOM_KILLS = Number(process.env.LLAVA_GEMMA_KILLS ?? 0);

/** Starts a run in a process of its own and kills it as soon as its status matches `moment`. */
async function killAt(moment: RegExp, words: readonly string[]): Promise<void> {
  const { child, outcome } = spawnCli(['train', ...words]);
  let seen = '';
  child.stderr!.on('data', (text: string) => {
    seen += text;
    if (moment.test(seen)) child.kill('SIGKILL');
  });
  expect((await outcome).code, seen).toBeNull();
}

beforeAll(async () => {
  const leave = await enterToyFolder();
  writeFileSync('first.yaml', stringify({ ...rest, data, model, stages: [rest.stages[0]] }));
  await train('first.yaml', '--out', 'first');
  return leave;
}, 180_000);

describe('rates by module and pattern', () => {
  it('are what the first step moves weights by', async () => {
    const rates = { vision_tower: 1e-3, 'multi_modal_projector.linear_1': 3e-4, 'language_model.*.q_proj': 2e-3, '*.norm': 5e-3 };
    writeRecipe('rates.yaml', {
      train: ['vision_tower', 'multi_modal_projector', 'language_model'],
      steps: 1,
      lr: 1e-4,
      lr_by_module: rates,
      weight_decay: 0.1,
      weight_decay_by_module: { 'language_model.*.embed_tokens': 0, 'language_model.*.k_proj': 0.5 },
    });
    await train('rates.yaml', '--out', 'rates');
    const [before, after] = [await tensorsOf(first), await tensorsOf(join('rates', 'checkpoints', 'stage'))];
    const expected = (name: string) => {
      if (name.startsWith('vision_tower.')) return 1e-3;
      if (name.startsWith('multi_modal_projector.linear_1.')) return 3e-4;
      if (name.endsWith('.q_proj.weight')) return 2e-3;
      return name.endsWith('.norm.weight') ? 5e-3 : 1e-4;
    };
    const decay = (name: string) =>
      name.includes('embed_tokens') ? 0 : name.endsWith('k_proj.weight') && !/vision/.test(name) ? 0.5 : 0.1;
    const isMatrix = (name: string) => !/bias|norm|class_embedding/.test(name);
    const seen = new Set<number>();
    for (const [name, values] of after) {
      const old = before.get(name)!;
      // the last layer of the encoder, which is not used, has no gradient
      if (values.every((value, i) => value === old[i])) continue;
      const kept = isMatrix(name) ? 1 - expected(name) * decay(name) : 1;
      // Adam's first step has the size of the rate wherever there is a gradient to speak of
      const moved = values.reduce((most, value, i) => Math.max(most, Math.abs(value - kept * old[i])), 0);
      // a matrix that is only decayed moves by nothing else
      if (moved < 1e-7) continue;
      expect(Math.abs(moved / expected(name) - 1), `${name}: ${moved}`).toBeLessThan(0.01);
      seen.add(expected(name));
    }
    expect([...seen].sort()).toEqual([1e-3, 1e-4, 2e-3, 3e-4, 5e-3].sort());
    // the table, and the event that the report is made from
    const [{ groups }] = eventsOf('rates', 'trains');
    expect(groups.map(({ name, learningRate, weightDecay }) => [name, learningRate, weightDecay])).toEqual(
      expect.arrayContaining([
        ['vision_tower', 1e-3, 0.1],
        ['language_model, language_model.*.q_proj', 2e-3, 0.1],
        ['language_model, language_model.*.k_proj', 1e-4, 0.5],
        ['multi_modal_projector', 1e-4, 0.1],
      ]),
    );
    expect(readFileSync('rates/report.html', 'utf8')).toContain('language_model, language_model.*.q_proj');
    // what the log says of the movement is what the weights say
    const [{ modules }] = eventsOf('rates', 'step');
    const norm = (of: (name: string, i: number, value: number) => number) =>
      Math.sqrt(
        [...after].reduce((sum, [name, v]) => sum + (/^multi/.test(name) ? v.reduce((s, x, i) => s + of(name, i, x) ** 2, 0) : 0), 0),
      );
    const ratio = norm((name, i, value) => value - before.get(name)![i]) / norm((name, i) => before.get(name)![i]);
    expect(modules!.multi_modal_projector.updateRatio).toBeCloseTo(ratio, 6);
    expect(modules!.language_model.gradNorm).toBeGreaterThan(0);
  });
});

describe('a watched stage', () => {
  const watched = {
    held_out: { samples: 20, every: 2 },
    keep_best: true,
    keep_checkpoints: 2,
    ema_decay: 0.5,
    save_every: 1,
    train: ['multi_modal_projector'],
    lora: { rank: 4, alpha: 8, dropout: 0.2 },
  };
  const evaluate = { splits: ['unseen-artist'], max_new_tokens: 2, every: 3, questions: 3 };
  const write = (file: string, changes: object, scoring: object | undefined = evaluate) =>
    writeFileSync(
      file,
      stringify({
        ...rest,
        data,
        model: { llava: first },
        stages: [{ ...stage, data: 'questions', ...changes }],
        ...(scoring ? { evaluate: scoring } : {}),
      }),
    );

  beforeAll(async () => {
    write('watched.yaml', watched);
    await train('watched.yaml', '--out', 'watched');
  });

  it('has its held-out loss and its scores in the log', () => {
    const heldOut = eventsOf('watched', 'held-out');
    expect(heldOut.map(({ step }) => step)).toEqual([0, 2, 4, 6]);
    for (const { loss, samples, imageGain } of heldOut) {
      expect(loss).toBeGreaterThan(0);
      expect(samples).toBeGreaterThanOrEqual(20);
      expect(Number.isFinite(imageGain)).toBe(true);
    }
    expect(heldOut[3].loss).toBeLessThan(heldOut[0].loss);
    const scored = eventsOf('watched', 'evaluation');
    expect(scored.map(({ step }) => step)).toEqual([3, 6]);
    const questions = (i: number) => Object.values(scored[i].scores['unseen-artist']).reduce((sum, { n }) => sum + n, 0);
    expect(questions(0)).toBe(3);
    expect(questions(1)).toBeGreaterThan(3);
    const { dataWait, memory, modules } = eventsOf('watched', 'step')[0];
    expect(dataWait).toBeGreaterThanOrEqual(0);
    expect(memory!.rssMb).toBeGreaterThan(10);
    if (process.platform === 'linux') expect(memory!.anonymousMb).toBeLessThan(memory!.rssMb);
    expect(Object.keys(modules!).sort()).toEqual(['language_model', 'multi_modal_projector']);
    expect(readFileSync('watched/report.html', 'utf8')).toContain('samples held out');
    expect(signsOf('watched')).toEqual([]);
  });

  it('keeps the last checkpoints and the best model, and folders that others read', async () => {
    expect(readdirSync('watched/checkpoints').sort()).toEqual(['stage', 'stage-best', 'stage-step-000004', 'stage-step-000005']);
    const stateOf = (name: string) => JSON.parse(readFileSync(join('watched/checkpoints', name, 'trainer_state.json'), 'utf8'));
    expect(stateOf('stage-step-000004').step).toBe(4);
    const best = eventsOf('watched', 'held-out').toSorted((a, b) => a.loss - b.loss)[0];
    expect(stateOf('stage-best')).toMatchObject({ step: best.step, heldOutLoss: best.loss });
    // the loss fell to the end: the best is what the stage ended with, both averages
    expect(best.step).toBe(6);
    expect(await tensorsOf('watched/checkpoints/stage-best')).toEqual(await tensorsOf('watched/checkpoints/stage'));
    const { code, stderr } = await cli('info', 'watched/checkpoints/stage-best');
    expect(code, stderr).toBe(0);
  });

  it('ends with the same bits, the same story and the same folders, wherever it was killed', async () => {
    const moments = [
      /stage {2}step 1\//,
      /step 2: held-out/,
      /stage {2}step 3\//,
      /step 3: right answers/,
      /stage {2}step 5\//,
      /answering/,
    ];
    for (const [i, moment] of moments.entries())
      await killAt(moment, i === 0 ? ['watched.yaml', '--out', 'killed'] : ['--resume', '--out', 'killed']);
    await train('--resume', '--out', 'killed');
    for (const file of ['model.safetensors', 'adapter/adapter_model.safetensors'])
      expect(bytesOf('killed', file)).toBe(bytesOf('watched', file));
    expect(story('killed')).toEqual(story('watched'));
    expect(readdirSync('killed/checkpoints').sort()).toEqual(readdirSync('watched/checkpoints').sort());
  }, 120_000);

  it.runIf(RANDOM_KILLS > 0)(
    'ends with the same bits wherever it was killed: at random moments',
    async () => {
      const random = createRandom(1, 'kills');
      const began = performance.now();
      await train('watched.yaml', '--out', 'timed');
      const whole = performance.now() - began;
      const out = 'random';
      let kills = 0;
      const isSame = () => {
        for (const file of ['model.safetensors', 'adapter/adapter_model.safetensors'])
          expect(bytesOf(out, file), `after ${kills} kills`).toBe(bytesOf('watched', file));
      };
      while (kills < RANDOM_KILLS) {
        const words = existsSync(join(out, 'recipe.yaml')) ? ['--resume', '--out', out] : ['watched.yaml', '--out', out, '--overwrite'];
        const { child, outcome } = spawnCli(['train', ...words]);
        const timer = setTimeout(() => child.kill('SIGKILL'), random.uniform() * whole);
        const { code, stderr } = await outcome;
        clearTimeout(timer);
        if (code === null) kills++;
        else {
          expect(code, stderr).toBe(0);
          isSame();
          rmSync(out, { recursive: true });
        }
      }
      await train(...(existsSync(join(out, 'recipe.yaml')) ? ['--resume'] : ['watched.yaml', '--overwrite']), '--out', out);
      isSame();
    },
    60_000 + 30_000 * RANDOM_KILLS,
  );

  it('trains the same, measured or not', async () => {
    const { keep_best: _, keep_checkpoints: __, ...bare } = watched;
    write('bare.yaml', { ...bare, held_out: { samples: 20, every: 1000 }, save_every: 0 }, undefined);
    await train('bare.yaml', '--out', 'bare');
    expect(bytesOf('bare')).toBe(bytesOf('watched'));
  });

  it('goes on from a kept checkpoint that is put in its place, and measures what was not measured then', async () => {
    writeFileSync('killed/summary.json', '');
    rmSync('killed/checkpoints/stage', { recursive: true });
    renameSync('killed/checkpoints/stage-step-000004', 'killed/checkpoints/stage');
    const lines = readFileSync('killed/metrics.jsonl', 'utf8').split('\n');
    const stopped = lines.findIndex((line) => line.includes('"held-out"') && line.includes('"step":4'));
    writeFileSync('killed/metrics.jsonl', `${lines.slice(0, stopped).join('\n')}\n`);
    await train('--resume', '--out', 'killed');
    expect(bytesOf('killed')).toBe(bytesOf('watched'));
    expect(story('killed')).toEqual(story('watched'));
  });

  it.skipIf(process.platform === 'win32')('on a disk that fills up has the last checkpoint, and goes on from it', async () => {
    // a limit on file size makes a write fail as a full disk does; moments of wide adapters are beyond it
    const wide = { train: [], lora: { rank: 64, alpha: 8, dropout: 0.1 }, save_every: 1, held_out: undefined, ema_decay: undefined };
    write('wide.yaml', wide, undefined);
    await train('wide.yaml', '--out', 'wide');
    await killAt(/stage {2}step 3\//, ['wide.yaml', '--out', 'full']);
    const stepOf = () => JSON.parse(readFileSync('full/checkpoints/stage/trainer_state.json', 'utf8')).step as number;
    const step = stepOf();
    expect(step).toBeGreaterThanOrEqual(2);
    const limited = ['-c', 'ulimit -f 100; exec "$@"', 'sh', process.execPath, bin, 'train', '--resume', '--out', 'full'];
    const { status, stderr } = spawnSync('bash', limited, { encoding: 'utf8', env: { ...process.env, DEBUG: '' } });
    expect(status, stderr).toBe(1);
    expect(stderr.trim().split('\n').at(-1)).toMatch(
      /^error: full\/checkpoints\/stage\.incomplete\/optimizer\.safetensors: cannot write it/,
    );
    expect(stepOf()).toBe(step);
    expect(readdirSync('full/checkpoints')).toEqual(['stage']);
    await train('--resume', '--out', 'full');
    expect(bytesOf('full')).toBe(bytesOf('wide'));
  });
});

it('an average of the weights is what the stage ends with', async () => {
  writeRecipe('plain.yaml', { steps: 3, save_every: 1, keep_checkpoints: 9 });
  writeRecipe('average.yaml', { steps: 3, ema_decay: 0.3 });
  await train('plain.yaml', '--out', 'plain');
  await train('average.yaml', '--out', 'average');
  const raw: Map<string, Float32Array>[] = [await tensorsOf(first)];
  for (const name of ['stage-step-000001', 'stage-step-000002', 'stage']) raw.push(await tensorsOf(join('plain/checkpoints', name)));
  const average = await tensorsOf('average/checkpoints/stage');
  // the decay grows: 2/11, 3/12, then 0.3
  const decays = [2 / 11, 3 / 12, 0.3];
  for (const [name, values] of average)
    values.forEach((value, i) => {
      const expected = decays.reduce((mean, decay, step) => decay * mean + (1 - decay) * raw[step + 1].get(name)![i], raw[0].get(name)![i]);
      if (Math.abs(value - expected) > 1e-6 * (1 + Math.abs(expected))) expect.unreachable(`${name} ${i}: ${value}, not ${expected}`);
    });
  expect(average).not.toEqual(raw[3]);
});

describe('signs of failure', () => {
  /** Conversations as a data file; where `images` are given, with pictures. */
  const write = (file: string, entries: { image?: string; answer: string }[]) =>
    writeFileSync(
      file,
      JSON.stringify(
        entries.map(({ image, answer }, i) => ({
          id: String(i),
          ...(image ? { image } : {}),
          conversations: [
            { from: 'human', value: `${image ? '<image>\n' : ''}What is it?` },
            { from: 'gpt', value: answer },
          ],
        })),
      ),
    );

  it('a connector that gets no gradient is named, and the run goes on', async () => {
    write(
      'text.json',
      ['a cat', 'a dog', 'a bee'].map((answer) => ({ answer })),
    );
    writeRecipe('text.yaml', { data: { data_path: 'text.json', image_folder: '.' }, steps: 22, lr: 1e-3 });
    const { code, stderr } = await cli('train', 'text.yaml', '--out', 'text');
    expect(code, stderr).toBe(0);
    expect(stderr).toContain('warning: stage stage, step 20: multi_modal_projector has had no gradient for 20 steps: it does not learn');
    expect(eventsOf('text', 'warning').map(({ sign, module, step }) => [sign, module, step])).toEqual([
      ['dead-gradient', 'multi_modal_projector', 20],
    ]);
    expect(readFileSync('text/report.html', 'utf8')).toContain('has had no gradient for 20 steps');
  });

  it('a model that looks past its pictures is named', async () => {
    const pictures = readdirSync('scenes/images/train');
    write(
      'same.json',
      pictures.slice(0, 12).map((name) => ({ image: `train/${name}`, answer: 'a picture' })),
    );
    writeRecipe('same.yaml', {
      data: { data_path: 'same.json', image_folder: 'scenes/images' },
      held_out: { samples: 4, every: 20 },
      steps: 20,
      lr: 1e-3,
    });
    const { code, stderr } = await cli('train', 'same.yaml', '--out', 'same');
    expect(code, stderr).toBe(0);
    expect(stderr).toMatch(/warning: stage stage, step 20: the model looks past its pictures: .* only -?[\d.e-]+ nats larger/);
    expect(signsOf('same')).toEqual(['image-ignored']);
  });

  it('a rate that is never reached is named before the first step', async () => {
    writeRecipe('slow.yaml', { steps: 2, warmup_steps: 50 });
    const { stderr } = await cli('train', 'slow.yaml', '--out', 'slow');
    expect(stderr).toContain(
      'warning: stage stage, step 0: the learning rate rises over 50 steps, and the stage has 2: it gets to 2 % of lr',
    );
  });

  it('none is seen in runs that are well', () => {
    for (const run of ['clip', 'gemma', 'first', 'rates', 'plain']) expect(signsOf(run), run).toEqual([]);
    expect(existsSync('clip/metrics.jsonl')).toBe(true);
  });
});
