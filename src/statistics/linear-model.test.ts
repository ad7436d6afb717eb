import { describe, expect, it } from 'vitest';
import { createRandom } from '../random.ts';
import { cellDifference, designOf, type Factor } from './factors.ts';
import { contrast, fitLinearModel, jointTest, twoWayMean } from './linear-model.ts';

/** The cells of a full factorial, the first factor changing slowest. */
function fullFactorial(levels: Record<string, readonly string[]>, times = 1): Factor[] {
  const names = Object.keys(levels);
  const cells = names.reduce((left, name) => left.flatMap((cell) => levels[name].map((_, i) => [...cell, i])), [[]] as number[][]);
  const rows = Array.from({ length: times }, () => cells).flat();
  return names.map((name, at) => ({ name, levels: levels[name], values: rows.map((row) => row[at]) }));
}

const paperFactors = fullFactorial({ language: ['2b', '7b'], encoder: ['clip', 'dinov2'], stage1: ['yes', 'no'] });

// Table 1 of LLaVA-Gemma, its eight cells in the order of these factors; shares in percent
const paper = {
  gqa: [53.1, 48.1, 58.7, 50.1, 47.2, 47.2, 51.9, 45.9],
  popeAccuracy: [85, 78.4, 85.3, 79.3, 84.8, 78.2, 79.4, 69.3],
  scienceQa: [56.4, 54.9, 55.5, 56.8, 62.5, 63.6, 62.8, 59.8],
  vqav2: [70.7, 61.7, 71.4, 61.7, 68.7, 65.1, 65.2, 57.4],
  mmVet: [17.7, 13.1, 19.1, 14.5, 18.2, 19.1, 14.3, 12.2],
  mmeCognition: [236, 249, 307, 309, 254, 278, 257, 226],
};

describe("the paper's eight cells", () => {
  const model = (scores: number[]) => fitLinearModel(scores, designOf(paperFactors));
  const effect = (scores: number[], name: string) => contrast(model(scores), { [name]: 2 }).value;

  // its Fig. 1: without stage 1, DINOv2, 7B; both it and the table are rounded to a tenth of a point
  it.each([
    ['gqa', -4.9, 2.7, -4.5],
    ['popeAccuracy', -7.3, -3.2, -4.1],
    ['scienceQa', -0.5, -0.6, 6.3],
  ] as const)('give the effects of its figure: %s', (name, stage1, encoder, language) => {
    ['stage1[no]', 'encoder[dinov2]', 'language[7b]'].forEach((column, i) => {
      expect(Math.abs(effect(paper[name], column) - [stage1, encoder, language][i])).toBeLessThan(0.1);
    });
  });

  it.each([
    ['popeAccuracy', 0.6, -7.2],
    ['vqav2', 0.35, -5.6],
    ['mmVet', 1.4, -5.4],
    ['mmeCognition', 65, -25],
  ] as const)('and the interactions that it hides: DINOv2 by size, %s', (name, small, large) => {
    const at = (language: string) =>
      contrast(model(paper[name]), cellDifference(paperFactors, { encoder: 'dinov2', language }, { encoder: 'clip', language })).value;
    expect(Math.abs(at('2b') / small - 1)).toBeLessThan(0.1);
    expect(Math.abs(at('7b') / large - 1)).toBeLessThan(0.03);
  });

  it('have on POPE an interaction as large as the main effects, and no errors to go by', () => {
    const estimate = contrast(model(paper.popeAccuracy), { 'language[7b]:encoder[dinov2]': 2 });
    expect(estimate.value).toBeCloseTo(-3.9, 1);
    expect(estimate).toMatchObject({ se: Number.NaN, df: 0, low: -Infinity, high: Infinity, p: 1 });
  });
});

