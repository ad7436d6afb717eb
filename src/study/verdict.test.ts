// What a study says where runs are missing, and where nothing was seen.

import { describe, expect, test } from 'vitest';
import { smallestShift } from '../statistics/power.ts';
import { analyzeScore } from './analysis.ts';
import type { ScoreTable } from './answers.ts';
import { analyzeConvergence, type ConvergenceAnalysis } from './convergence.ts';
import { familyOf, unmeasuredOf } from './family.ts';
import { parseStudy } from './study-schema.ts';
import type { Study, StudyRun, Variant } from './variants.ts';
import { verdictOf } from './verdict.ts';

type Factors = Record<string, readonly string[]>;

/** A study of all cells of these factors. */
function studyOf(named: Factors, seeds: number, comparisons?: unknown[]): Study {
  const factors = Object.entries(named).map(([name, levels]) => ({ name, levels: levels.map((label) => ({ label })) }));
  const cells = factors.reduce<number[][]>((all, { levels }) => all.flatMap((cell) => levels.map((_, i) => [...cell, i])), [[]]);
  const variants = cells.map((levels, index): Variant => {
    const label = levels.map((level, i) => factors[i].levels[level].label).join(' / ');
    return { index, levels, label, recipe: {} as Variant['recipe'] };
  });
  const all = Array.from({ length: seeds }, (_, i) => i);
  const runs = variants.flatMap((variant) => all.map((seed) => ({ id: `${variant.label} ${seed}`, variant, seed }) as StudyRun));
  return { path: 's.yaml', factors, variants, seeds: all, runs, file: { family: { comparisons } } } as unknown as Study;
}

const PICTURES = 60;

/** Answers of the runs that ended, right with the chance of their cell; null for those that did not. */
function tableOf(study: Study, chanceOf: (labels: readonly string[]) => number | null): ScoreTable {
  const questions = Array.from({ length: PICTURES }, (_, i) => ({ key: String(i), cluster: String(i), prompt: '', expected: '' }));
  const runs = study.runs.flatMap((run) => {
    const chance = chanceOf(run.variant.label.split(' / '));
    if (chance === null) return [];
    // as right as its chance, on other questions for other seeds
    const credits = Float64Array.from(questions, (_, i) => Number((i * 37 + run.seed * 11) % PICTURES < chance * PICTURES));
    return [{ run, credits, answers: [], baselines: {} }];
  });
  return { name: 'score', questions, leftOut: 0, runs };
}

function verdict(study: Study, table: ScoreTable) {
  const analysis = analyzeScore(study, table);
  const modeled = [{ table, model: analysis.model }];
  const family = familyOf(study, modeled);
  const said = verdictOf(study, { scores: [analysis], family, unmeasured: unmeasuredOf(study, modeled), runs: [] });
  return { family, said: said.join('\n') };
}

describe('a level without runs', () => {
  const factors = { lr: ['1e-2', '1e-3', '1e-4'], size: ['small', 'large'] };

  test('that others are to be compared with leaves them without an estimate, and this is said', () => {
    const study = studyOf(factors, 2, ['lr', 'size', { effect: 'lr', at: { size: 'small' } }, { interaction: ['lr', 'size'] }]);
    const { family, said } = verdict(
      study,
      tableOf(study, ([lr]) => (lr === '1e-2' ? null : lr === '1e-3' ? 0.2 : 0.8)),
    );
    expect(family.map(({ label }) => label)).toEqual(['size: small -> large']);
    expect(said).toContain('score: no run of lr: 1e-2 has a score, and so there is no estimate of lr: 1e-2 -> 1e-3; lr: 1e-2 -> 1e-4;');
    expect(said).not.toContain('changes the score');
  });

  test('that is another one leaves the rest of its factor', () => {
    const study = studyOf(factors, 2, ['lr']);
    const { family, said } = verdict(
      study,
      tableOf(study, ([lr]) => (lr === '1e-4' ? null : lr === '1e-3' ? 0.2 : 0.8)),
    );
    expect(family.map(({ label, value }) => [label, value.toFixed(2)])).toEqual([['lr: 1e-2 -> 1e-3', '-0.60']]);
    expect(said).toContain('no run of lr: 1e-4 has a score, and so there is no estimate of lr: 1e-2 -> 1e-4.');
  });
});

