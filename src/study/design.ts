// Which cells a study has: every combination of levels, a fraction of them, or a list.

import { UserError } from '../errors.ts';
import type { StudyFactor, StudyFile } from './study-schema.ts';

/** The index of the level of each factor. */
export type CellLevels = readonly number[];

/** All combinations, the last factor changing fastest. */
export function allCells(factors: readonly Pick<StudyFactor, 'levels'>[]): number[][] {
  return factors.reduce<number[][]>((cells, { levels }) => cells.flatMap((cell) => levels.map((_, i) => [...cell, i])), [[]]);
}

type Design = StudyFile['design'];

/** The cells of a design, in the order of `allCells`. UserError for what cannot be built. */
export function cellsOf(factors: readonly StudyFactor[], design: Design, file: string): number[][] {
  if (design === 'full') return allCells(factors);
  if ('cells' in design) return listedCells(factors, design.cells, file);
  const wide = factors.find(({ levels }) => levels.length !== 2);
  if (wide)
    throw new UserError(
      `${file}: design: fractions are of factors with two levels, and ${wide.name} has ${wide.levels.length}: take full or {cells: [...]}`,
    );
  const words =
    'generators' in design
      ? design.generators.map((text) => wordOf(text, factors, file))
      : wordsFor(factors.length, design.resolution, file);
  return allCells(factors).filter((cell) => words.every((word) => isEven(word, cell)));
}

/** Resolution of a fraction: the length of its shortest defining word; undefined for a whole design. */
export function resolutionOf(words: readonly number[]): number | undefined {
  const all = new Set<number>();
  for (let chosen = 1; chosen < 1 << words.length; chosen++)
    all.add(words.reduce((product, word, i) => (chosen & (1 << i) ? product ^ word : product), 0));
  return words.length === 0 ? undefined : Math.min(...[...all].map(bits));
}

const bits = (word: number) => word.toString(2).replaceAll('0', '').length;

/** Whether, with levels -1 and 1, the factors of the word multiply to 1 times the sign of their number. */
function isEven(word: number, cell: CellLevels): boolean {
  // the cell of first levels is always there: products are compared with the one of that cell
  return cell.reduce((sum, level, i) => sum + (word & (1 << i) ? level : 0), 0) % 2 === 0;
}

/** `D = A * B * C` as a set of factors, one bit each. */
function wordOf(text: string, factors: readonly StudyFactor[], file: string): number {
  const [left, right, ...more] = text.split('=').map((side) => side.trim());
  const names = [left, ...(right ?? '').split('*').map((name) => name.trim())];
  if (right === undefined || more.length > 0 || names.length < 3 || names.includes(''))
    throw new UserError(`${file}: design: generator "${text}" must look like D = A * B * C`);
  return names.reduce((word, name) => {
    const index = factors.findIndex((factor) => factor.name === name);
    if (index < 0)
      throw new UserError(
        `${file}: design: generator "${text}" names no factor: ${name}; there are ${factors.map((factor) => factor.name).join(', ')}`,
      );
    return word ^ (1 << index);
  }, 0);
}

/** Defining words of the smallest fraction of `k` factors with this resolution. */
function wordsFor(k: number, resolution: number, file: string): number[] {
  for (let added = k - 2; added > 0; added--) {
    const found = search(k - added, k, resolution, []);
    if (found) return found;
  }
  throw new UserError(`${file}: design: ${k} factors have no fraction of resolution ${resolution}: take full`);
}

/** A word for each factor that is added to the `base` first ones: a product of these, the longest first. */
function search(base: number, k: number, resolution: number, words: readonly number[]): number[] | undefined {
  const next = base + words.length;
  if (next === k) return [...words];
  const products = Array.from({ length: (1 << base) - 1 }, (_, i) => i + 1).sort((a, b) => bits(b) - bits(a) || a - b);
  for (const product of products) {
    const tried = [...words, product | (1 << next)];
    if ((resolutionOf(tried) ?? 0) < resolution) continue;
    const found = search(base, k, resolution, tried);
    if (found) return found;
  }
  return undefined;
}

/** A cell of named levels as indices. `whole` asks for a level of every factor; others are undefined. */
export function cellIndices(
  factors: readonly StudyFactor[],
  cell: Readonly<Record<string, string | number | boolean>>,
  where: string,
): (number | undefined)[] {
  for (const name of Object.keys(cell))
    if (!factors.some((factor) => factor.name === name))
      throw new UserError(`${where}: there is no factor ${name}; there are ${factors.map((factor) => factor.name).join(', ')}`);
  return factors.map(({ name, levels }) => {
    if (cell[name] === undefined) return undefined;
    const index = levels.findIndex(({ label }) => label === String(cell[name]));
    if (index < 0)
      throw new UserError(`${where}: factor ${name} has no level ${cell[name]}; there are ${levels.map(({ label }) => label).join(', ')}`);
    return index;
  });
}

function listedCells(
  factors: readonly StudyFactor[],
  cells: readonly Record<string, string | number | boolean>[],
  file: string,
): number[][] {
  const listed = cells.map((cell, i) => {
    const indices = cellIndices(factors, cell, `${file}: design.cells.${i}`);
    const missing = indices.indexOf(undefined);
    if (missing >= 0) throw new UserError(`${file}: design.cells.${i}: says no level of factor ${factors[missing].name}`);
    return indices as number[];
  });
  const keys = listed.map((cell) => cell.join());
  const twice = keys.findIndex((key, i) => keys.indexOf(key) !== i);
  if (twice >= 0) throw new UserError(`${file}: design.cells.${twice}: the cell is listed twice`);
  const place = new Map(allCells(factors).map((cell, i) => [cell.join(), i]));
  return listed.sort((a, b) => place.get(a.join())! - place.get(b.join())!);
}
