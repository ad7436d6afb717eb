// Searches end to end: trials are runs of the ordinary trainer, and a search that is killed goes on to the
// same result.

import { existsSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { beforeAll, describe, expect, it, vi } from 'vitest';
import { stringify } from 'yaml';
import type { SearchReport } from '../src/search/search-report.ts';
import { cli, enterToyFolder, recipes, spawnCli } from './toy.ts';

vi.mock('../src/train/run-process.ts', async () => ({ trainInProcess: (await import('./in-process.ts')).trainInThisProcess }));

const search = {
  name: 'toy rates',
  recipe: 'llava.yaml',
  set: ['stages.0.held_out={samples: 4, every: 2}', 'stages.0.save_every=1'],
  space: { 'stages.0.lr': { choice: [0.01, 0.02, 1e30] }, 'stages.0.batch_size': { choice: [4, 2] } },
  objective: { held_out: 'pretrain' },
  budget: { trials: 3, samples: 12 },
  sampler: 'random',
  seed: 4,
  confirm: { seeds: 1 },
};

const resultOf = (out: string) => JSON.parse(readFileSync(join(out, 'search.json'), 'utf8')) as SearchReport;

/** Starts the search in its own process and kills it as soon as a file is there. */
async function killAt(file: string, words: readonly string[]) {
  const { child, outcome } = spawnCli(['search', ...words]);
  const timer = setInterval(() => existsSync(file) && child.kill('SIGKILL'), 20);
  const { code } = await outcome;
  clearInterval(timer);
  return code;
}

beforeAll(async () => {
  const leave = await enterToyFolder();
  writeFileSync('search.yaml', stringify(search));
  return leave;
}, 400_000);

describe('a search', () => {
  it('is planned first', async () => {
    const { code, stdout, stderr } = await cli('search', 'search.yaml', '--plan', '--out', 'planned');
    expect(code, stderr).toBe(0);
    expect(stdout).toMatch(/^search\.yaml: 5 runs, 5\.0 whole schedules, about 0:0\d\n/);
    expect(stdout).toContain('base: trials: 3 of the whole schedule; 2 runs with fresh seeds; a schedule has 6 steps');
    expect(existsSync('planned')).toBe(false);
  });

  it('judges trials by their held-out loss, logs those that diverge, and confirms the winner', async () => {
    const { code, stdout, stderr } = await cli('search', 'search.yaml', '--out', 'straight');
    expect(code, stderr).toBe(0);
    const { variants, lowest } = resultOf('straight');
    expect(lowest).toBe(true);
    const [{ trials, winner, confirmations, confirmed, expectedBest }] = variants;
    expect(trials.map(({ index }) => index)).toEqual([0, 1, 2]);
    for (const { values, outcome } of trials) expect(outcome.status).toBe(values['stages.0.lr'] === 1e30 ? 'diverged' : 'finished');
    const losses = trials.flatMap(({ outcome }) => (outcome.status === 'finished' ? [outcome.value] : []));
    expect(losses.length).toBeGreaterThan(0);
    expect(losses.length).toBeLessThan(3);
    expect(winner!.value).toBe(Math.min(...losses));
    expect(expectedBest.curve.at(-1)!.unbiased).toBeCloseTo(winner!.value, 12);
    expect(confirmations.map(({ of, seed }) => `${of} ${seed}`)).toEqual(['winner 43', 'base 43']);
    expect(confirmed.gain!.value).toBeCloseTo(confirmed.winner!.value - confirmed.base!.value, 12);
    expect(stdout).toContain(`base: --set 'stages.0.lr=${winner!.values['stages.0.lr']}'`);

    // the same samples whatever the batch
    const stepsOf = (index: number) => JSON.parse(readFileSync(`straight/base/trials/000${index}/summary.json`, 'utf8')).stages[0].steps;
    for (const { index, values, outcome } of trials)
      if (outcome.status === 'finished') expect(stepsOf(index)).toBe(12 / (values['stages.0.batch_size'] as number));
    // of trials the weights are gone, those of the winner are there
    expect(readdirSync('straight/base/trials/0000')).not.toContain('checkpoints');
    expect(readdirSync('straight/base/winner/seed-43/checkpoints')).toEqual(['pretrain']);
    const page = readFileSync('straight/search.html', 'utf8');
    expect(page).toContain('Expected best of n trials');
    expect(page).toContain('diverged');
    expect(page).not.toMatch(/<script|http:\/\/(?!www\.w3\.org)/);
  }, 400_000);

  it('that is killed goes on to the same result', async () => {
    // in the middle of a trial, and while the winner is confirmed
    const moments = ['trials/0001/metrics.jsonl', 'winner/seed-43/metrics.jsonl'];
    for (const moment of moments) {
      expect(await killAt(`killed/base/${moment}`, ['search.yaml', '--out', 'killed'])).toBeNull();
      expect(existsSync('killed/search.json')).toBe(false);
    }
    const { code, stderr } = await cli('search', 'search.yaml', '--out', 'killed');
    expect(code, stderr).toBe(0);
    expect(stderr).toContain('base: 3 trials were finished before');
    expect(readFileSync('killed/search.json', 'utf8')).toBe(readFileSync('straight/search.json', 'utf8'));
  }, 400_000);

  it('judges by right answers too, short schedules first, two trials at a time', async () => {
    const accuracy = {
      ...search,
      set: [],
      space: { 'stages.1.lr': { log_uniform: [1e-3, 1e-2] } },
      objective: { accuracy: 'unseen-artist' },
      budget: { trials: 2 },
      asha: { reduction: 2, rungs: 2 },
      confirm: { seeds: 0 },
      at_once: 2,
    };
    writeFileSync('accuracy.yaml', stringify(accuracy));
    const { code, stderr } = await cli('search', 'accuracy.yaml', '--out', 'accuracy');
    expect(code, stderr).toBe(0);
    const [{ trials, winner }] = resultOf('accuracy').variants;
    expect(trials.map(({ share }) => share)).toEqual([0.5, 0.5, 1]);
    const steps = trials.map(({ index }) =>
      JSON.parse(readFileSync(`accuracy/base/trials/000${index}/summary.json`, 'utf8')).stages.map(
        (stage: { steps: number }) => stage.steps,
      ),
    );
    expect(steps).toEqual([
      [2, 2],
      [2, 2],
      [4, 4],
    ]);
    expect(winner!.value).toBeGreaterThanOrEqual(0);
  }, 400_000);
});

describe('bad input', () => {
  const { evaluate: _, ...unscored } = recipes.llava;
  it.each([
    ['no space', { space: {} }, 'space names no field'],
    ['a field that is none', { space: { 'stages.0.rate': { choice: [1, 2] } } }, 'unknown field stages.0.rate'],
    [
      'a range of a kind that is none',
      { space: { 'stages.0.lr': { log: [1e-3, 1e-1] } } },
      'space.stages.0.lr: must be {log_uniform: [low, high]}, {uniform: [low, high]}, {integer: [low, high]} or {choice: [a, b, ...]} (it is {"log":[0.001,0.1]})',
    ],
    ['values that make no recipe', { space: { 'stages.0.warmup_ratio': { uniform: [0, 2] } } }, 'stages.0.warmup_ratio: must be at most 1'],
    ['a stage that is not there', { objective: { held_out: 'stage-1' } }, 'has no stage stage-1; it has pretrain, finetune'],
    ['a stage that holds nothing out', { set: [] }, 'holds no samples out'],
    ['no scores', { recipe: 'unscored.yaml', objective: { accuracy: 'unseen-artist' } }, 'scores nothing'],
    ['lengths as values', { space: { 'stages.0.steps': { integer: [1, 2] } } }, 'the budget says how long a trial is'],
    ['steps and samples', { budget: { trials: 2, steps: 1, samples: 2 } }, 'gives steps and samples'],
    ['one trial for ASHA', { budget: { trials: 1 }, asha: {} }, 'needs at least 2'],
    ['a sampler that is none', { sampler: 'grid' }, 'sampler: must be one of random, halton, sobol or tpe'],
    ['another search in the folder', { seed: 5 }, 'it holds a search with other settings'],
  ])('%s', async (_name, change, message) => {
    writeFileSync('unscored.yaml', stringify(unscored));
    writeFileSync('bad.yaml', stringify({ ...search, ...change }));
    const { code, stderr } = await cli('search', 'bad.yaml', '--out', 'seed' in change ? 'straight' : 'bad');
    expect(code).toBe(1);
    expect(stderr).toContain(message);
    expect(stderr.trim().split('\n')).toHaveLength(1);
    rmSync('bad', { recursive: true, force: true });
  });
});