test('that no run answered otherwise is said of the whole family or not at all', () => {
  const said = (seeds: number, chanceOf: (lr: string) => number) => {
    const study = studyOf({ lr: ['a', 'b'], size: ['small', 'large'] }, seeds, ['lr', 'size']);
    const table = tableOf(study, ([lr]) => chanceOf(lr));
    return verdict(study, table).said;
  };
  expect(said(1, () => 0.5)).toContain('No run answered otherwise than another');
  const other = said(2, (lr) => (lr === 'a' ? 0.2 : 0.8));
  expect(other).toContain('lr: a -> b changes the score by +60.0');
  expect(other).toContain('no effect was told from 0 of: size: small -> large');
  expect(other).not.toContain('No run answered otherwise');
  // seen before: the rest were called equal
  const equal = said(1, (lr) => (lr === 'a' ? 0.2 : 0.8));
  expect(equal).toContain('lr: a -> b changes the score by +60.0');
  expect(equal).toContain('no effect was told from 0 of: size: small -> large');
  expect(equal).not.toContain('No run answered otherwise');
});

test('what could have been seen is what Holm could have seen: at 0.05 over the comparisons', () => {
  const study = studyOf({ lr: ['a', 'b'], size: ['small', 'large'] }, 3, ['lr', 'size', { interaction: ['lr', 'size'] }]);
  const { family } = verdict(
    study,
    tableOf(study, ([lr]) => (lr === 'a' ? 0.5 : 0.6)),
  );
  expect(family).toHaveLength(3);
  const told = family.filter(({ se }) => se > 0);
  expect(told.length).toBeGreaterThan(0);
  for (const { se, df, smallestVisible } of told) {
    expect(smallestVisible).toBeCloseTo(se * smallestShift(df, { alpha: 0.05 / 3 }), 12);
    expect(smallestVisible).toBeGreaterThan(1.1 * se * smallestShift(df));
  }
});

test('a cell of which all answers are wrong, or all right, has an interval with width, and no p is 0', () => {
  const study = studyOf({ lr: ['a', 'b'] }, 3, ['lr']);
  const analysis = analyzeScore(
    study,
    tableOf(study, ([lr]) => (lr === 'a' ? 0 : 1)),
  );
  const [wrong, right] = analysis.cells;
  expect([wrong.value, wrong.low, right.value, right.high]).toEqual([0, 0, 1, 1]);
  // Wilson: none of 60 pictures
  expect(wrong.high).toBeCloseTo(0.0602, 4);
  expect(right.low).toBeCloseTo(1 - 0.0602, 4);
  const [effect] = analysis.main;
  expect(effect.value).toBeCloseTo(1, 12);
  expect(effect.se).toBe(0);
  expect(effect.p).toBeGreaterThan(0);
  expect(effect.p).toBeLessThan(0.1);
});

