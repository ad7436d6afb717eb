import { expect, it } from 'vitest';
import { inferLetter } from './infer-letter.ts';

const options = { A: 'a red apple', B: 'a pear', C: 'a plum' };

it.each([
  ['B', 'B'],
  [' (C). ', 'C'],
  ['B. a pear', 'B'],
  ['The answer is **C**, since A and B are not there', 'C'],
  ['A', 'A'],
  ['Not A, and not B: the answer is C', 'C'],
  ['The answer is a boat', undefined],
  ['The answer is apparent', undefined],
  ['A man sees a pear on the table', 'B'], // an article far from the end
  ['It is a pear', 'B'],
  ['A or B', undefined],
  ['a pear or a plum', undefined],
  ['D', undefined],
  ['Z', undefined],
  ['b', undefined],
  ['', undefined],
  ['It is a pear, as everybody who has ever been to a garden knows', undefined], // longer than all options twice
  ["I'm sorry, but without the image provided I say B", undefined],
])('%j means %j', (answer, letter) => {
  expect(inferLetter(answer, options)).toBe(letter);
});

it('reads letters where the texts of options are unknown', () => {
  const letters = { A: undefined, B: undefined };
  expect(['B.', 'undefined', ''].map((answer) => inferLetter(answer, letters))).toEqual(['B', undefined, undefined]);
});
