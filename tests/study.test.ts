// Studies: what is shared computed once and to the bit, killed and gone on, in shares, with runs that become
// non-finite; plans; bad input.

import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { beforeAll, describe, expect, test, vi } from 'vitest';
import { stringify } from 'yaml';
import type { StudyPlan } from '../src/study/plan.ts';
import type { StudyResults } from '../src/study/results.ts';
import { cli, enterToyFolder, spawnCli } from './toy.ts';

vi.mock('../src/study/job.ts', async (original) => (await import('./in-process.ts')).jobsInThisProcess(original));
vi.mock('../src/train/run-process.ts', async () => ({ trainInProcess: (await import('./in-process.ts')).trainInThisProcess }));

const study = {
  name: 'toy',
  recipe: 'llava.yaml',
  set: ['stages.0.held_out={samples: 4, every: 4}', 'stages.0.steps=12', 'data.evaluation_scenes=3'],
  factors: [
    { name: 'stage 1', levels: ['yes', { label: 'no', drop: ['pretrain'] }] },
    { name: 'rate', field: 'stages.1.lr', levels: [0.01, 0.3] },
  ],
  seeds: 1,
} as const;

type File = Record<string, unknown>;

/** Writes a study file, the one above with changes. */
function write(name: string, changes: File = {}): string {
  writeFileSync(name, stringify({ ...study, ...changes }));
  return name;
}

const results = (out: string) => readFileSync(join(out, 'study.json'), 'utf8');
const weightsOf = (out: string) => readFileSync(join(out, 'checkpoints/finetune/model.safetensors')).toString('base64');

async function succeed(...words: string[]): Promise<string> {
  const { code, stdout, stderr } = await cli('study', ...words);
  expect(code, stderr).toBe(0);
  return stdout;
}

async function fail(...words: string[]): Promise<string> {
  const { code, stderr } = await cli('study', ...words);
  expect(code).toBe(1);
  expect(stderr.trim().split('\n')).toHaveLength(1);
  return stderr.trim();
}

beforeAll(async () => {
  const leave = await enterToyFolder();
  write('study.yaml');
  await succeed('study.yaml', '--out', 'whole');
  return leave;
}, 400_000);

describe('a study', () => {
  test('ends with results, costs and a page that loads nothing', () => {
    const { runs, scores, family, verdict, notMeasured } = JSON.parse(results('whole')) as StudyResults;
    expect(runs.map(({ cell, outcome }) => [cell, outcome])).toEqual(
      ['yes / 0.01', 'yes / 0.3', 'no / 0.01', 'no / 0.3'].map((cell) => [cell, 'finished']),
    );
    expect(runs[0].numbers['pretrain: held-out loss']).toBeLessThan(runs[0].numbers['pretrain: held-out loss at its start']);
    expect(scores[0].cells[0].baselines).toMatchObject({
      chance: expect.any(Number),
      blind: expect.any(Number),
      exchanged: expect.any(Number),
    });
    expect(family.map(({ label }) => label)).toEqual(['stage 1: yes -> no', 'rate: 0.01 -> 0.3', 'stage 1: no x rate: 0.3']);
    expect(verdict.join(' ')).toContain('Run noise was not measured');
    expect(notMeasured[0]).toContain('run noise');
    expect(results('whole')).not.toMatch(/seconds|whole/);
    const page = readFileSync('whole/study.html', 'utf8');
    expect(page).not.toMatch(/<script|https?:\/\/(?!www\.w3\.org)/);
    for (const part of ['Verdict', 'Effects and interactions', 'Cells in pairs', 'Health of the runs', 'What was not measured'])
      expect(page).toContain(part);
  });

  test('trains to the bits of train, also what begins with shared stages', async () => {
    expect(readdirSync('whole/pieces').filter((name) => name.startsWith('stages-'))).toHaveLength(1);
    for (const [run, set] of [
      ['0-yes-0-01-seed-42', 'stages.1.lr=0.01'],
      ['1-yes-0-3-seed-42', 'stages.1.lr=0.3'],
    ]) {
      const { code, stderr } = await cli('train', `whole/runs/${run}/recipe.yaml`, '--set', set, '--out', `alone-${run}`);
      expect(code, stderr).toBe(0);
      expect(weightsOf(`whole/runs/${run}`)).toBe(weightsOf(`alone-${run}`));
    }
  }, 400_000);

  test('that is killed again and again goes on to the same results', async () => {
    let kills = 0;
    for (let moment = 1; !existsSync('killed/study.json'); moment++) {
      const { child, outcome } = spawnCli(['study', 'study.yaml', '--out', 'killed']);
      let lines = 0;
      child.stderr!.on('data', (text: string) => {
        lines += text.split('\n').length - 1;
        // later in each sitting: right after a piece has ended, and while others are going on
        if (lines >= 2 + (moment % 3) && child.kill('SIGKILL')) kills++;
      });
      await outcome;
      expect(moment).toBeLessThan(20);
    }
    expect(kills).toBeGreaterThanOrEqual(2);
    expect(results('killed')).toBe(results('whole'));
  }, 400_000);

  test('in shares is the same once they are put together, and says which share is missing', async () => {
    await succeed('study.yaml', '--shard', '1/2', '--out', 'first');
    expect(await fail('study.yaml', '--merge', 'first', '--out', 'merged')).toContain('share 2/2 is missing');
    await succeed('study.yaml', '--shard', '2/2', '--out', 'second');
    expect(await fail('study.yaml', '--merge', 'first', '--merge', 'first', '--out', 'merged')).toContain('share 1/2 was given twice');
    await succeed('study.yaml', '--merge', 'second', '--merge', 'first', '--out', 'merged');
    expect(results('merged')).toBe(results('whole'));
  }, 400_000);

  test('goes on where a run becomes non-finite, and records it', async () => {
    const path = write('diverging.yaml', { factors: [{ name: 'rate', field: 'stages.0.lr', levels: [0.01, 1e30] }] });
    const said = await succeed(path, '--out', 'diverging');
    const { runs } = JSON.parse(results('diverging')) as StudyResults;
    expect(runs.map(({ outcome }) => outcome)).toEqual(['finished', 'diverged']);
    expect(runs[1].diverged).toMatchObject({ stage: 'pretrain' });
    expect(said).toContain('1 of 2 runs became non-finite');
  }, 400_000);

  test('of shares of a stage says how the loss falls, or that it does not know', async () => {
    const path = write('convergence.yaml', { factors: [], convergence: { stage: 'pretrain', shares: [0, 0.25, 0.5, 1] } });
    await succeed(path, '--out', 'convergence');
    const { convergence, verdict } = JSON.parse(results('convergence')) as StudyResults;
    expect(convergence!.arms[0].points.map(({ n }) => n)).toEqual([3, 6, 12]);
    expect(convergence!.arms[0].fit!.notIdentified).toContain('3 sizes');
    expect(convergence!.transfer[0].points).toHaveLength(4);
    expect(verdict.join(' ')).toContain('not identified');
  }, 400_000);
});

