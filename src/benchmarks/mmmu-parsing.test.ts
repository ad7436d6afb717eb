import { expect, it } from 'vitest';
import { isOpenRight, parseChoice, parseOpen, parsePythonList } from './mmmu-parsing.ts';

const texts = { A: 'apple', B: 'Pear', C: 'plum tree', D: '3' };

// what parse_multi_choice_response of MMMU gives; undefined where it draws
it.each([
  ['B', 'B'],
  ["'C'.", 'C'],
  ['is could be (A)\n(C).5 ', 'C'], // brackets before bare letters, the last one
  [': xplum tree thus. Pear (A)\nA (A)\n', 'A'],
  ['so\nthe D Thereforeanswer. ', 'D'],
  ['A man says B', 'B'],
  ['A) apple', undefined], // no bracket before it, no space behind it
  ['B. Pear', undefined],
  ['apple', undefined], // too short to be searched for a text
  ['it is a plum tree not a PEAR', 'B'],
  ['inf\n3,. .\n١٢ plum tree ', 'C'],
  ['apple .5 nan. .5 é\né ', 'A'],
  ['', undefined],
  ['b', undefined],
])('option in %j', (answer, letter) => {
  expect(parseChoice(answer, texts)).toBe(letter);
});

// what parse_open_response and eval_open of MMMU give
it.each([
  ['5', ['5'], true],
  ['The answer is 1,000.', ['1000'], true],
  ['x = 2.346', ['2.35'], true], // two digits
  ['so 0.125', ['0.12'], true], // a half to the even digit
  ['5Ω', ['5'], false], // Ω is a letter to Python
  ['5°', ['5'], true],
  ['1e3', ['1000'], true],
  ['°C the5Ω\n\n\n-3.5 ', ['x', '-3.5'], true],
  ['10,00 is. is. apple 0.125 : (C) ', ['0.12'], true],
  ['inf =x D', ['inf'], false],
  ['nan', ['nan'], false],
  ['It is Tampa', ['Tampa', 'Florida'], true],
  ['cat', ['C'], false], // one letter must have a space beside it
  ['vitamin c', ['C'], true],
  ['', ['5'], false],
])('%j against %j', (answer, golds, right) => {
  expect(isOpenRight(golds, parseOpen(answer))).toBe(right);
});

it("reads Python's lists", () => {
  expect(parsePythonList(`['a', "it's", 'say "x"', '\\\\frac{1}{2}', '\\n\\t\\xe9\\u00e9', 3, 'both \\' and "']`, 'x')).toEqual([
    'a',
    "it's",
    'say "x"',
    '\\frac{1}{2}',
    '\n\téé',
    '3',
    'both \' and "',
  ]);
  expect(parsePythonList(' [] ', 'x')).toEqual([]);
  expect(() => parsePythonList('A, B', 'a.parquet, row 2')).toThrow('a.parquet, row 2: is no list of Python: A, B');
  expect(() => parsePythonList("['a' 'b']", 'x')).toThrow(/is no list of Python's texts/);
});
