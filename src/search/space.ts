// What a search varies: fields of a recipe, each with the values that it may take. Samplers see a cube of
// side 1, in which every field is an axis.

import { UserError } from '../errors.ts';
import type { DimensionFile } from './search-schema.ts';

/** A field of the recipe, by its path as `--set` takes it, and its values. */
export type Dimension = { path: string } & (
  | { kind: 'log_uniform' | 'uniform' | 'integer'; low: number; high: number }
  | { kind: 'choice'; choices: readonly unknown[] }
);

export type Space = readonly Dimension[];

/** A value for every path of a space. */
export type Values = Readonly<Record<string, unknown>>;

/** A point of the unit cube: a number in [0, 1) for each dimension. */
export type Point = readonly number[];

/** Digits of a sampled number: what is run is what is printed. */
const DIGITS = 6;

/** The space of a file. UserError, beginning with `where`, for bounds that make no range. */
export function searchSpace(fields: Readonly<Record<string, DimensionFile>>, where: string): Space {
  return Object.entries(fields).map(([path, field]): Dimension => {
    const refuse = (message: string) => new UserError(`${where}: space: ${path}: ${message}`);
    if ('choice' in field) {
      const words = field.choice.map((value) => JSON.stringify(value));
      if (new Set(words).size < words.length) throw refuse('choice has a value twice');
      return { path, kind: 'choice', choices: field.choice };
    }
    const [kind, [low, high]] = Object.entries(field)[0] as ['log_uniform' | 'uniform' | 'integer', [number, number]];
    if (!(low < high)) throw refuse(`${kind} goes from ${low} to ${high}: give the lower end first`);
    if (kind === 'log_uniform' && low <= 0) throw refuse(`log_uniform begins at ${low}, and must begin above 0`);
    if (kind === 'integer' && !(Number.isSafeInteger(low) && Number.isSafeInteger(high)))
      throw refuse(`integer goes from ${low} to ${high}: both must be whole numbers`);
    return { path, kind, low, high };
  });
}

/** How many values a dimension has; Infinity where it is continuous. */
export function levelsOf(dimension: Dimension): number {
  if (dimension.kind === 'choice') return dimension.choices.length;
  return dimension.kind === 'integer' ? dimension.high - dimension.low + 1 : Number.POSITIVE_INFINITY;
}

function valueAt(dimension: Dimension, u: number): unknown {
  if (dimension.kind === 'choice')
    return dimension.choices[Math.min(dimension.choices.length - 1, Math.floor(u * dimension.choices.length))];
  const { kind, low, high } = dimension;
  if (kind === 'integer') return Math.min(high, low + Math.floor(u * (high - low + 1)));
  const value = kind === 'uniform' ? low + u * (high - low) : low * (high / low) ** u;
  return Math.min(high, Math.max(low, Number(value.toPrecision(DIGITS))));
}

function placeOf(dimension: Dimension, value: unknown): number {
  if (dimension.kind === 'choice') {
    const index = dimension.choices.findIndex((choice) => JSON.stringify(choice) === JSON.stringify(value));
    return (index + 0.5) / dimension.choices.length;
  }
  const { kind, low, high } = dimension;
  const number = value as number;
  if (kind === 'integer') return (number - low + 0.5) / (high - low + 1);
  return kind === 'uniform' ? (number - low) / (high - low) : Math.log(number / low) / Math.log(high / low);
}

/** The values at a point of the unit cube. Numbers have six digits. */
export const valuesAt = (space: Space, point: Point): Values =>
  Object.fromEntries(space.map((dimension, i) => [dimension.path, valueAt(dimension, point[i])]));

/** The point of these values: in the middle of its cell where a dimension has cells. */
export const pointOf = (space: Space, values: Values): number[] => space.map((dimension) => placeOf(dimension, values[dimension.path]));

/** Values as `--set` takes them. */
export const overridesOf = (values: Values): string[] => Object.entries(values).map(([path, value]) => `${path}=${JSON.stringify(value)}`);

/** Each value at the ends of its range, the others in the middle: what a recipe must be able to hold. */
export function extremesOf(space: Space): Values[] {
  const middle = space.map(() => 0.5);
  return space.flatMap((dimension, i) => {
    const places = dimension.kind === 'choice' ? dimension.choices.map((_, k) => (k + 0.5) / dimension.choices.length) : [0, 1];
    return places.map((u) => valuesAt(space, middle.with(i, u)));
  });
}
