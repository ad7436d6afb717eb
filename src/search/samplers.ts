// Points of the unit cube that do not depend on what earlier ones were worth: independent ones, and scrambled
// sequences that fill the cube evenly. Each is a pure function of a seed and an index.

import { UserError } from '../errors.ts';
import { createRandom } from '../random.ts';

const PRIMES = [2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47, 53];

/** Independent, uniform. */
export function randomPoint(dimensions: number, index: number, seed: number): number[] {
  const random = createRandom(seed, 'random point', index);
  return Array.from({ length: dimensions }, () => random.uniform());
}

/**
 * The radical inverse of `index` in a base: its digits behind the point, the last one first. `digitAt` may
 * exchange the digit of a place; places behind the last digit hold 0, which it may exchange too.
 */
export function radicalInverse(index: number, base: number, digitAt: (digit: number, place: number) => number = (digit) => digit): number {
  let value = 0;
  // as far as a double tells numbers apart
  for (let place = 0, rest = index, weight = 1 / base; weight > 2 ** -40; place++, weight /= base) {
    value += digitAt(rest % base, place) * weight;
    rest = Math.floor(rest / base);
  }
  return Math.min(value, 1 - 2 ** -40);
}

/**
 * Halton's sequence (1960), a prime for each dimension, with a random permutation of the digits of each place
 * (Owen 2017, arXiv 1706.02808): plain Halton runs along lines where primes are large.
 */
export function haltonPoint(dimensions: number, index: number, seed: number): number[] {
  if (dimensions > PRIMES.length)
    throw new UserError(`sampler halton: has at most ${PRIMES.length} dimensions, and the space has ${dimensions}; take random or tpe`);
  return PRIMES.slice(0, dimensions).map((base, dimension) =>
    radicalInverse(index, base, (digit, place) => permutationOf(base, seed, dimension, place)[digit]),
  );
}

function permutationOf(base: number, seed: number, dimension: number, place: number): number[] {
  const digits = Array.from({ length: base }, (_, digit) => digit);
  return createRandom(seed, 'halton', dimension, place).shuffle(digits);
}

/**
 * Direction numbers of Joe & Kuo (2008), new-joe-kuo-6: degree and coefficients of a primitive polynomial,
 * and the first odd numbers. The first dimension has none.
 */
const DIRECTIONS: readonly (readonly [degree: number, coefficients: number, first: readonly number[]])[] = [
  [1, 0, [1]],
  [2, 1, [1, 3]],
  [3, 1, [1, 3, 1]],
  [3, 2, [1, 1, 1]],
  [4, 1, [1, 1, 3, 3]],
  [4, 4, [1, 3, 5, 13]],
  [5, 2, [1, 1, 5, 5, 17]],
  [5, 4, [1, 1, 5, 5, 5]],
  [5, 7, [1, 1, 7, 11, 19]],
];

const BITS = 32;

/** The columns of a dimension's generator, as 32-bit numbers. */
function directionsOf(dimension: number): number[] {
  if (dimension === 0) return Array.from({ length: BITS }, (_, i) => (1 << (BITS - 1 - i)) >>> 0);
  const [degree, coefficients, first] = DIRECTIONS[dimension - 1];
  const columns = first.map((odd, i) => (odd << (BITS - 1 - i)) >>> 0);
  for (let i = degree; i < BITS; i++) {
    let column = columns[i - degree] ^ (columns[i - degree] >>> degree);
    for (let k = 1; k < degree; k++) if ((coefficients >> (degree - 1 - k)) & 1) column ^= columns[i - k];
    columns.push(column >>> 0);
  }
  return columns;
}

/** Point `index` of Sobol's sequence (1967) in the order of Gray codes, as 32-bit numbers. */
export function sobolBits(dimensions: number, index: number): number[] {
  if (dimensions > DIRECTIONS.length + 1)
    throw new UserError(
      `sampler sobol: has at most ${DIRECTIONS.length + 1} dimensions, and the space has ${dimensions}; take random or tpe`,
    );
  const gray = (index ^ (index >>> 1)) >>> 0;
  return Array.from({ length: dimensions }, (_, dimension) => {
    let bits = 0;
    for (const [i, column] of directionsOf(dimension).entries()) if ((gray >>> i) & 1) bits ^= column;
    return bits >>> 0;
  });
}

/** Sobol's sequence with a random shift of its digits: every point is uniform, and evenness stays. */
export function sobolPoint(dimensions: number, index: number, seed: number): number[] {
  return sobolBits(dimensions, index).map((bits, dimension) => {
    const shift = createRandom(seed, 'sobol', dimension).integer(2 ** BITS);
    return ((bits ^ shift) >>> 0) / 2 ** BITS;
  });
}
