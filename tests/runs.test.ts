// What happens to a run folder when things go wrong: a second writer, an error in the middle of a stage, a
// terminal that closes, data that change between two sittings.
import { execFileSync } from 'node:child_process';
import { copyFileSync, existsSync, mkdirSync, readdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { beforeAll, describe, expect, it } from 'vitest';
import { stringify } from 'yaml';
import { openMetrics, readMetrics } from '../src/runs/metrics.ts';
import { readRecipe } from '../src/train/recipe.ts';
import { holdingScenes } from '../src/train/scenes.ts';
import { cli, enterToyFolder, recipes, spawnCli } from './toy.ts';

const stages = ['pretrain', 'finetune'];

const weights = (out: string, names = stages) =>
  names.map((name) => readFileSync(join(out, 'checkpoints', name, 'model.safetensors')).toString('base64'));

const stateOf = (out: string, stage: string) => JSON.parse(readFileSync(join(out, 'checkpoints', stage, 'trainer_state.json'), 'utf8'));

async function train(...words: string[]): Promise<string> {
  const { code, stderr } = await cli('train', ...words);
  expect(code, stderr).toBe(0);
  return stderr;
}

async function refused(...words: string[]): Promise<string> {
  const { code, stderr } = await cli('train', ...words);
  expect(code, stderr).toBe(1);
  return stderr;
}

/** Starts a run in its own process; `act` is called once, when its status matches `moment`. */
function startUntil(moment: RegExp, words: readonly string[], act: (child: ReturnType<typeof spawnCli>['child']) => void) {
  const { child, outcome } = spawnCli(['train', ...words]);
  let seen = '';
  let acted = false;
  child.stderr!.on('data', (text: string) => {
    seen += text;
    if (acted || !moment.test(seen)) return;
    acted = true;
    act(child);
  });
  return outcome;
}

beforeAll(async () => {
  const leave = await enterToyFolder();
  const { evaluate: _, data: __, ...rest } = recipes.llava;
  await train('llava.yaml', '--out', 'drawn');
  const files = { captions: 'captions.json', questions: 'questions.json' };
  copyFileSync('scenes/train_captions.json', files.captions);
  copyFileSync('scenes/train_questions.json', files.questions);
  const own = rest.stages.map((stage) => ({
    ...stage,
    steps: 6,
    data: { data_path: files[stage.data], image_folder: 'scenes/images' },
  }));
  writeFileSync('own.yaml', stringify({ ...rest, stages: own }));
  await train('own.yaml', '--out', 'straight');
  return leave;
}, 180_000);

describe('a run folder', () => {
  it('has one writer at a time', async () => {
    let others: Promise<string[]> | undefined;
    const { code } = await startUntil(/pretrain {2}step +2\//, ['own.yaml', '--out', 'one', '--set', 'stages.0.steps=100000'], (child) => {
      const second = async () => {
        const said = [await refused('--resume', '--out', 'one'), await refused('own.yaml', '--out', 'one', '--overwrite')];
        child.kill('SIGTERM');
        return said;
      };
      others = second();
    });
    expect(code).toBe(130);
    for (const said of await others!)
      expect(said).toMatch(/error: one: a run is going on there \(process \d+ on .*\); wait for it or stop it/);
    expect(stateOf('one', 'pretrain').step).toBeGreaterThan(1);
    expect(readdirSync('one').filter((name) => name.startsWith('run.lock'))).toEqual([]);
  });

  it('goes to one of two that resume it at once', async () => {
    await startUntil(/finetune {2}step +3\//, ['own.yaml', '--out', 'two', '--set', 'stages.1.save_every=1'], (child) =>
      child.kill('SIGKILL'),
    );
    const both = await Promise.all([1, 2].map(() => spawnCli(['train', '--resume', '--out', 'two']).outcome));
    expect(both.map(({ code }) => code).sort()).toEqual([0, 1]);
    expect(both.find(({ code }) => code === 1)!.stderr).toMatch(/error: two: a run is going on there/);
    expect(weights('two')).toEqual(weights('straight'));
  });

  it('keeps its scenes while it is on', async () => {
    const reading = readRecipe(stringify(recipes.llava), 'llava.yaml', []);
    const questions = () => readFileSync('scenes/train_questions.json', 'utf8');
    const before = questions();
    await holdingScenes(reading, { note: () => {} }, async () => {
      const said = await refused('llava.yaml', '--out', 'three', '--set', 'seed=43');
      expect(said).toMatch(/error: scenes: a run is going on with other scenes there/);
    });
    expect(questions()).toBe(before);
  });

  it('that cannot be written is named', async () => {
    writeFileSync('file', '');
    expect(await refused('own.yaml', '--out', 'file/run')).toBe('error: file/run: what it is said to lie in is no folder\n');
    mkdirSync('no-recipe/recipe.yaml', { recursive: true });
    expect(await refused('--resume', '--out', 'no-recipe')).toBe('error: no-recipe/recipe.yaml: it is a folder\n');
    mkdirSync('with-folder/metrics.jsonl', { recursive: true });
    writeFileSync('with-folder/recipe.yaml', readFileSync('own.yaml'));
    expect(await refused('--resume', '--out', 'with-folder')).toMatch(/error: with-folder\/metrics.jsonl: it is a folder\n$/);
  });

  it.runIf(existsSync('/dev/full'))('on a full disk is named', () => {
    symlinkSync('/dev/full', 'metrics-full');
    const metrics = openMetrics('metrics-full');
    expect(() => metrics.write({ type: 'stage', stage: 's', step: 1, seconds: 1, firstLoss: 1, lastLoss: 1 })).toThrow(
      'metrics-full: the disk is full',
    );
    metrics.close();
  });
});

