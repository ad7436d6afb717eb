import { describe, expect, it } from 'vitest';
import type { Rows } from '../alignment/matrices.ts';
import type { Sample } from '../evaluate/samples.ts';
import { meanCredit } from '../statistics/proportion.ts';
import { answerFindings } from './answer-signs.ts';
import { rankFindings } from './findings.ts';
import { constantAnswer, detection, divergence, repetition, unparsedShare, yesBiases } from './measures.ts';
import { modelFindings } from './model-signs.ts';
import type { ModelMeasures } from './probe.ts';
import { layerLook, meanNorm, movementOf, sinkRows, spreadRows } from './row-measures.ts';
import { movementVerdict } from './weight-signs.ts';

const rows = (width: number, ...values: number[]): Rows => ({ data: Float32Array.from(values), count: values.length / width, width });

describe('rows', () => {
  it('have norms, and are moved by a share of them', () => {
    expect(meanNorm(rows(2, 3, 4, 0, 1))).toBe(3);
    expect(movementOf(rows(2, 3, 4, 0, 5), rows(2, 3, 5, 2, 5))).toBeCloseTo(0.3, 12);
  });

  it('are spread where there are many', () => {
    const many = rows(1, 0, 1, 2, 3, 4, 5, 6, 7);
    expect([...spreadRows(many, 4).data]).toEqual([0, 2, 4, 6]);
    expect([...spreadRows(many, 3).data]).toEqual([0, 2, 5]);
    expect(spreadRows(many, 100).data).toHaveLength(8);
  });
});

describe('sinks', () => {
  const width = 4096;
  const row = (peaks: Record<number, number>) => Float32Array.from({ length: width }, (_, i) => peaks[i] ?? (i % 2 ? 1 : -1));

  it('peak where the first token does, by 20 times the root mean square at the width of the paper', () => {
    const first = row({ 7: 90, 300: -60 });
    const image = { data: new Float32Array([...row({}), ...row({ 300: 25 }), ...row({ 8: 90 }), ...row({ 7: -19 })]), count: 4, width };
    // 25 / sqrt((4095 + 625) / 4096) is 23 times the root mean square, 19 / sqrt((4095 + 361) / 4096) is 18
    expect(sinkRows(first, image)).toEqual([false, true, false, false]);
    expect(sinkRows(row({ 7: 12 }), image)).toEqual([false, false, false, false]);
  });

  it('are as many in narrow rows, which cannot reach 20', () => {
    const narrow = { data: Float32Array.from([1, 5, 1, 1, 1, -1, 1, 0]), count: 2, width: 4 };
    expect(sinkRows([0, 9, 1, 1], narrow)).toEqual([true, true]);
    expect(sinkRows([0, 9, 1, 1], { data: Float32Array.from([5, 0, 0.1, 5]), count: 1, width: 4 })).toEqual([false]);
  });

  it('take their share of the attention on the picture', () => {
    const states = rows(2, 10, 0.1, 0.1, 1, 8, 0.1, 0.2, 1, 1, 1);
    const attention = { text: [0.5, 0.2, 0.2, 0.05, 0.05], answer: [0.2, 0.1, 0.3, 0, 0.4] };
    // both dimensions are those of the first token: image rows peak in one of them
    const look = layerLook(attention, states, [1, 4]);
    expect(look.text).toBeCloseTo(0.45, 12);
    expect(look.answer).toBeCloseTo(0.4, 12);
    expect(look.sinks).toBe(1);
    expect(look.sinkAttention).toBeCloseTo(1, 12);
    expect(layerLook(attention, rows(2, ...new Array(10).fill(0)), [1, 4])).toMatchObject({ sinks: 0, sinkAttention: 0 });
  });
});

