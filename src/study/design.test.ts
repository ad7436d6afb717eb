import { describe, expect, test } from 'vitest';
import { UserError } from '../errors.ts';
import { cellsOf } from './design.ts';
import { parseStudy, type StudyFactor, type StudyFile } from './study-schema.ts';

const factor = (name: string, ...labels: string[]): StudyFactor => ({
  name,
  field: name,
  levels: labels.map((label) => ({ label, value: label, set: [], drop: [] })),
});
const twoLevels = (names: string) => [...names].map((name) => factor(name, '0', '1'));

const cells = (factors: StudyFactor[], design: StudyFile['design']) => cellsOf(factors, design, 'study.yaml').map((cell) => cell.join(''));

describe('a design', () => {
  test('of all cells changes the last factor fastest', () => {
    expect(cells([factor('A', 'x', 'y'), factor('B', '1', '2', '3')], 'full')).toEqual(['00', '01', '02', '10', '11', '12']);
  });

  test('by a generator is half of the cells, the first among them', () => {
    expect(cells(twoLevels('ABC'), { generators: ['C = A * B'] })).toEqual(['000', '011', '101', '110']);
  });

  test.each([
    [5, 5, 16],
    [5, 3, 8],
    [6, 4, 16],
    [7, 3, 8],
    [4, 4, 8],
  ])('of %i factors with resolution %i has %i cells, each level as often', (k, resolution, count) => {
    const found = cells(twoLevels('ABCDEFG'.slice(0, k)), { resolution });
    expect(found).toHaveLength(count);
    for (let i = 0; i < k; i++) expect(found.filter((cell) => cell[i] === '1')).toHaveLength(count / 2);
    // main effects are told from each other
    for (let i = 0; i < k; i++) for (let j = 0; j < i; j++) expect(found.filter((cell) => cell[i] === cell[j])).toHaveLength(count / 2);
  });

  test('that is listed is in the order of the whole', () => {
    const listed = [
      { A: 1, B: 1 },
      { A: 0, B: 1 },
    ];
    expect(cells(twoLevels('AB'), { cells: listed })).toEqual(['01', '11']);
  });

  test.each([
    [{ generators: ['C = A * D'] }, 'generator "C = A * D" names no factor: D; there are A, B, C'],
    [{ generators: ['C'] }, 'must look like D = A * B * C'],
    [{ resolution: 5 }, '3 factors have no fraction of resolution 5: take full'],
    [
      {
        cells: [
          { A: 0, B: 1 },
          { A: 0, B: 1, C: 1 },
        ],
      },
      'design.cells.0: says no level of factor C',
    ],
    [
      {
        cells: [
          { A: 0, B: 1, C: 1 },
          { A: 0, B: 1, C: 1 },
        ],
      },
      'design.cells.1: the cell is listed twice',
    ],
  ] as [StudyFile['design'], string][])('%j is refused', (design, message) => {
    expect(() => cells(twoLevels('ABC'), design)).toThrow(UserError);
    expect(() => cells(twoLevels('ABC'), design)).toThrow(message);
  });

  test('fractions are of factors with two levels', () => {
    expect(() => cells([factor('A', 'x', 'y', 'z'), ...twoLevels('BC')], { resolution: 3 })).toThrow('A has 3');
  });
});

test('a study file is refused in one sentence', () => {
  const whole = { name: 'n', recipe: 'r', factors: [{ name: 'A', field: 'seed', levels: [1, 2] }], seeds: 2 };
  expect(parseStudy(whole, 's')).toMatchObject({ design: 'full', score: { exchanged: true }, seeds: 2 });
  const cases: [object, string][] = [
    [{ ...whole, seed: 3 }, 's: unknown field seed; did you mean seeds?'],
    [{ ...whole, seeds: [] }, 'a study needs seeds'],
    [{ ...whole, seeds: [1, 1] }, 'seeds has a seed twice'],
    [{ ...whole, factors: [] }, 'names no factors and no convergence'],
    [{ ...whole, design: 'half' }, 'design: must be full, {resolution: N}'],
    [{ ...whole, factors: [{ name: 'A', field: 'seed', levels: [1] }] }, 'levels: must have at least 2 elements'],
  ];
  for (const [value, message] of cases) expect(() => parseStudy(value, 's')).toThrow(message);
});
