// Studies: what is shared computed once and to the bit, killed and gone on, in shares, with runs that become
// non-finite; plans; bad input.

import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join, resolve } from 'node:path';
import { pathToFileURL } from 'node:url';
import { beforeAll, describe, expect, test, vi } from 'vitest';
import { parse, stringify } from 'yaml';
import { buildEmojiDataset } from '../src/data/emoji/build.ts';
import type { StudyPlan } from '../src/study/plan.ts';
import type { StudyCost, StudyResults } from '../src/study/results.ts';
import { chromiumPath, launchBrowser } from './browser.ts';
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

  test.runIf(chromiumPath)('has a report that a browser shows offline, without a complaint, on a phone too', async () => {
    const browser = await launchBrowser();
    try {
      const page = await browser.newPage({ viewport: { width: 390, height: 800 }, colorScheme: 'dark' });
      const complaints: string[] = [];
      page.on('console', (message) => complaints.push(message.text()));
      page.on('pageerror', (error) => complaints.push(String(error)));
      page.on('request', (request) => {
        if (!/^(file|data):/.test(request.url())) complaints.push(request.url());
      });
      await page.goto(pathToFileURL(resolve('whole/study.html')).href);
      for (const summary of await page.locator('summary').all()) await summary.click();
      expect(await page.locator('svg').count()).toBeGreaterThan(3);
      // tables and plots scroll within themselves
      expect(await page.evaluate('document.documentElement.scrollWidth')).toBeLessThanOrEqual(390);
      await page.addScriptTag({ content: readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8') });
      expect(await page.evaluate('axe.run().then(({ violations }) => violations.map(({ id, nodes }) => [id, nodes[0].html]))')).toEqual([]);
      expect(complaints).toEqual([]);
    } finally {
      await browser.close();
    }
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
    const path = write('rates.yaml', { factors: [study.factors[1]] });
    await succeed(path, '--out', 'straight');
    for (let sitting = 0; sitting < 2; sitting++) {
      const { child, outcome } = spawnCli(['study', path, '--out', 'killed']);
      let lines = 0;
      child.stderr!.on('data', (text: string) => {
        lines += text.split('\n').length - 1;
        // right after a piece has ended, and while another is going on
        if (lines >= 3) child.kill('SIGKILL');
      });
      expect((await outcome).code).toBeNull();
      expect(existsSync('killed/study.json')).toBe(false);
    }
    // what its sittings took is counted, and scenes that were removed meanwhile are drawn again
    const { runs } = JSON.parse(results('straight')) as StudyResults;
    const open = runs.map(({ id }) => id).filter((id) => !existsSync(`killed/records/${id}.json`));
    expect(open.length).toBeGreaterThan(0);
    writeFileSync(`killed/records/${open[0]}.sittings`, JSON.stringify([{ seconds: 500, cpuSeconds: 1000, peakRssMb: 1 }]));
    rmSync('.cache/scenes', { recursive: true });
    await succeed(path, '--out', 'killed');
    expect(results('killed')).toBe(results('straight'));
    const cost = JSON.parse(readFileSync('killed/cost.json', 'utf8')) as StudyCost;
    expect(cost.runs.find(({ id }) => id === open[0])!.cpuSeconds).toBeGreaterThan(1000);
    expect(existsSync(`killed/records/${open[0]}.sittings`)).toBe(false);
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

describe('a study with a search, a benchmark, alignment, signs and maps', () => {
  const data = 'downloads';
  const searched = (changes: File = {}) =>
    write('searched.yaml', {
      factors: [study.factors[0]],
      set: ['stages.0.steps=4', 'stages.1.held_out={samples: 3, every: 4}', 'data.evaluation_scenes=6'],
      search: {
        space: { 'stages.0.lr': { choice: [0.003, 0.006] }, 'stages.1.lr': { choice: [0.03, 0.01, 0.02] } },
        objective: { held_out: 'finetune' },
        budget: { trials: 2 },
        sampler: 'random',
      },
      score: { alignment: 4, diagnosis: 2, maps: 4, benchmarks: [{ name: 'pope', data }] },
      ...changes,
    });

  /** The existence questions of the toy's scenes in the form of POPE's files. */
  const writePope = async () => {
    const { evaluation, imageFolder } = await buildEmojiDataset({
      seed: 5,
      out: 'pope',
      trainScenes: 0,
      splits: ['unseen-artist'],
      evaluationScenes: 8,
    });
    mkdirSync(join(data, 'pope', 'coco'), { recursive: true });
    symlinkSync(resolve(imageFolder), join(data, 'pope', 'val2014'));
    const entries = JSON.parse(readFileSync(evaluation['unseen-artist'], 'utf8')) as {
      task: string;
      image: string;
      conversations: { value: string }[];
    }[];
    const lines = entries
      .filter(({ task }) => task === 'existence')
      .map(({ image, conversations: [question, answer] }, i) =>
        JSON.stringify({ question_id: i + 1, image, text: question.value.split('\n')[1], label: answer.value }),
      );
    writeFileSync(join(data, 'pope', 'coco', 'coco_pope_random.json'), lines.join('\n'));
    return lines.length;
  };

  test('runs each cell with shared and with its own values, which its runs had no part in choosing', async () => {
    const questions = await writePope();
    await succeed(searched(), '--out', 'searched');
    const { runs, scores, search, factors, alignment, maps, family, notMeasured } = JSON.parse(results('searched')) as StudyResults;
    expect(runs.map(({ cell }) => cell)).toEqual(['yes / shared', 'yes / tuned', 'no / shared', 'no / tuned']);
    expect(factors.at(-1)).toEqual({ name: 'settings', levels: ['shared', 'tuned'] });
    expect(family.map(({ label }) => label)).toEqual(['stage 1: yes -> no', 'settings: shared -> tuned', 'stage 1: no x settings: tuned']);
    // the same budget for each; without stage 1 there is no rate of it
    expect(search!.cells.map(({ name, spent }) => [name, spent])).toEqual([
      ['yes', 2],
      ['no', 2],
    ]);
    expect(search!.cells.map(({ winner }) => Object.keys(winner!.values))).toEqual([['stages.0.lr', 'stages.1.lr'], ['stages.0.lr']]);
    expect(search!.cells[0].flops).toBeGreaterThan(1.2 * search!.cells[1].flops);
    const recipeOf = (run: string) => parse(readFileSync(`searched/runs/${run}/recipe.yaml`, 'utf8'));
    for (const [i, cell] of ['yes', 'no'].entries()) {
      const [shared, tuned] = ['shared', 'tuned'].map((settings, level) => recipeOf(`${2 * i + level}-${cell}-${settings}-seed-42`));
      const rates = (recipe: typeof tuned) => recipe.stages.map(({ lr }: { lr: number }) => lr);
      expect(rates(tuned)).toEqual(Object.values(search!.cells[i].winner!.values));
      expect(rates(shared)).toEqual(i === 0 ? [0.01, 0.01] : [0.01]);
      const trial = parse(readFileSync(`searched/search/0${i}/base/trials/0000/recipe.yaml`, 'utf8'));
      expect(trial.seed).toBe(43);
      expect(trial.data).toEqual(tuned.data);
    }

    const pope = scores.find(({ score }) => score === 'pope')!;
    expect(pope.questions).toBe(questions);
    expect(pope.cells[0].baselines).toMatchObject({ blind: expect.any(Number), exchanged: expect.any(Number) });
    for (const [i, { scores: own }] of runs.entries()) expect(own.pope).toBeCloseTo(pope.cells[i].value, 12);

    expect(alignment.map(({ cell, layers }) => [cell, layers.map(({ layer }) => layer)])).toEqual(runs.map(({ cell }) => [cell, [1]]));
    for (const { numbers } of alignment) expect(numbers).toMatchObject({ MIR: expect.any(Number), 'A score': expect.any(Number) });
    expect(runs[0].numbers.MIR).toBe(alignment[0].numbers.MIR);
    const { health } = runs[0];
    for (const sign of ['norm-mismatch', 'logit-effect', 'label-mask', 'unmoved-weights'])
      expect(health.find((finding) => finding.sign === sign)?.level).toMatch(/^(red|amber|green|info)$/);
    expect(maps!.map(({ cell, seeds, summary }) => [cell, seeds, summary.questions])).toEqual(runs.map(({ cell }) => [cell, 1, 4]));
    expect(runs[0].numbers['relevancy points at what is asked']).toBe(maps![0].summary.pointing!.maps.relevancy.value);
    expect(notMeasured.join()).not.toMatch(/maps|signs|alignment/);
    // stage 1 is seen to be left out, by models that make nothing of their pictures
    const skipped = runs.map(({ health }) => health.find(({ sign }) => sign === 'stage-1-skipped')!.level);
    expect(skipped).toEqual(['green', 'green', 'red', 'red']);

    const page = readFileSync('searched/study.html', 'utf8');
    for (const part of ['Alignment', 'Where the models look', 'tuned less shared', 'Expected best of n trials', 'TFLOP', 'stage-1-skipped'])
      expect(page).toContain(part);
    expect(page).not.toMatch(/<script|https?:\/\/(?!www\.w3\.org)/);

    // nothing is searched or run again
    const before = results('searched');
    await succeed('searched.yaml', '--out', 'searched');
    expect(results('searched')).toBe(before);
  }, 200_000);

  test('refuses what would choose by what it reports, and shares', async () => {
    const { search } = parse(readFileSync(searched(), 'utf8')) as { search: object };
    const objective = { accuracy: 'unseen-artist' };
    expect(await fail(searched({ search: { ...search, objective } }), '--plan')).toContain('unseen-artist is what the study scores');
    expect(await fail(searched({ search: { ...search, objective: { held_out: 'pretrain' } } }), '--plan')).toContain(
      'holds no samples out',
    );
    const lost = { ...search, space: { 'stages.3.lr': { choice: [1, 2] } } };
    expect(await fail(searched({ search: lost }), '--plan')).toContain('stages.3.lr');
    expect(await fail(searched(), '--shard', '1/2', '--out', 'x')).toContain('takes no --shard');
    const convergence = { stage: 'pretrain', shares: [0, 1] };
    expect(await fail(searched({ convergence }), '--plan')).toContain('a search or a convergence, not both');
  });
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
