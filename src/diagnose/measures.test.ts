import { describe, expect, it } from 'vitest';
import type { Sample } from '../evaluate/samples.ts';
import { answerFindings } from './answer-signs.ts';
import { withExchangedPictures } from './data.ts';
import { rankFindings } from './findings.ts';
import { constantAnswer, detection, divergence, meanCosine, meanNorm, type Rows, someRows, unparsedShare, yesBias } from './measures.ts';

const rows = (width: number, ...values: number[]): Rows => ({ data: Float32Array.from(values), width });

describe('rows', () => {
  it('have norms, and cosines between pictures', () => {
    expect(meanNorm(rows(2, 3, 4, 0, 1))).toBe(3);
    expect(meanCosine([rows(2, 1, 0), rows(2, 0, 2)])).toBe(0);
    expect(meanCosine([rows(2, 1, 1), rows(2, 2, 2), rows(2, 3, 3)])).toBeCloseTo(1, 12);
    expect(meanCosine([rows(2, 0, 0), rows(2, 0, 0)])).toBe(0);
  });

  it('are spread where there are many', () => {
    const many = [rows(1, 0, 1, 2, 3), rows(1, 4, 5, 6, 7)];
    expect([...someRows(many, 4).data]).toEqual([0, 2, 4, 6]);
    expect(someRows(many, 100).data).toHaveLength(8);
  });
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

  it('are counted as if half of the questions were to be answered with yes', () => {
    const asked = [
      ...times(30, () => sample('existence', 'yes', 'yes')),
      ...times(10, (i) => sample('existence', 'no', i < 5 ? 'yes' : 'no')),
    ];
    expect(yesBias(asked)!.yesRate).toBeCloseTo(0.75, 12);
    expect(yesBias(asked)!.criterion).toBeLessThan(0);
    expect(yesBias(asked.slice(0, 30))).toBeUndefined();
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
    const [first] = rankFindings(answerFindings(asked));
    expect(first.sign).toBe('yes-bias');
    expect(first.numbers.yesRate).toBe(1);
    expect(first.advice).not.toBe('');
  });

  it('that hang on the picture and those that do not are told apart', () => {
    const words = ['cat', 'dog', 'cow', 'fox', 'owl'];
    const seeing = times(50, (i) => sample('name', words[i % 5], words[i % 5], `${i}`, i % 5 === 0));
    const others = times(50, (i) => sample('name', words[i % 5], words[(i + 1) % 5], `${i}`));
    expect(answerFindings(seeing, others).every(({ level }) => level === 'green' || level === 'unknown')).toBe(true);
    const blind = answerFindings(others, others).find(({ sign }) => sign === 'image-ignored (answers)')!;
    expect(blind.level).toBe('red');
    const gain = answerFindings(seeing, others).find(({ sign }) => sign === 'multi-modal gain')!;
    expect(gain.numbers.gain).toBeCloseTo(0.8, 12);
  });

  it('are asked again before other pictures', () => {
    const question = (image: string) => ({
      id: image,
      images: [image],
      imagePaths: [image],
      prompt: [],
      task: 'name',
      split: 's',
      expected: '',
    });
    const exchanged = withExchangedPictures(['a', 'a', 'b', 'c'].map(question));
    expect(exchanged.map(({ imagePaths }) => imagePaths[0])).toEqual(['c', 'c', 'a', 'b']);
    expect(exchanged.map(({ id }) => id)).toEqual(['a', 'a', 'b', 'c']);
  });
});

it('distributions diverge by what they differ', () => {
  expect(divergence([1, 2, 3], [2, 3, 4])).toBeCloseTo(0, 12);
  const [p, q] = [0.8, 0.5];
  const expected = p * Math.log(p / q) + (1 - p) * Math.log((1 - p) / (1 - q));
  expect(divergence([Math.log(p), Math.log(1 - p)], [0, 0])).toBeCloseTo(expected, 12);
});