describe('what was good is saved', () => {
  it('when the terminal is closed', async () => {
    const { code, stderr } = await startUntil(/finetune {2}step +2\//, ['own.yaml', '--out', 'hung-up'], (child) => child.kill('SIGHUP'));
    expect(code, stderr).toBe(130);
    const { step } = stateOf('hung-up', 'finetune');
    expect(step).toBeGreaterThan(1);
    expect(step).toBeLessThan(6);
    await train('--resume', '--out', 'hung-up');
    expect(weights('hung-up')).toEqual(weights('straight'));
  });

  it('when nobody reads what the run says', async () => {
    const { code } = await startUntil(
      /finetune {2}step +2\//,
      ['own.yaml', '--out', 'unread', '--set', 'stages.1.steps=100000'],
      (child) => {
        child.stderr!.destroy();
        child.stdout!.destroy();
      },
    );
    expect(code).toBe(130);
    expect(stateOf('unread', 'finetune').step).toBeGreaterThan(1);
  });

  it('when a gradient is not finite, with the losses before', async () => {
    const stderr = await refused('own.yaml', '--out', 'diverged', '--set', 'stages.1.lr=1e30', '--set', 'stages.1.warmup_steps=0');
    const step = Number(/the gradient of .* is not finite \(norm .*\) at step (\d+)/.exec(stderr)?.[1]);
    expect(step, stderr).toBeGreaterThan(1);
    expect(stateOf('diverged', 'finetune').step).toBe(step - 1);
    expect(stderr).toMatch(
      new RegExp(`stage finetune ends after step ${step - 1} \\(last losses: [\\d., ]+\\); it is saved, --resume goes on`),
    );
    expect(stderr).toContain('in recipe.yaml of the run folder');
    const signs = readMetrics('diverged/metrics.jsonl').flatMap((event) => (event.type === 'warning' ? [[event.sign, event.step]] : []));
    expect(signs).toContainEqual(['not-finite', step]);
  });

  it('or said to be lost', async () => {
    const { code, stderr } = await startUntil(/pretrain {2}step +2\//, ['own.yaml', '--out', 'no-room'], (child) => {
      writeFileSync('no-room/checkpoints', '');
      child.kill('SIGINT');
    });
    expect(code, stderr).toBe(130);
    expect(stderr).toMatch(/what was trained since the last checkpoint is lost: no-room\/checkpoints\/pretrain: cannot/);
  });

  it('every so many minutes, unless the recipe says otherwise', async () => {
    const kill = (child: { kill(signal: 'SIGKILL'): void }) => child.kill('SIGKILL');
    const often = ['--set', 'stages.0.save_every_minutes=1e-6'];
    await startUntil(/pretrain {2}step +3\//, ['own.yaml', '--out', 'often', ...often], kill);
    expect(stateOf('often', 'pretrain').step).toBeGreaterThan(1);
    await startUntil(/pretrain {2}step +3\//, ['own.yaml', '--out', 'never', '--set', 'stages.0.steps=100000'], kill);
    expect(existsSync('never/checkpoints')).toBe(false);
    expect(readFileSync('never/recipe.yaml', 'utf8')).toContain('save_every_minutes: 15\n');
  });
});

it('that is stopped before it begins does not say how to go on', async () => {
  const before = process.listenerCount('SIGINT');
  const outcome = cli('train', 'own.yaml', '--out', 'early');
  while (process.listenerCount('SIGINT') === before) await new Promise((resolve) => setImmediate(resolve));
  process.emit('SIGINT');
  const { code, stderr } = await outcome;
  expect(code).toBe(130);
  expect(stderr.trim().split('\n').at(-1)).toBe('interrupted; nothing was trained yet');
  expect(existsSync('early')).toBe(false);
});

describe('a resumed run', () => {
  const stopped = (out: string, moment: RegExp) => startUntil(moment, ['own.yaml', '--out', out], (child) => child.kill('SIGINT'));

  it('is refused over data that have changed in the stage that it is in', async () => {
    const before = readFileSync('questions.json', 'utf8');
    await stopped('changed', /finetune {2}step +2\//);
    writeFileSync('questions.json', before.replace('yes', 'no'));
    expect(await refused('--resume', '--out', 'changed')).toMatch(
      /error: questions\.json has changed since stage finetune began, of which \d steps are done: put it back as it was, or start another run/,
    );
    writeFileSync('questions.json', before);
    // the same for what makes a batch of them, and for the models below
    const recipe = readFileSync('changed/recipe.yaml', 'utf8');
    for (const [field, before, now] of [
      ['batch_size', 'batch_size: 8', 'batch_size: 4'],
      ['max_length', /max_length: 160/g, 'max_length: 150'],
      ['shares', /share: 1/g, 'share: 0.5'],
      ['train', /multi_modal_projector\n +- (?=language_model)/, ''],
      ['model', 'vision_feature_layer: -2', 'vision_feature_layer: -1'],
    ] as const) {
      const changed = recipe.replace(before, now);
      expect(changed, field).not.toBe(recipe);
      writeFileSync('changed/recipe.yaml', changed);
      expect(await refused('--resume', '--out', 'changed')).toContain(
        `error: ${field} of the recipe has changed since stage finetune began`,
      );
    }
    writeFileSync('changed/recipe.yaml', recipe);
    const config = readFileSync('clip/checkpoints/clip/config.json', 'utf8');
    writeFileSync('clip/checkpoints/clip/config.json', `${config} `);
    expect(await refused('--resume', '--out', 'changed')).toContain('clip/checkpoints/clip/config.json has changed');
    writeFileSync('clip/checkpoints/clip/config.json', config);
    await train('--resume', '--out', 'changed');
    expect(weights('changed')).toEqual(weights('straight'));
  });

  it('says so where the data of a stage to come have changed', async () => {
    const before = readFileSync('questions.json', 'utf8');
    await stopped('to-come', /pretrain {2}step +2\//);
    writeFileSync('questions.json', before.replaceAll('yes', 'no'));
    expect(await train('--resume', '--out', 'to-come')).toContain(
      'questions.json has changed since the run began: stage finetune will read it as it is now',
    );
    expect(weights('to-come', ['pretrain'])).toEqual(weights('straight', ['pretrain']));
    expect(weights('to-come', ['finetune'])).not.toEqual(weights('straight', ['finetune']));
    writeFileSync('questions.json', before);
  });

  it('reads a lower learning rate from the recipe of its folder', async () => {
    await stopped('slower', /finetune {2}step +2\//);
    const recipe = readFileSync('slower/recipe.yaml', 'utf8');
    // in UTF-8 alone, and from where a checkpoint says
    writeFileSync('slower/recipe.yaml', Buffer.from(`${recipe}# für später\n`, 'latin1'));
    expect(await refused('--resume', '--out', 'slower')).toContain('slower/recipe.yaml: line');
    writeFileSync('slower/recipe.yaml', recipe);
    const file = join('slower', 'checkpoints', 'finetune', 'trainer_state.json');
    const state = readFileSync(file);
    for (const wrong of ['{}', 'null']) {
      writeFileSync(file, wrong);
      expect(await refused('--resume', '--out', 'slower')).toContain(`error: ${file}: does not say where its stage stands`);
    }
    writeFileSync(file, state);
    writeFileSync('slower/recipe.yaml', recipe.replaceAll('lr: 0.01', 'lr: 0.001'));
    await train('--resume', '--out', 'slower');
    expect(weights('slower', ['finetune'])).not.toEqual(weights('straight', ['finetune']));
  });
});

describe('bad samples', () => {
  type Line = { stage: string; sample: string; image?: string; reason: string };
  const skipped = (out: string): Line[] =>
    readFileSync(join(out, 'skipped.jsonl'), 'utf8')
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line));
  const recipe = (stage: object) => {
    const { evaluate: _, data: __, ...rest } = recipes.llava;
    const data = { data_path: 'mixed.json', image_folder: 'mixed' };
    return stringify({
      ...rest,
      stages: [{ ...rest.stages[1], name: 'only', steps: undefined, epochs: 2, save_every: 1, data, ...stage }],
    });
  };

  beforeAll(() => {
    const samples = JSON.parse(readFileSync('questions.json', 'utf8')).slice(0, 20);
    mkdirSync('mixed');
    for (const [i, sample] of samples.entries()) {
      copyFileSync(join('scenes/images', sample.image), `mixed/${i}.png`);
      Object.assign(sample, { id: `sample ${i}`, image: `${i}.png` });
    }
    const cut = readFileSync('mixed/3.png');
    for (const i of [3, 4]) writeFileSync(`mixed/${i}.png`, cut.subarray(0, cut.length / 2));
    writeFileSync('mixed.json', JSON.stringify(samples));
    writeFileSync('mixed.yaml', recipe({}));
    // a trained encoder decodes pictures batch by batch
    writeFileSync('decoded.yaml', recipe({ train: ['vision_tower', 'multi_modal_projector'], batch_size: 2 }));
    const worse = samples.map((sample: { conversations: { value: string }[] }, i: number) => {
      const [question, answer] = sample.conversations;
      if (i === 6) return { ...sample, conversations: [{ ...question, value: question.value + ' and so on'.repeat(100) }, answer] };
      if (i === 7) return { ...sample, conversations: [question] };
      return i === 8 ? { ...sample, image: 'gone.png' } : sample;
    });
    writeFileSync('worse.json', JSON.stringify(worse));
    writeFileSync('worse.yaml', recipe({ data: { data_path: 'worse.json', image_folder: 'mixed' }, on_bad_sample: 'skip' }));
  });

  it('end a run with file, sample and picture, and what was good is saved', async () => {
    expect(await refused('mixed.yaml', '--out', 'encoded')).toMatch(
      /error: mixed\.json: sample sample 3: mixed\/3\.png: cannot be read as an image/,
    );
    const stderr = await refused('decoded.yaml', '--out', 'decoded', '--set', 'stages.0.save_every=0');
    expect(stderr).toMatch(/error: mixed\.json: sample sample [34]: mixed\/[34]\.png: cannot be read as an image/);
    const [, step] = /stage only ends after step (\d+)/.exec(stderr) ?? [];
    expect(stateOf('decoded', 'only').step, stderr).toBe(Number(step));
    // put right, it goes on
    const pictures = [3, 4].map((i) => readFileSync(`mixed/${i}.png`));
    for (const i of [3, 4]) copyFileSync('mixed/0.png', `mixed/${i}.png`);
    await train('--resume', '--out', 'decoded');
    for (const [i, bytes] of pictures.entries()) writeFileSync(`mixed/${i + 3}.png`, bytes);
  });

  it('are left out and listed where the recipe says so, the same in a run that was stopped', async () => {
    for (const name of ['mixed', 'decoded']) {
      const skip = [`${name}.yaml`, '--set', 'stages.0.on_bad_sample=skip', '--out'];
      const stderr = await train(...skip, `${name}-skip`);
      expect(stderr).toContain(`stage only: 2 bad samples were left out; ${join(`${name}-skip`, 'skipped.jsonl')} lists them`);
      const lines = skipped(`${name}-skip`).sort((a, b) => a.sample.localeCompare(b.sample));
      expect(lines.map(({ stage, sample, image }) => [stage, sample, image])).toEqual([
        ['only', 'sample 3', 'mixed/3.png'],
        ['only', 'sample 4', 'mixed/4.png'],
      ]);
      expect(JSON.parse(readFileSync(`${name}-skip/summary.json`, 'utf8')).stages[0].skipped).toBe(2);
      await startUntil(/only {2}step +3\//, [...skip, `${name}-killed`], (child) => child.kill('SIGKILL'));
      await train('--resume', '--out', `${name}-killed`);
      expect(weights(`${name}-killed`, ['only'])).toEqual(weights(`${name}-skip`, ['only']));
      expect(skipped(`${name}-killed`)).toHaveLength(2);
    }
  });

  it('that are alone in their batch leave it to the samples of the next', async () => {
    await train('worse.yaml', '--out', 'alone', '--set', 'stages.0.batch_size=1');
    expect(stateOf('alone', 'only').step).toBe(40);
    expect(skipped('alone')).toHaveLength(5);
  });

  it('of every kind are known before the first step', async () => {
    await train('worse.yaml', '--out', 'worse', '--set', 'stages.0.epochs=0.1');
    const reasons = new Map(skipped('worse').map(({ sample, reason }) => [sample, reason]));
    expect(reasons.get('sample 6')).toContain('its first answer begins beyond the maximum length 160');
    expect(reasons.get('sample 7')).toContain('no gpt turn');
    expect(reasons.get('sample 8')).toContain('gone.png: there is no such file');
    expect(await refused('worse.yaml', '--out', 'first', '--set', 'stages.0.on_bad_sample=error')).toMatch(
      /error: worse\.json: sample sample 6: nothing of it would be trained: its first answer begins beyond .* \(and 2 more\) on_bad_sample: skip/,
    );
    expect(existsSync('first')).toBe(false);
  });

  it.skipIf(process.platform === 'win32')('whose picture is a pipe do not wait for somebody to write into it', async () => {
    execFileSync('mkfifo', ['mixed/pipe']);
    const samples = JSON.parse(readFileSync('mixed.json', 'utf8')).slice(8, 12);
    writeFileSync('pipe.json', JSON.stringify([{ ...samples[0], image: 'pipe' }, ...samples]));
    await train('worse.yaml', '--out', 'pipe', '--set', 'stages.0.data.data_path=pipe.json');
    expect(skipped('pipe').map(({ image, reason }) => [image, reason])).toEqual([
      ['mixed/pipe', 'mixed/pipe: it is a pipe or a device, not a file'],
    ]);
    expect(await refused('worse.yaml', '--out', 'from-pipe', '--set', 'stages.0.data.data_path=mixed/pipe')).toContain(
      'error: mixed/pipe: is a pipe or a device, and a data file is read again and again: write it to a file first',
    );
  });

  it('that are all there is end the run', async () => {
    writeFileSync('all.json', JSON.stringify(JSON.parse(readFileSync('mixed.json', 'utf8')).slice(3, 5)));
    const set = ['--set', 'stages.0.on_bad_sample=skip', '--set', 'stages.0.data.data_path=all.json'];
    expect(await refused('mixed.yaml', '--out', 'all', ...set)).toMatch(/stage only: not one of its samples can be trained on/);
  });
});
