import { describe, expect, it } from 'vitest';
import { answerKind, isCorrect, normalizeText, parseCount, parseLetter, parseYesNo, yesNoScores } from './scoring.ts';

describe('reading answers', () => {
  it.each([
    ['Yes, there is a cat.', 'yes'],
    ['No, there is no cat.', 'no'],
    ['There is not a cat', 'no'],
    ['Yes. There is no dog, though.', 'yes'], // only the first sentence counts
    ['NO', 'yes'], // POPE looks for No, no and not only
    ['Nothing here', 'yes'],
    ['no,', 'no'],
    ['', 'yes'],
  ])('yes/no as POPE: %j', (text, answer) => {
    expect(parseYesNo(text)).toBe(answer);
  });

  it.each([
    ['B', 'B'],
    [' C ', 'FAILED'],
    ['B. ', 'B'],
    ['The answer is D', 'FAILED'],
    ['The answer is D ', 'D'],
    ['A. a fruit', 'A'],
    ['The answer is D.', 'D'],
    ['The answer is A. The answer is B.', 'FAILED'],
    ['b', 'FAILED'],
    ['a fruit', 'FAILED'],
    ['AB', 'FAILED'],
    ['see B. animal', 'FAILED'],
    ['B.animal', 'FAILED'],
    ['Well, The answer is C, I think', 'C'], // its full stop stands for any character
    ['B.', 'FAILED'], // shorter than `B. `, and ScienceQA has no rule for it
  ])('letters as ScienceQA: %j', (text, answer) => {
    expect(parseLetter(text)).toBe(answer);
  });

  it('letters of questions with few options, and of texts that a model wrote', () => {
    expect(['F', 'F. it', 'I. The answer is B.', 'E'].map((text) => parseLetter(text, 'ABCDE'))).toEqual(['FAILED', 'FAILED', 'B', 'E']);
    expect([' C ', 'B. '].map((text) => isCorrect('letter', text.trim(), text))).toEqual([true, false]);
  });

  it.each([
    ['3', '3'],
    ['three', '3'],
    ['There are Two cats.', '2'],
    ['03', '3'],
    ['12 of them', '12'],
    ['two or 3', '2'],
    ['3 or two', '3'],
    ['someone', 'FAILED'],
    ['eleven', 'FAILED'],
    ['none', 'FAILED'],
    ['', 'FAILED'],
  ])('counts: %j', (text, answer) => {
    expect(parseCount(text)).toBe(answer);
  });

  it('number words up to ten', () => {
    const words = 'zero one two three four five six seven eight nine ten'.split(' ');
    expect(words.map((word) => parseCount(`There are ${word}.`))).toEqual(words.map((_, i) => String(i)));
  });

  it('text without case, surrounding space or final stop', () => {
    expect(normalizeText('  Red Apple. ')).toBe('red apple');
    expect(normalizeText('U.S. flag')).toBe('u.s. flag');
    expect(normalizeText('cat ... ')).toBe('cat');
    expect(normalizeText(' .cat')).toBe('.cat');
  });
});

describe('isCorrect', () => {
  it('compares what the answers say', () => {
    expect(isCorrect('yes-no', 'yes', 'Yes, it is.')).toBe(true);
    expect(isCorrect('count', '2', 'two')).toBe(true);
    expect(isCorrect('letter', 'B', 'B. animal')).toBe(true);
    expect(isCorrect('text', 'cat', 'Cat.')).toBe(true);
    expect(isCorrect('text', 'cat', 'cat face')).toBe(false);
  });

  it('never takes two unreadable answers for equal', () => {
    expect(isCorrect('letter', '?', 'no idea')).toBe(false);
    expect(isCorrect('count', 'none', 'none')).toBe(false);
    expect(isCorrect('text', 'none', 'none')).toBe(true);
  });

  it('chooses the kind by the task', () => {
    expect([answerKind('existence'), answerKind('count'), answerKind('category'), answerKind('colour')]).toEqual([
      'yes-no',
      'count',
      'letter',
      'text',
    ]);
  });
});

describe('yesNoScores', () => {
  it('counts as POPE does', () => {
    const pairs = [
      ...Array(6).fill({ expected: 'yes', answer: 'Yes' }),
      ...Array(2).fill({ expected: 'yes', answer: 'No' }),
      ...Array(3).fill({ expected: 'no', answer: 'yes' }),
      ...Array(9).fill({ expected: 'no', answer: 'no' }),
    ];
    const scores = yesNoScores(pairs);
    expect(scores.accuracy).toBeCloseTo(15 / 20);
    expect(scores.precision).toBeCloseTo(6 / 9);
    expect(scores.recall).toBeCloseTo(6 / 8);
    expect(scores.f1).toBeCloseTo((2 * (6 / 9) * (6 / 8)) / (6 / 9 + 6 / 8));
    expect(scores.yesRate).toBeCloseTo(9 / 20);
  });

  it('is 0, not NaN, of no questions', () => {
    expect(yesNoScores([])).toEqual({ accuracy: 0, precision: 0, recall: 0, f1: 0, yesRate: 0 });
  });

  it('is 0, not NaN, when the model never says yes', () => {
    const scores = yesNoScores([{ expected: 'yes', answer: 'no' }]);
    expect(scores).toEqual({ accuracy: 0, precision: 0, recall: 0, f1: 0, yesRate: 0 });
  });
});
