import { describe, expect, it } from 'vitest';
import { choicesIn, majorityBaseline, randomBaseline } from './baselines.ts';

describe('majorityBaseline', () => {
  it('gives the most frequent answer of training to every question', () => {
    expect(majorityBaseline('count', ['1', '2', '2', '3'], ['one', '1', '2'])).toEqual({ answer: '1', accuracy: 0.25, from: 'training' });
  });

  it('counts: what is said most often, not what comes first in the alphabet or in the list', () => {
    const answers = ['cat', 'dog', 'fox', 'dog', 'fox', 'fox', 'owl'];
    expect(majorityBaseline('text', answers)).toMatchObject({ answer: 'fox', accuracy: 3 / 7 });
    expect(majorityBaseline('text', ['fox'], answers)).toMatchObject({ answer: 'fox', accuracy: 1 });
    // of equals the first in the alphabet
    expect(majorityBaseline('text', ['owl', 'dog', 'fox', 'dog', 'owl']).answer).toBe('dog');
  });

  it('is 0 of no questions', () => {
    expect(majorityBaseline('text', [], ['cat']).accuracy).toBe(0);
  });

  it('falls back on the evaluation, and says so', () => {
    expect(majorityBaseline('text', ['Cat.', 'cat', 'dog'])).toEqual({ answer: 'cat', accuracy: 2 / 3, from: 'evaluation' });
  });

  it('does not depend on order', () => {
    expect(majorityBaseline('yes-no', ['yes', 'no'])).toEqual(majorityBaseline('yes-no', ['no', 'yes']));
  });

  it('is 0 when the answer of training never occurs', () => {
    expect(majorityBaseline('text', ['cat'], ['dog']).accuracy).toBe(0);
  });
});

describe('randomBaseline', () => {
  const letters = (n: number) => ({ prompt: `Which?\n${['A. x', 'B. y', 'C. z', 'D. w'].slice(0, n).join('\n')}\nAnswer.`, expected: 'A' });

  it('is a half for yes/no, even when every answer is yes', () => {
    expect(randomBaseline('existence', [{ prompt: '', expected: 'yes' }])).toBe(0.5);
  });

  it('averages one over the choices of each question', () => {
    expect(choicesIn(letters(4).prompt)).toBe(4);
    expect(randomBaseline('category', [letters(2), letters(4)])).toBeCloseTo((1 / 2 + 1 / 4) / 2);
  });

  it('counts as choices the lines that offer one', () => {
    expect(choicesIn('Is it A. or B. that is red?')).toBe(0);
    expect(choicesIn('Which? A. x\nB. y')).toBe(1);
    expect(choicesIn('How many?')).toBe(0);
  });

  it('guesses letters of a question that offers none from the answers that there are', () => {
    const bare = ['A', 'B', 'C', 'D'].map((expected) => ({ prompt: 'Which?', expected }));
    expect(randomBaseline('category', bare)).toBeCloseTo(1 / 4);
    expect(randomBaseline('category', [...bare, letters(2)])).toBeCloseTo((4 * (1 / 4) + 1 / 2) / 5);
    expect(randomBaseline('category', [{ prompt: 'Which?\nA. x', expected: 'A' }, ...bare])).toBeCloseTo((1 + 4 * (1 / 4)) / 5);
  });

  it('is 0 of no questions', () => {
    expect(randomBaseline('existence', [])).toBe(0);
    expect(randomBaseline('category', [])).toBe(0);
  });

  it('is one over the number of different answers otherwise', () => {
    const questions = ['1', 'two', '2', '4'].map((expected) => ({ prompt: 'How many?', expected }));
    expect(randomBaseline('count', questions)).toBeCloseTo(1 / 3);
  });
});