test('an effect that another factor turns round is said to be an average, and what it is at each level', () => {
  const study = studyOf({ lr: ['a', 'b'], size: ['small', 'large'] }, 4, ['lr', { interaction: ['lr', 'size'] }]);
  const { said } = verdict(
    study,
    tableOf(study, ([lr, size]) => (lr === 'a' ? 0.5 : size === 'small' ? 0.9 : 0.4)),
  );
  const [first] = said.split('\n');
  expect(first).toMatch(/^score: lr: a -> b changes the score by \+15\.0 points on average over size \(/);
  expect(first).toMatch(/It is not the same everywhere: \+40\.0 with size: small \(.*\), -10\.0 with size: large \(.*\)\.$/);
  const alone = verdict(
    study,
    tableOf(study, ([lr]) => (lr === 'a' ? 0.5 : 0.9)),
  ).said;
  expect(alone).toContain('on average over size');
  expect(alone).not.toContain('everywhere');
});

test('of three levels, only the one that is turned round is said to be so', () => {
  const study = studyOf({ lr: ['a', 'b', 'c'], size: ['small', 'large'] }, 4, ['lr', { interaction: ['lr', 'size'] }]);
  const { said } = verdict(
    study,
    tableOf(study, ([lr, size]) => (lr === 'a' ? 0.3 : lr === 'b' ? 0.7 : size === 'small' ? 0.9 : 0.2)),
  );
  const sentenceOf = (level: string) => said.split('\n').find((line) => line.startsWith(`score: lr: a -> ${level} `));
  expect(sentenceOf('b')).not.toContain('everywhere');
  expect(sentenceOf('c')).toContain('everywhere');
});

describe('shares of a stage', () => {
  const shares = ['0', '1/4', '1/2', '1'];
  const study = {
    ...studyOf({ 'share of pretrain': shares }, 3, ['share of pretrain']),
    convergence: { stage: 'pretrain', factor: 0, steps: [0, 25, 50, 100] },
  };
  const said = (chances: readonly (number | null)[]) => {
    const table = tableOf(study, ([share]) => chances[shares.indexOf(share)]);
    const analysis = analyzeScore(study, table);
    const convergence = analyzeConvergence(
      study,
      { finished: [], diverged: [], records: new Map() },
      [table],
      [analysis],
    ) as ConvergenceAnalysis;
    return verdictOf(study, { scores: [], family: [], unmeasured: [], runs: [], convergence }).join('\n');
  };

  test('all of which score otherwise', () => {
    expect(said([0.1, 0.2, 0.3, 0.9])).toContain('Every share of pretrain that was tried scores otherwise on score');
  });

  test('of which the largest does alone', () => {
    const text = said([0.9, 0.9, 0.3, 0.9]);
    expect(text).toContain('The largest share of pretrain that was compared, 1/2, scores otherwise on score');
    expect(text).not.toContain('Every');
  });

  test('of which no more than some do', () => {
    expect(said([0.1, 0.2, 0.9, 0.9])).toContain('From 1/2 of pretrain on, the score on score was not told');
  });

  test('and what a share may lack is said where its interval leaves room for it', () => {
    const rows = [0.25, 0.5].map((share) => ({
      share: `${share}`,
      steps: 100 * share,
      effect: { value: 0, low: -share / 10, high: share / 10 },
    }));
    const arm = { arm: '', missing: { score: rows }, enough: { score: '0.25' } };
    const convergence = { stage: 'pretrain', arms: [arm], transfer: [] } as unknown as ConvergenceAnalysis;
    const text = verdictOf(study, { scores: [], family: [], unmeasured: [], runs: [], convergence }).join('\n');
    expect(text).toContain(
      'From 0.25 of pretrain on, the score on score was not told from that after the whole of it; it may still lack up to 5.0 points.',
    );
  });

  test('of which none can be compared, as no whole has ended', () => {
    const text = said([0.1, 0.2, 0.3, null]);
    expect(text).toContain('No share of pretrain could be compared with the whole of it on score');
    expect(text).not.toMatch(/Every|From/);
  });

  test('have the whole among them', () => {
    const file = (given: number[]) => ({ name: 'x', recipe: 'r.yaml', seeds: 1, convergence: { stage: 'pretrain', shares: given } });
    expect(() => parseStudy(file([0, 0.5]), 's.yaml')).toThrow('s.yaml: convergence.shares: must have 1 among them');
    expect(parseStudy(file([0, 0.5, 1]), 's.yaml').convergence!.shares).toEqual([0, 0.5, 1]);
  });
});