describe('a model', () => {
  const look = { text: 0.5, answer: 0.4, sinks: 0, sinkAttention: 0 };
  const healthy: ModelMeasures = {
    pictures: 8,
    loss: 1,
    blankGain: 1,
    exchangedGain: 1,
    shiftedLoss: { before: 9, after: 9 },
    normRatio: 1,
    layerNormRatios: [1, 1, 1],
    imageNorm: 1,
    movement: 0.5,
    looks: [look, look],
    imageShare: 0.5,
    modalityGap: 0.6,
    neighbors: { overlap: 0.5, chance: 0.1 },
    mir: { mir: 3, equalNormMir: 1 },
    effectiveRank: 50,
    rowsRanked: 256,
    cosineBetweenPictures: 0.2,
    untouchedBiases: false,
    noiseEffect: 0.2,
    labels: { least: 3, mean: 5, first: 'a', last: '.' },
  };
  const levelOf = (sign: string, changes: Partial<ModelMeasures> = {}) =>
    modelFindings({ ...healthy, ...changes }).find((finding) => finding.sign === sign)!;

  it('that looks at its pictures in no layer is told so, with the layer that looks most', () => {
    expect(levelOf('no-attention').level).toBe('green');
    const [blind, nearly] = [
      { ...look, text: 0.001 },
      { ...look, text: 0.008 },
    ];
    expect(levelOf('no-attention', { looks: [blind, nearly] })).toMatchObject({ level: 'amber', numbers: { mass: 0.008, layer: 2 } });
    expect(levelOf('no-attention', { looks: [blind, look] }).level).toBe('green');
  });

  it('whose attention goes to sinks is told so', () => {
    expect(levelOf('visual-sinks').level).toBe('green');
    const sunk = { ...look, sinks: 0.02, sinkAttention: 0.8 };
    expect(levelOf('visual-sinks', { looks: [look, sunk] })).toMatchObject({ level: 'amber', numbers: { sinkAttention: 0.8, layer: 2 } });
    expect(levelOf('visual-sinks', { looks: [look, { ...sunk, sinkAttention: 0.3 }] }).level).toBe('green');
  });

  it('has numbers without a threshold, whatever they are', () => {
    for (const sign of ['modality-gap', 'mir']) expect(levelOf(sign).level).toBe('info');
    expect(levelOf('mir', { mir: { mir: 9, equalNormMir: 5 } })).toMatchObject({ level: 'info', numbers: { mir: 9, equalNormMir: 5 } });
    expect(rankFindings(modelFindings(healthy)).at(0)!.level).toBe('info');
  });
});

it('modules that are trained and stay where they were are red', () => {
  const at = (moved: number, isTrained = true) => movementVerdict([{ module: 'multi_modal_projector', isTrained, moved }]).level;
  expect([at(0.2), at(1e-3), at(1e-7), at(0), at(0, false)]).toEqual(['green', 'green', 'red', 'red', 'green']);
  expect(movementVerdict([]).level).toBe('unknown');
});

const sample = (task: string, expected: string, answer: string, image = 'a', blindCorrect?: boolean): Sample => ({
  id: `${task} ${image}`,
  image,
  task,
  split: 'test',
  prompt: '?',
  expected,
  answer,
  correct: expected === answer,
  ...(blindCorrect === undefined ? {} : { blindCorrect }),
});

const times = <T>(n: number, make: (i: number) => T): T[] => Array.from({ length: n }, (_, i) => make(i));

