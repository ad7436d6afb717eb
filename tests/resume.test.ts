// A run that is killed, interrupted or repeated ends with the same bits as one that was not; what a run
// leaves behind is complete.
import { existsSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { beforeAll, describe, expect, it } from 'vitest';
import { stringify } from 'yaml';
import type { MetricEvent } from '../src/runs/metrics.ts';
import { readMetrics } from '../src/runs/metrics.ts';
import { cli, enterToyFolder, recipes, spawnCli } from './toy.ts';

const stages = ['pretrain', 'finetune'];
const steps = 6;

/** The weights of every stage, as saved. */
const weights = (out: string, names = stages) =>
  names.map((name) => readFileSync(join(out, 'checkpoints', name, 'model.safetensors')).toString('base64'));

/** What happened, without times. */
const story = (out: string) =>
  readMetrics(join(out, 'metrics.jsonl')).map((event: MetricEvent) => {
    const { type, stage, step } = event;
    return {
      type,
      stage,
      step,
      ...(type === 'step' ? { loss: event.loss, gradNorm: event.gradNorm, learningRate: event.learningRate } : {}),
    };
  });

async function train(...words: string[]): Promise<void> {
  const { code, stderr } = await cli('train', ...words);
  expect(code, stderr).toBe(0);
}

/** Starts a run in its own process and sends it `signal` as soon as its status matches `moment`. */
async function stopAt(moment: RegExp, signal: NodeJS.Signals, words: readonly string[]) {
  const { child, outcome } = spawnCli(['train', ...words]);
  let seen = '';
  child.stderr!.on('data', (text: string) => {
    seen += text;
    // only once: a second Ctrl-C would end the run without saving
    if (!child.killed && moment.test(seen)) child.kill(signal);
  });
  return outcome;
}

beforeAll(async () => {
  const leave = await enterToyFolder();
  const { evaluate: _, ...rest } = recipes.llava;
  const saving = rest.stages.map((stage) => ({ ...stage, steps, save_every: 1 }));
  writeFileSync('saving.yaml', stringify({ ...rest, stages: saving }));
  await train('saving.yaml', '--out', 'straight');
  return leave;
}, 180_000);

describe('a killed run', () => {
  it('goes on to the same weights and the same story, wherever it was killed', async () => {
    const moments = [
      /pretrain {2}step 1\//,
      /pretrain {2}step 3\//,
      /pretrain {2}step 6\//,
      /finetune {2}step 1\//,
      /finetune {2}step 3\//,
    ];
    for (const [i, moment] of moments.entries()) {
      const { code } = await stopAt(moment, 'SIGKILL', i === 0 ? ['saving.yaml', '--out', 'killed'] : ['--resume', '--out', 'killed']);
      expect(code).toBeNull();
      expect(existsSync('killed/summary.json')).toBe(false);
    }
    await train('--resume', '--out', 'killed');
    expect(weights('killed')).toEqual(weights('straight'));
    expect(story('killed')).toEqual(story('straight'));
    expect(existsSync('killed/summary.json')).toBe(true);
  });

  it.each([2, 5])('goes on after being stopped between checkpoints, saved every %i steps', async (every) => {
    // the second stage of a finished run is trained again and killed
    const out = `every-${every}`;
    await train('saving.yaml', '--out', out, '--set', `stages.1.save_every=${every}`, '--set', 'stages.1.steps=6');
    rmSync(join(out, 'checkpoints', 'finetune'), { recursive: true });
    rmSync(join(out, 'summary.json'));
    const { code } = await stopAt(/finetune {2}step 5\//, 'SIGKILL', ['--resume', '--out', out]);
    expect([null, 0]).toContain(code);
    await train('--resume', '--out', out);
    expect(weights(out)).toEqual(weights('straight'));
    expect(story(out)).toEqual(story('straight'));
  });

  it('is found again when it was killed while one checkpoint took the place of another', async () => {
    await stopAt(/finetune {2}step 3\//, 'SIGKILL', ['saving.yaml', '--out', 'between']);
    const dir = join('between', 'checkpoints', 'finetune');
    expect(existsSync(dir) || existsSync(`${dir}.replaced`)).toBe(true);
    if (existsSync(dir)) renameSync(dir, `${dir}.replaced`);
    await train('--resume', '--out', 'between');
    expect(weights('between')).toEqual(weights('straight'));
    expect(story('between')).toEqual(story('straight'));
    expect(existsSync(`${dir}.replaced`)).toBe(false);
  });
});

describe('Ctrl-C', () => {
  it('saves, ends with 130 and says how to go on', async () => {
    const set = ['--set', 'stages.0.save_every=0', '--set', 'stages.1.save_every=0'];
    const { code, stderr } = await stopAt(/pretrain {2}step 2\//, 'SIGINT', ['saving.yaml', '--out', 'interrupted', ...set]);
    expect(code, stderr).toBe(130);
    expect(stderr).toContain('stopping as soon as');
    expect(stderr.trim().split('\n').at(-1)).toBe('interrupted; go on with: llava-gemma train --resume --out interrupted');
    await train('--resume', '--out', 'interrupted');
    expect(weights('interrupted')).toEqual(weights('straight'));
    expect(story('interrupted')).toEqual(story('straight'));
  });

  it('does not wait for the end of a step of many batches', async () => {
    const set = ['--set', 'stages.0.accumulation=60', '--set', 'stages.0.log_every=1', '--set', 'stages.0.steps=2'];
    await train('saving.yaml', '--out', 'slow-straight', ...set);
    const { code, stderr } = await stopAt(/pretrain {2}step 1\//, 'SIGINT', ['saving.yaml', '--out', 'slow', ...set]);
    expect(code, stderr).toBe(130);
    expect(stderr).not.toContain('step 2/2');
    await train('--resume', '--out', 'slow');
    expect(weights('slow')).toEqual(weights('slow-straight'));
    expect(story('slow')).toEqual(story('slow-straight'));
  });
});

describe('a finished run', () => {
  it('has a whole summary, and resuming it changes nothing but the times', async () => {
    await train('llava.yaml', '--out', 'scored');
    const summary = JSON.parse(readFileSync('scored/summary.json', 'utf8'));
    expect(summary.wallSeconds).toBeGreaterThan(0);
    expect(summary.peakRssMb).toBeGreaterThan(10);
    expect(summary.stages.map(({ name }: { name: string }) => name)).toEqual(stages);
    for (const stage of summary.stages) {
      expect(Object.keys(stage)).toEqual(['name', 'seconds', 'steps', 'firstLoss', 'lastLoss']);
      for (const key of ['seconds', 'steps', 'firstLoss', 'lastLoss']) expect(stage[key]).toBeGreaterThan(0);
    }
    expect(Object.keys(summary.scores)).toEqual(['unseen-artist']);
    for (const task of ['existence', 'count', 'name'])
      for (const key of ['accuracy', 'ciLow', 'ciHigh', 'blind', 'majority', 'n']) {
        expect(summary.scores['unseen-artist'][task][key], `${task} ${key}`).toBeGreaterThanOrEqual(0);
      }
    const before = { weights: weights('scored'), story: story('scored') };
    await train('--resume', '--out', 'scored');
    expect({ weights: weights('scored'), story: story('scored') }).toEqual(before);
    const after = JSON.parse(readFileSync('scored/summary.json', 'utf8'));
    expect(after.stages).toEqual(summary.stages);
    expect(after.scores).toEqual(summary.scores);
  });
});

describe('the seed', () => {
  it.each([
    ['clip', ['clip']],
    ['gemma', ['gemma']],
    ['llava', stages],
  ])('decides the weights of %s, bit by bit', async (name, names) => {
    if (name === 'llava') await train('llava.yaml', '--out', 'llava');
    await train(`${name}.yaml`, '--out', `${name}-again`);
    await train(`${name}.yaml`, '--out', `${name}-other`, '--set', 'seed=43', ...(name === 'llava' ? ['--set', 'data.folder=other'] : []));
    expect(weights(`${name}-again`, names)).toEqual(weights(name, names));
    expect(weights(`${name}-other`, names)).not.toEqual(weights(name, names));
  });
});
