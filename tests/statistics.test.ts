// src/statistics against scipy and statsmodels (tests/reference/make_statistics.py), and whether its
// intervals and families keep their promise on data with a known truth.

import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { createRandom, type Random } from '../src/random.ts';
import * as distributions from '../src/statistics/distributions.ts';
import { designOf, type Factor } from '../src/statistics/factors.ts';
import { holm } from '../src/statistics/families.ts';
import { contrast, fitLinearModel, jointTest } from '../src/statistics/linear-model.ts';
import { mcnemar, pairedDifference } from '../src/statistics/paired.ts';
import { smallestRunEffect, tTestPower } from '../src/statistics/power.ts';
import { clusteredMean, meanCredit, wilsonInterval } from '../src/statistics/proportion.ts';
import { root } from './structure.ts';

interface Fit {
  how: string;
  se: number[];
  low: number[];
  high: number[];
  p: number[];
  joint: [number, number, number];
  covariance: number[][];
}

const goldens = JSON.parse(readFileSync(join(root, 'tests/reference/goldens/statistics.json'), 'utf8')) as {
  distributions: Record<string, number[][]>;
  proportions: { wilson: number[][]; credits: number[]; mean: number; se: number; t: [number, number] };
  mcnemar: number[][];
  holm: [number[], number[]][];
  power: { smallestBySeeds: [number, number][]; power: [number, number, number][] };
  linearModel: {
    y: number[];
    encoder: number[];
    language: number[];
    question: number[];
    run: number[];
    coefficients: number[];
    fits: Fit[];
  };
};

/** Relative difference, absolute for what is 0. */
const distance = (a: number, b: number) => (a === b ? 0 : Math.abs(a - b) / (Math.abs(b) || 1));

function expectClose(got: ArrayLike<number>, wanted: readonly number[]): void {
  expect(got).toHaveLength(wanted.length);
  Array.from(got).forEach((value, i) => {
    expect(distance(value, wanted[i]), `${value}, not ${wanted[i]}`).toBeLessThan(2e-9);
  });
}

const functions = distributions as unknown as Record<string, (...inputs: number[]) => number>;

describe('scipy', () => {
  test.each(Object.keys(goldens.distributions))('%s', (name) => {
    for (const row of goldens.distributions[name]) {
      const inputs = row.slice(0, -1);
      const got = functions[name](...inputs);
      expect(distance(got, row.at(-1)!), `${name}(${inputs}) = ${got}, not ${row.at(-1)}`).toBeLessThan(2e-9);
    }
  });

  test('mean credit, its standard error and t interval', () => {
    const { credits, mean, se, t } = goldens.proportions;
    const got = clusteredMean(credits);
    expectClose([got.value, got.se, got.low, got.high], [mean, se, ...t]);
    expect(meanCredit(credits)).toMatchObject({ value: got.value, se: got.se, low: got.low, high: got.high });
  });
});

describe('statsmodels', () => {
  test('Wilson', () => {
    for (const [correct, n, level, low, high] of goldens.proportions.wilson) {
      const got = wilsonInterval(correct, n, level);
      expect(got.low).toBeCloseTo(low, 12);
      expect(got.high).toBeCloseTo(high, 12);
    }
  });

  test('McNemar: exact, mid-p, chi-squared', () => {
    for (const [onlyA, onlyB, ...expected] of goldens.mcnemar) {
      const { exact, midP, chiSquared, chiSquaredP } = mcnemar({ onlyA, onlyB });
      [exact, midP, chiSquared, chiSquaredP].forEach((value, i) => {
        expect(value, `${onlyA} to ${onlyB}`).toBeCloseTo(expected[i], 11);
      });
    }
  });

  test('Holm', () => {
    for (const [pValues, adjusted] of goldens.holm) expectClose(holm(pValues), adjusted);
  });

  test('power of a t test between two arms, and the smallest effect', () => {
    for (const [effect, seeds, power] of goldens.power.power)
      expect(tTestPower(effect * Math.sqrt(seeds / 2), 2 * (seeds - 1)), `${effect}, ${seeds}`).toBeCloseTo(power, 7);
    for (const [seeds, smallest] of goldens.power.smallestBySeeds)
      expect(smallestRunEffect(1, { runs: 2 * seeds, cells: 2 })).toBeCloseTo(smallest, 5);
  });

  const { linearModel: data } = goldens;
  const clusters: Record<string, number[][]> = { plain: [], question: [data.question], 'question, run': [data.question, data.run] };
  test.each(data.fits.map((fit) => [fit.how, fit] as const))('linear model, errors: %s', (how, expected) => {
    const design = designOf([
      { name: 'encoder', levels: ['0', '1', '2'], values: data.encoder },
      { name: 'language', levels: ['0', '1'], values: data.language },
    ]);
    const model = fitLinearModel(data.y, design, { clusters: clusters[how], smallSample: 'cgm' });
    expectClose(model.coefficients, data.coefficients);
    expectClose(model.covariance, expected.covariance.flat());
    const joint = jointTest(model, ['encoder[1]', 'encoder[2]']);
    expectClose([joint.f, joint.p, joint.df2], expected.joint);
    const contrasts = design.names.map((name) => contrast(model, { [name]: 1 }));
    if (model.ways.length < 2)
      for (const key of ['se', 'low', 'high', 'p'] as const)
        expectClose(
          contrasts.map((each) => each[key]),
          expected[key],
        );
    // of two ways, the largest variance counts, and degrees of freedom of both: never surer than statsmodels
    else
      contrasts.forEach(({ se, df }, i) => {
        const alone = model.ways.map(({ covariance }) => Math.sqrt(covariance[i * 7]));
        expect(se).toBeCloseTo(Math.max(expected.se[i], ...alone), 11);
        expect(df).toBeGreaterThanOrEqual(expected.joint[2]);
        expect(df).toBeLessThanOrEqual(19);
      });
  });
});