describe('designOf', () => {
  const factors = fullFactorial({ encoder: ['clip', 'siglip', 'dinov2'], stage1: ['yes', 'no'] });

  it('codes levels against the first, summing to zero', () => {
    const { names, columns, terms } = designOf(factors);
    expect(names).toEqual([
      '(mean)',
      'encoder[siglip]',
      'encoder[dinov2]',
      'stage1[no]',
      'encoder[siglip]:stage1[no]',
      'encoder[dinov2]:stage1[no]',
    ]);
    expect([...columns[1]]).toEqual([-1, -1, 1, 1, 0, 0]);
    expect([...columns[3]]).toEqual([-1, 1, -1, 1, -1, 1]);
    expect(Array.from(columns[4], (value) => value + 0)).toEqual([1, -1, -1, 1, 0, 0]);
    expect(terms.map((term) => term.factors.join())).toEqual(['encoder', 'stage1', 'encoder,stage1']);
    expect(terms[2].columns).toEqual(names.slice(4));
  });

  it('leaves out interactions above the order', () => {
    expect(designOf(factors, 1).names).toHaveLength(4);
    expect(designOf(paperFactors, 2).terms.map((term) => term.factors.length)).toEqual([1, 1, 1, 2, 2, 2]);
  });

  it('refuses what makes no factor', () => {
    expect(() => designOf([])).toThrow(RangeError);
    expect(() => designOf([factors[0], factors[0]])).toThrow('same name');
    expect(() => designOf([{ name: 'a', levels: ['x'], values: [0] }])).toThrow('fewer than two levels');
    expect(() => designOf([{ name: 'a', levels: ['x', 'y'], values: [0, 2] }])).toThrow('factor a has no level 2');
    expect(() => cellDifference(factors, { language: '2b' }, {})).toThrow('no factor language');
    expect(() => cellDifference(factors, { stage1: 'maybe' }, {})).toThrow('no level maybe');
  });

  it('gives differences of cells, also of a factor with three levels', () => {
    const scores = [0.5, 0.4, 0.6, 0.55, 0.3, 0.35];
    const value = (...cells: Parameters<typeof cellDifference> extends [unknown, ...infer Rest] ? Rest : never) =>
      contrast(fitLinearModel(scores, designOf(factors)), cellDifference(factors, ...cells)).value;
    expect(value({ encoder: 'dinov2', stage1: 'no' }, { encoder: 'siglip', stage1: 'yes' })).toBeCloseTo(0.35 - 0.6, 12);
    expect(value({ encoder: 'dinov2' }, { encoder: 'clip' })).toBeCloseTo(0.325 - 0.45, 12);
    expect(value({ stage1: 'no' }, {})).toBeCloseTo(1.3 / 3 - 2.7 / 6, 12);
  });
});

/** Scores of 8 cells x seeds runs on the same questions, with noise of both. */
function answers(seeds: number, questions: number) {
  const runFactors = fullFactorial({ a: ['0', '1'], b: ['0', '1'], c: ['0', '1'] }, seeds);
  const runCount = 8 * seeds;
  const random = createRandom(5);
  const shifts = Array.from({ length: runCount }, () => 0.05 * random.normal());
  const rows = Array.from({ length: runCount * questions }, (_, row) => ({ run: row % runCount, question: Math.floor(row / runCount) }));
  const y = rows.map(
    ({ run, question }) => 0.1 * runFactors[0].values[run] + shifts[run] + 0.2 * Math.sin(question) + 0.3 * random.normal(),
  );
  const factors = runFactors.map((factor) => ({ ...factor, values: rows.map(({ run }) => factor.values[run]) }));
  return { y, factors, runs: rows.map(({ run }) => run), questions: rows.map(({ question }) => question), runFactors, runCount };
}