describe('answers', () => {
  it("have d' and c", () => {
    const { sensitivity, criterion } = detection(0.95, 0.45);
    expect(sensitivity).toBeCloseTo(1.771, 3);
    expect(criterion).toBeCloseTo(-0.76, 3);
  });

  const existence = (split: string, yes: number, n = 100) =>
    times(n, (i) => ({ ...sample('existence', i % 2 ? 'yes' : 'no', i < yes ? 'yes' : 'no', `${split} ${i}`), split }));

  it('are counted as if half of the questions were to be answered with yes', () => {
    const asked = [
      ...times(30, (i) => sample('existence', 'yes', 'yes', `a${i}`)),
      ...times(10, (i) => sample('existence', 'no', i < 5 ? 'yes' : 'no', `b${i}`)),
    ];
    const [{ yesRate, low, high, criterion }] = yesBiases(asked);
    expect(yesRate).toBeCloseTo(0.75, 12);
    expect(criterion).toBeLessThan(0);
    // Newcombe's squares of the two intervals, each picture a cluster
    const shares = [new Array(30).fill(1), [1, 1, 1, 1, 1, 0, 0, 0, 0, 0]];
    const [hits, alarms] = shares.map((isYes) => meanCredit(isYes, { clusters: isYes.map((_, i) => `${i}`) }));
    expect(low).toBeCloseTo(0.75 - Math.hypot(1 - hits.low, 0.5 - alarms.low) / 2, 10);
    expect(high).toBeCloseTo(0.75 + Math.hypot(1 - hits.high, alarms.high - 0.5) / 2, 10);
    expect(yesBiases(asked.slice(0, 30))).toEqual([]);
    // the truth is what counts: nine in ten are to be answered so, and are
    const mostly = times(100, (i) => sample('existence', i < 90 ? 'yes' : 'no', i < 90 ? 'yes' : 'no', `${i}`));
    expect(yesBiases(mostly)[0].yesRate).toBe(0.5);
  });

  it('lean to yes where they do so on every split', () => {
    const yesOf = (...samples: Sample[]) => answerFindings({ samples }).find(({ sign }) => sign === 'yes-bias')!.level;
    expect(yesOf(...existence('seen', 50), ...existence('unseen', 48))).toBe('green');
    // what it cannot know it denies: that is about one split
    expect(yesOf(...existence('seen', 50), ...existence('concepts', 5))).toBe('amber');
    expect(yesOf(...existence('seen', 95), ...existence('concepts', 5))).toBe('amber');
    expect(yesOf(...existence('seen', 100), ...existence('unseen', 99), ...existence('concepts', 90))).toBe('red');
    expect(yesOf(...existence('seen', 2), ...existence('unseen', 1))).toBe('red');
    // of few questions nothing can be told, unless all are answered so
    expect(yesOf(...existence('seen', 7, 10))).toBe('green');
    expect(yesOf(...existence('seen', 12, 12))).toBe('red');
  });

  it('of many words repeat themselves, or those to other pictures', () => {
    const about = (answer: string, expected: string, image: string) => sample('describe', expected, answer, image);
    const first = 'a red car stands left of the blue house near a tree';
    const second = 'two dogs and one cat sit below a large yellow sun';
    expect(repetition([about('a red car', first, 'x')])).toBeUndefined();
    expect(repetition([about(first, first, 'x'), about(second, second, 'y')])).toEqual({
      answers: 2,
      within: 0,
      expectedWithin: 0,
      same: 0,
    });
    const loop = new Array(6).fill('red car and').join(' ');
    // 18 words have 15 pieces, of which 3 are different
    expect(repetition([about(loop, first, 'x')])!.within).toBeCloseTo(12 / 15, 12);
    expect(repetition([about(loop, loop, 'x')])!.expectedWithin).toBeCloseTo(12 / 15, 12);
    const everywhere = times(10, (i) => about(first, `${second} ${i}`, `${i}`));
    expect(repetition(everywhere)!.same).toBe(1);
    // right both times
    expect(repetition([about(first, first, 'x'), about(first, first, 'y')])!.same).toBe(0);
    const levelOf = (...samples: Sample[]) => answerFindings({ samples }).find(({ sign }) => sign === 'repeated-answers')!.level;
    expect([levelOf(about(first, first, 'x')), levelOf(about(loop, first, 'x')), levelOf(...everywhere)]).toEqual(['green', 'red', 'red']);
    expect(levelOf(sample('existence', 'yes', 'yes'))).toBe('unknown');
  });

  it('that are always the same are found, with their task', () => {
    const colors = ['red', 'blue', 'green', 'gray'];
    const same = times(20, (i) => sample('colour', colors[i % 4], 'red'));
    const varied = times(20, (i) => sample('name', colors[i % 4], colors[i % 4]));
    expect(constantAnswer([...varied, ...same])).toEqual({
      task: 'colour',
      answer: 'red',
      share: 1,
      expectedShare: 0.25,
      different: 1,
      accuracy: 0.25,
      majority: 0.25,
    });
    expect(constantAnswer(varied)!.different).toBeCloseTo(4, 12);
  });

  it('without a form are counted apart, also where a script would read a yes', () => {
    const asked = [
      sample('existence', 'yes', 'a red car'),
      sample('existence', 'no', 'No.'),
      sample('count', '2', 'many'),
      sample('name', 'cat', ''),
    ];
    expect(unparsedShare(asked)).toBe(0.75);
  });

  it('of a model that always says yes are named', () => {
    const asked = times(40, (i) => sample('existence', i % 2 ? 'yes' : 'no', 'yes', `${i}`, i % 2 === 1));
    const [first] = rankFindings(answerFindings({ samples: asked }));
    expect(first.sign).toBe('yes-bias');
    expect(first.numbers.yesRate).toBe(1);
    expect(first.advice).not.toBe('');
  });

  it('that hang on the picture and those that do not are told apart', () => {
    const words = ['cat', 'dog', 'cow', 'fox', 'owl'];
    const seeing = times(50, (i) => sample('name', words[i % 5], words[i % 5], `${i}`, i % 5 === 0));
    const others = times(50, (i) => sample('name', words[i % 5], words[(i + 1) % 5], `${i}`));
    expect(answerFindings({ samples: seeing, exchanged: others }).every(({ level }) => level === 'green' || level === 'unknown')).toBe(
      true,
    );
    const blind = answerFindings({ samples: others, exchanged: others }).find(({ sign }) => sign === 'image-ignored (answers)')!;
    expect(blind.level).toBe('red');
    const gain = answerFindings({ samples: seeing, exchanged: others }).find(({ sign }) => sign === 'multi-modal gain')!;
    expect(gain.numbers.gain).toBeCloseTo(0.8, 12);
  });
});

it('distributions diverge by what they differ', () => {
  expect(divergence([1, 2, 3], [2, 3, 4])).toBeCloseTo(0, 12);
  const [p, q] = [0.8, 0.5];
  const expected = p * Math.log(p / q) + (1 - p) * Math.log((1 - p) / (1 - q));
  expect(divergence([Math.log(p), Math.log(1 - p)], [0, 0])).toBeCloseTo(expected, 12);
});