// === Coverage ===

interface World {
  seeds: number;
  questions: number;
  /** Effects of two-level factors in points: main effects and interactions by the names of their columns. */
  effects: Record<string, number>;
  /** Standard deviation between runs of a cell, and of how much an effect depends on the question. */
  runSd: number;
  questionSd: number;
}

const factorNames = ['stage1', 'encoder', 'language'];

/** The runs of a 2^3 factorial: each its cell, as the bits of a number. */
function factorsOf(cells: readonly number[]): Factor[] {
  return factorNames.map((name, bit) => ({ name, levels: ['no', 'yes'], values: cells.map((cell) => (cell >> bit) & 1) }));
}

/** Right and wrong answers of all runs to all questions, as a linear model with run noise has them. */
function drawAnswers(world: World, random: Random) {
  const cells = Array.from({ length: 8 * world.seeds }, (_, run) => run % 8);
  const runDesign = designOf(factorsOf(cells));
  const shifts = cells.map((_, run) => {
    const effect = runDesign.names.reduce((sum, name, i) => sum + ((world.effects[name] ?? 0) / 2) * runDesign.columns[i][run], 0);
    return effect + world.runSd * random.normal();
  });
  const rows = { y: [] as number[], cell: [] as number[], question: [] as number[], run: [] as number[] };
  for (let question = 0; question < world.questions; question++) {
    const easiness = 0.5 + 0.4 * (random.uniform() - 0.5);
    const slopes = factorNames.map(() => world.questionSd * random.normal());
    const ofCell = Array.from({ length: 8 }, (_, cell) =>
      slopes.reduce((sum, each, bit) => sum + each * (((cell >> bit) & 1) - 0.5), easiness),
    );
    for (let run = 0; run < cells.length; run++) {
      rows.y.push(random.uniform() < ofCell[cells[run]] + shifts[run] ? 1 : 0);
      rows.cell.push(cells[run]);
      rows.question.push(question);
      rows.run.push(run);
    }
  }
  return rows;
}

/** How often intervals hold the truth, and in how many draws Holm finds any effect that is 0. */
function coverage(world: World, draws: number, seed: number) {
  let [held, intervals, falseFamilies] = [0, 0, 0];
  let design: ReturnType<typeof designOf> | undefined;
  for (let draw = 0; draw < draws; draw++) {
    const rows = drawAnswers(world, createRandom(seed, draw));
    design ??= designOf(factorsOf(rows.cell));
    const model = fitLinearModel(rows.y, design, { clusters: [rows.question, rows.run] });
    const effects = design.names.slice(1);
    const estimates = effects.map((name) => contrast(model, { [name]: 2 }));
    const truths = effects.map((name) => world.effects[name] ?? 0);
    held += estimates.filter(({ low, high }, i) => low <= truths[i] && truths[i] <= high).length;
    intervals += effects.length;
    const adjusted = holm(estimates.map(({ p }) => p));
    if (adjusted.some((p, i) => p < 0.05 && truths[i] === 0)) falseFamilies++;
  }
  return { coverage: held / intervals, falseDiscoveries: falseFamilies / draws };
}

const planted = { 'stage1[yes]': 0.08, 'encoder[yes]': -0.04, 'language[yes]': 0.05, 'encoder[yes]:language[yes]': -0.04 };

describe('intervals at 95 %', () => {
  test('of planted effects hold the truth in 93 to 97 % of 2,000 draws, with noise between runs', () => {
    const got = coverage({ seeds: 3, questions: 40, effects: planted, runSd: 0.05, questionSd: 0.1 }, 2000, 1);
    expect(got.coverage).toBeGreaterThan(0.93);
    expect(got.coverage).toBeLessThan(0.97);
  });

  test('find nothing where there is nothing in more than 95 % of 2,000 draws', () => {
    const got = coverage({ seeds: 3, questions: 40, effects: {}, runSd: 0.05, questionSd: 0.1 }, 2000, 2);
    expect(got.falseDiscoveries).toBeLessThan(0.05);
    expect(got.falseDiscoveries).toBeGreaterThan(0.01);
    expect(got.coverage).toBeGreaterThan(0.93);
    expect(got.coverage).toBeLessThan(0.97);
  });

  test.each([15, 60])('of means and of paired differences hold the truth, %i clusters of 1 to 4', (clusterCount) => {
    let [mean, paired] = [0, 0];
    const draws = 2000;
    for (let draw = 0; draw < draws; draw++) {
      const random = createRandom(3, clusterCount, draw);
      const keys: number[] = [];
      const answers: [number[], number[]] = [[], []];
      for (let cluster = 0; cluster < clusterCount; cluster++) {
        const levels = [0.7, 0.6].map((level) => level + 0.6 * (random.uniform() - 0.5));
        for (let i = 0; i <= cluster % 4; i++) {
          keys.push(cluster);
          for (const [system, level] of levels.entries()) answers[system].push(random.uniform() < level ? 1 : 0);
        }
      }
      const holds = ({ low, high }: { low: number; high: number }, truth: number) => (low <= truth && truth <= high ? 1 : 0);
      mean += holds(meanCredit(answers[0], { clusters: keys }), 0.7);
      paired += holds(pairedDifference(answers[0], answers[1], { clusters: keys }), 0.1);
    }
    for (const held of [mean, paired]) {
      expect(held / draws).toBeGreaterThan(0.93);
      expect(held / draws).toBeLessThan(0.97);
    }
  });
});