test('a plan says what is shared, how long it takes and what can be seen, and trains nothing', async () => {
  const stage1 = { name: 'stage 1', levels: ['yes', { label: 'no', drop: ['pretrain'] }] };
  const rates = { name: 'rate', field: 'stages.1.lr', levels: [0.01, 0.02] };
  const cells = [
    { 'stage 1': 'yes', rate: 0.01 },
    { 'stage 1': 'yes', rate: 0.02 },
    { 'stage 1': 'no', rate: 0.01 },
  ];
  const path = write('three-cells.yaml', { seeds: 2, factors: [stage1, rates], design: { cells } });
  const plan = JSON.parse(await succeed(path, '--plan', '--json')) as StudyPlan;
  expect(plan).toMatchObject({ cells: 3, seeds: 2, runs: 6, shared: { stages: 2, runsThatBeginShared: 4 } });
  expect(plan.seconds.total).toBeGreaterThan(1);
  expect(plan.seconds.alone).toBeGreaterThan(plan.seconds.total);
  expect(plan.power[0].byRunSd[2].effect).toBeGreaterThan(plan.power[0].fromQuestions);
  expect(existsSync('runs')).toBe(false);
}, 400_000);

test('what is wrong is said in one sentence', async () => {
  const factor = (field: string, levels: unknown[]) => ({ factors: [{ name: 'depth', field, levels }] });
  const cases: [File, string][] = [
    [
      factor('model.conector', ['linear', 'mlp4x_gelu']),
      'factor depth, level linear: the recipe: unknown field model.conector; did you mean connector?',
    ],
    [factor('model.connector', ['linear', 'deep']), 'factor depth, level deep: the recipe: model.connector'],
    [factor('stages.7.lr', [1, 2]), 'factor depth, level 1: --set stages.7.lr=1: stages is a list of 2'],
    [{ seeds: undefined }, 'a study needs seeds: how many runs each cell has'],
    [{ seeds: [] }, 'a study needs seeds'],
    [
      { factors: [{ name: 'stage 1', levels: ['yes', { label: 'no', drop: ['pretraining'] }] }] },
      'there is no stage pretraining; there are pretrain, finetune',
    ],
    [{ factors: [{ name: 'x', levels: ['a', 'b'] }] }, 'levels a and b change nothing'],
    [{ family: { comparisons: ['encoder'] } }, 'there is no factor encoder; there are stage 1, rate'],
    [
      {
        design: {
          cells: [
            { 'stage 1': 'maybe', rate: 0.01 },
            { 'stage 1': 'yes', rate: 0.01 },
          ],
        },
      },
      'factor stage 1 has no level maybe; there are yes, no',
    ],
    [{ family: { scores: ['unseen'] } }, 'family.scores: nothing is called unseen; there are unseen-artist'],
    [{ score: { benchmarks: [{ name: 'pop', data: '.' }] } }, 'pop'],
    [{ recipe: 'none.yaml' }, 'there is nothing at none.yaml'],
    [{ recipe: 'clip.yaml', set: [], score: {} }, 'task'],
  ];
  for (const [changes, message] of cases) expect(await fail(write('bad.yaml', changes), '--plan')).toContain(message);
  expect(await fail(write('other.yaml', { seeds: 3 }), '--out', 'whole')).toContain('whole: holds another study (other seeds)');
  expect(await fail('study.yaml', '--out', 'clip')).toContain('which is of no study');
  expect(await fail('study.yaml', '--out', 'whole', '--shard', '1/2')).toContain('holds the whole of the study, not share 1/2');
});