describe('fitLinearModel', () => {
  it('clustered by run is least squares on the means of the runs', () => {
    const { y, factors, runs, runFactors, runCount } = answers(3, 25);
    const means = Array.from({ length: runCount }, (_, run) =>
      y.filter((_, i) => runs[i] === run).reduce((sum, each) => sum + each / 25, 0),
    );
    const ofMeans = fitLinearModel(means, designOf(runFactors));
    const model = fitLinearModel(y, designOf(factors), { clusters: [runs] });
    expect(model.df).toBe(16);
    expect(model.clusterCounts).toEqual([24]);
    for (const name of model.names) {
      const [got, wanted] = [contrast(model, { [name]: 2 }), contrast(ofMeans, { [name]: 2 })];
      for (const key of ['value', 'low', 'high', 'p'] as const) expect(got[key]).toBeCloseTo(wanted[key], 10);
    }
  });

  it('two ways is the sum of both less what they share, never surer than one', () => {
    const { y, factors, runs, questions } = answers(3, 25);
    const model = fitLinearModel(y, designOf(factors), { clusters: [questions, runs] });
    const [byQuestion, byRun] = [[questions], [runs]].map((clusters) => fitLinearModel(y, designOf(factors), { clusters }));
    // effects differ between runs, eight of 24, and within questions
    expect(model.ways.map(({ df }) => df)).toEqual([24, 16]);
    expect(model).toMatchObject({ df: 16, clusterCounts: [25, 24] });
    const swapped = fitLinearModel(y, designOf(factors), { clusters: [runs, questions] });
    model.covariance.forEach((value, i) => {
      expect(value).toBeCloseTo(swapped.covariance[i], 14);
      expect(model.ways.map(({ covariance }) => covariance[i])).toEqual([byQuestion.covariance[i], byRun.covariance[i]]);
    });
    for (const name of model.names) {
      const ses = [model, byQuestion, byRun].map((each) => contrast(each, { [name]: 1 }).se);
      expect(ses[0]).toBeGreaterThanOrEqual(Math.max(ses[1], ses[2]));
      const { df } = contrast(model, { [name]: 1 });
      expect(df).toBeGreaterThanOrEqual(16);
      expect(df).toBeLessThanOrEqual(24);
    }
  });

  it('finds what was planted, one by one and together', () => {
    const { y, factors, runs, questions } = answers(4, 50);
    const model = fitLinearModel(y, designOf(factors), { clusters: [questions, runs] });
    const estimate = contrast(model, { 'a[1]': 2 });
    expect(estimate.low).toBeGreaterThan(0);
    expect(estimate.low).toBeLessThan(0.1);
    expect(estimate.high).toBeGreaterThan(0.1);
    const interactions = designOf(factors)
      .terms.filter((term) => term.factors.length > 1)
      .flatMap((term) => term.columns);
    expect(jointTest(model, interactions)).toMatchObject({ df1: 4, df2: 24 });
    expect(jointTest(model, interactions).p).toBeGreaterThan(0.05);
    expect(jointTest(model, ['a[1]', ...interactions]).p).toBeLessThan(0.01);
    // one coefficient: F is the t of the contrast, squared
    const alone = fitLinearModel(y, designOf(factors), { clusters: [runs] });
    expect(jointTest(alone, ['b[1]']).p).toBeCloseTo(contrast(alone, { 'b[1]': 1 }).p, 12);
  });

  it('is a mean with errors of both, where there is nothing but a mean', () => {
    const { y, runs, questions, runCount } = answers(2, 30);
    const { value, se, df } = twoWayMean(y, questions, runs);
    const mean = y.reduce((sum, each) => sum + each, 0) / y.length;
    expect(value).toBeCloseTo(mean, 12);
    const variance = (keys: number[], count: number) => {
      const sums = new Float64Array(count);
      keys.forEach((key, i) => {
        sums[key] += y[i] - mean;
      });
      return ((count / (count - 1)) * sums.reduce((sum, each) => sum + each ** 2, 0)) / y.length ** 2;
    };
    const each = variance(
      y.map((_, i) => i),
      y.length,
    );
    expect(se ** 2).toBeCloseTo(variance(questions, 30) + variance(runs, runCount) - each, 12);
    expect(df).toBeGreaterThanOrEqual(15);
  });

  it('takes 40 runs of 1,000 questions and 8 columns in less than a second', () => {
    const { y, factors, runs, questions } = answers(5, 1000);
    const start = process.cpuUsage().user;
    const model = fitLinearModel(y, designOf(factors), { clusters: [questions, runs] });
    const seconds = (process.cpuUsage().user - start) / 1e6;
    expect(model.n).toBe(40_000);
    expect(seconds).toBeLessThan(1);
  });

  it('says which effect the data cannot tell, and measures no noise with a run a cell', () => {
    const [language, encoder] = paperFactors;
    const copy = { ...language, name: 'again' };
    expect(() => fitLinearModel(paper.gqa, designOf([language, encoder, copy], 1))).toThrow(
      'the data cannot tell again[7b] from the effects before it',
    );
    const model = fitLinearModel(paper.gqa, designOf(paperFactors), { clusters: [[0, 1, 2, 3, 4, 5, 6, 7]] });
    expect(contrast(model, { 'stage1[no]': 2 })).toMatchObject({ df: 0, se: Number.NaN, p: 1 });
    expect(jointTest(model, ['stage1[no]'])).toMatchObject({ f: Number.NaN, p: Number.NaN });
    expect(() => contrast(model, { 'stage1[maybe]': 1 })).toThrow('no column stage1[maybe]');
    expect(() => jointTest(model, [])).toThrow(RangeError);
    expect(() => fitLinearModel([1, 2], designOf(paperFactors))).toThrow('2 observations for columns of 8');
    expect(() => fitLinearModel(paper.gqa, designOf(paperFactors), { clusters: [[], [], []] })).toThrow('at most two');
  });
});
