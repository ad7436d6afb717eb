// What happens to a run folder when things go wrong: a second writer, an error in the middle of a stage, a
// terminal that closes, data that change between two sittings.
import { copyFileSync, existsSync, mkdirSync, readdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { beforeAll, describe, expect, it } from 'vitest';
import { stringify } from 'yaml';
import { openMetrics } from '../src/runs/metrics.ts';
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

  it('that cannot be written is named', async () => {
    writeFileSync('file', '');
    expect(await refused('own.yaml', '--out', 'file/run')).toBe('error: file/run: what it is said to lie in is no folder\n');
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
    const step = Number(/the gradient is not finite \(norm .*\) at step (\d+)/.exec(stderr)?.[1]);
    expect(step, stderr).toBeGreaterThan(1);
    expect(stateOf('diverged', 'finetune').step).toBe(step - 1);
    expect(stderr).toMatch(
      new RegExp(`stage finetune ends after step ${step - 1} \\(last losses: [\\d., ]+\\); it is saved, --resume goes on`),
    );
    expect(stderr).toContain('in recipe.yaml of the run folder');
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
    writeFileSync('changed/recipe.yaml', recipe.replace('batch_size: 8', 'batch_size: 4'));
    expect(await refused('--resume', '--out', 'changed')).toContain('which samples a step takes has changed');
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
    writeFileSync('slower/recipe.yaml', recipe.replaceAll('lr: 0.01', 'lr: 0.001'));
    await train('--resume', '--out', 'slower');
    expect(weights('slower', ['finetune'])).not.toEqual(weights('straight', ['finetune']));
  });
});
