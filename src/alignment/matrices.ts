// Dense linear algebra in float64 for what hidden states are compared by: covariances, their factors, and
// sums of singular values. Matrices are row after row. Golub & Van Loan, Matrix Computations (2013): 4.2
// (Cholesky), 5.4 (bidiagonalization), 8.3 (implicit QR).

import { concatFloat32 } from '../arrays.ts';

/** Row vectors, such as the hidden states of many tokens: [count, width]. */
export interface Rows {
  readonly data: Float32Array | Float64Array;
  readonly count: number;
  readonly width: number;
}

export interface Matrix {
  readonly data: Float64Array;
  readonly rows: number;
  readonly columns: number;
}

/** Rows that are summed up at a time, a multiple of 4: they stay in the cache. */
const STRIP = 32;

/** All rows of several sets of one width. */
export function stackRows(sets: readonly Rows[]): Rows & { data: Float32Array } {
  const data = concatFloat32(sets.map(({ data }) => (data instanceof Float32Array ? data : Float32Array.from(data))));
  return { data, count: sets.reduce((sum, { count }) => sum + count, 0), width: sets[0].width };
}

/** The mean row. */
export function meanRow({ data, count, width }: Rows): Float64Array {
  const mean = new Float64Array(width);
  for (let at = 0, row = 0; row < count; row++) for (let i = 0; i < width; i++) mean[i] += data[at++];
  return mean.map((sum) => sum / count);
}

/** Euclidean length of each row. */
export function rowNorms({ data, count, width }: Rows): Float64Array {
  const norms = new Float64Array(count);
  for (let at = 0, row = 0; row < count; row++) {
    let sum = 0;
    for (let i = 0; i < width; i++, at++) sum += data[at] * data[at];
    norms[row] = Math.sqrt(sum);
  }
  return norms;
}

/**
 * Adds the products of a strip's columns to `sum` [width, width], on and above the diagonal. Two rows of
 * the sum and four of the strip at a time: each number that is loaded is used more than once.
 */
function addProducts(sum: Float64Array, strip: Float64Array, width: number): void {
  for (let i = 0; i < width; i += 2) {
    const upper = i * width;
    const lower = upper + width;
    for (let k = 0; k < STRIP; k += 4) {
      const r0 = k * width;
      const r1 = r0 + width;
      const r2 = r1 + width;
      const r3 = r2 + width;
      const x0 = strip[r0 + i];
      const x1 = strip[r1 + i];
      const x2 = strip[r2 + i];
      const x3 = strip[r3 + i];
      const y0 = strip[r0 + i + 1];
      const y1 = strip[r1 + i + 1];
      const y2 = strip[r2 + i + 1];
      const y3 = strip[r3 + i + 1];
      for (let j = i; j < width; j++) {
        const z0 = strip[r0 + j];
        const z1 = strip[r1 + j];
        const z2 = strip[r2 + j];
        const z3 = strip[r3 + j];
        sum[upper + j] += x0 * z0 + x1 * z1 + x2 * z2 + x3 * z3;
        sum[lower + j] += y0 * z0 + y1 * z1 + y2 * z2 + y3 * z3;
      }
    }
  }
}

/**
 * Covariance [width, width] with count - 1 below, of rows about their `mean`: right on and above the
 * diagonal.
 */
function upperCovariance({ data, count, width }: Rows, mean: Float64Array): Float64Array {
  // an odd width has no second row at the end: it goes where nobody looks
  const sum = new Float64Array(width * (width + 1));
  const strip = new Float64Array(width * STRIP + 1);
  for (let first = 0; first < count; first += STRIP) {
    const filled = Math.min(STRIP, count - first);
    for (let k = 0, at = first * width; k < filled; k++) for (let i = 0; i < width; i++, at++) strip[k * width + i] = data[at] - mean[i];
    strip.fill(0, filled * width);
    addProducts(sum, strip, width);
  }
  for (let i = 0; i < sum.length; i++) sum[i] /= count - 1;
  return sum.subarray(0, width * width);
}

/** Covariance of rows, [width, width], with count - 1 below as torch and numpy have it. */
export function covariance(rows: Rows): Matrix {
  const { width } = rows;
  const data = upperCovariance(rows, meanRow(rows));
  for (let i = 0; i < width; i++) for (let j = 0; j < i; j++) data[i * width + j] = data[j * width + i];
  return { data, rows: width, columns: width };
}

/**
 * The upper triangle R with S = R'R, in place of the upper triangle of S, which may be singular: a pivot
 * that is rounding alone gives a row of zeros.
 */
function choleskyInPlace(s: Float64Array, width: number): void {
  const diagonal = Float64Array.from({ length: width }, (_, i) => s[i * width + i]);
  for (let k = 0; k < width; k++) {
    const row = k * width;
    const pivot = s[row + k];
    const isNothing = !(pivot > width * Number.EPSILON * diagonal[k]);
    const root = Math.sqrt(pivot);
    s.fill(0, row, row + k);
    if (isNothing) s.fill(0, row + k, row + width);
    else for (let j = k; j < width; j++) s[row + j] /= root;
    for (let i = k + 1; i < width; i++) {
      const factor = s[row + i];
      if (factor === 0) continue;
      const target = i * width;
      for (let j = i; j < width; j++) s[target + j] -= factor * s[row + j];
    }
  }
}

/**
 * A matrix F [k, width] whose F'F is the covariance of the rows: the centered rows themselves where they
 * are few, a triangle where they are many. `trace` is the trace of the covariance.
 */
export function covarianceFactor(rows: Rows, mean = meanRow(rows)): { factor: Matrix; trace: number } {
  const { data, count, width } = rows;
  if (count < 2) throw new RangeError(`covarianceFactor: ${count} rows have no covariance`);
  if (count <= width) {
    const scale = 1 / Math.sqrt(count - 1);
    const centered = Float64Array.from(data, (value, i) => (value - mean[i % width]) * scale);
    return { factor: { data: centered, rows: count, columns: width }, trace: centered.reduce((sum, value) => sum + value * value, 0) };
  }
  const s = upperCovariance(rows, mean);
  let trace = 0;
  for (let i = 0; i < width; i++) trace += s[i * width + i];
  choleskyInPlace(s, width);
  return { factor: { data: s, rows: width, columns: width }, trace };
}

/** a b' : [a.rows, b.rows]. */
export function timesTransposed(a: Matrix, b: Matrix): Matrix {
  const { columns } = a;
  if (columns !== b.columns) throw new RangeError(`timesTransposed: rows of ${columns} and of ${b.columns} numbers`);
  const [left, right, data] = [a.data, b.data, new Float64Array(a.rows * b.rows)];
  // four products of two rows with two rows at a time; an odd last row is taken twice
  for (let i = 0; i < a.rows; i += 2) {
    const i1 = Math.min(i + 1, a.rows - 1);
    const a0 = i * columns;
    const a1 = i1 * columns;
    for (let j = 0; j < b.rows; j += 2) {
      const j1 = Math.min(j + 1, b.rows - 1);
      const b0 = j * columns;
      const b1 = j1 * columns;
      let s00 = 0;
      let s01 = 0;
      let s10 = 0;
      let s11 = 0;
      for (let k = 0; k < columns; k++) {
        const x0 = left[a0 + k];
        const x1 = left[a1 + k];
        const y0 = right[b0 + k];
        const y1 = right[b1 + k];
        s00 += x0 * y0;
        s01 += x0 * y1;
        s10 += x1 * y0;
        s11 += x1 * y1;
      }
      data[i * b.rows + j] = s00;
      data[i * b.rows + j1] = s01;
      data[i1 * b.rows + j] = s10;
      data[i1 * b.rows + j1] = s11;
    }
  }
  return { data, rows: a.rows, columns: b.rows };
}

// === Singular values ===

/** Of numbers up to 1, none below is told from 0: its square would be none. */
const TINY = 1e-150;

/**
 * Turns the part of column or row that begins at `at` into a multiple of the first unit vector: `v` becomes
 * the reflector, H = 1 - beta v v', and what remains is returned.
 */
function reflector(v: Float64Array, from: number, to: number): { beta: number; rest: number } {
  let tail = 0;
  for (let i = from + 1; i < to; i++) tail += v[i] * v[i];
  const head = v[from];
  if (tail < TINY * TINY) return { beta: 0, rest: head };
  const length = Math.sqrt(head * head + tail);
  const rest = head > 0 ? -length : length;
  v[from] = head - rest;
  return { beta: -1 / (rest * v[from]), rest };
}

/** Bidiagonal form of a matrix with no more columns than rows, which it overwrites. */
function bidiagonalize(a: Float64Array, rows: number, columns: number): { diagonal: Float64Array; above: Float64Array } {
  const [diagonal, above] = [new Float64Array(columns), new Float64Array(columns)];
  const [left, right, sums] = [new Float64Array(rows), new Float64Array(columns), new Float64Array(columns)];
  for (let k = 0; k < columns; k++) {
    for (let i = k; i < rows; i++) left[i] = a[i * columns + k];
    const { beta, rest } = reflector(left, k, rows);
    diagonal[k] = rest;
    sums.fill(0);
    if (beta !== 0)
      for (let i = k; i < rows; i++) {
        const at = i * columns;
        const factor = left[i] * beta;
        for (let j = k + 1; j < columns; j++) sums[j] += factor * a[at + j];
      }
    for (let j = k + 1; j < columns; j++) right[j] = a[k * columns + j] - left[k] * sums[j];
    if (beta === 0) for (let j = k + 1; j < columns; j++) right[j] = a[k * columns + j];
    const across = k + 1 < columns ? reflector(right, k + 1, columns) : { beta: 0, rest: 0 };
    if (k + 1 < columns) above[k] = across.rest;
    // both reflections in one pass over what is left
    for (let i = k + 1; i < rows; i++) {
      const at = i * columns;
      const factor = beta === 0 ? 0 : left[i];
      let along = 0;
      for (let j = k + 1; j < columns; j++) {
        const value = a[at + j] - factor * sums[j];
        a[at + j] = value;
        along += value * right[j];
      }
      along *= across.beta;
      if (along !== 0) for (let j = k + 1; j < columns; j++) a[at + j] -= along * right[j];
    }
  }
  return { diagonal, above };
}

/** Steps for one eigenvalue, beyond which something is not a number. */
const MOST_STEPS = 60;

/**
 * Eigenvalues of a symmetric tridiagonal matrix, in no order, by implicit QL: right to rounding of the
 * largest one. Both arrays are overwritten.
 */
function tridiagonalEigenvalues(diagonal: Float64Array, beside: Float64Array): Float64Array {
  const n = diagonal.length;
  const largest = [...diagonal, ...beside].reduce((most, value) => Math.max(most, Math.abs(value)), 0);
  const negligible = Math.max(Number.EPSILON * largest, TINY);
  for (let l = 0; l < n; l++) {
    for (let steps = 0; ; steps++) {
      let m = l;
      while (m < n - 1 && !(Math.abs(beside[m]) <= negligible)) m++;
      if (m === l) break;
      if (steps > MOST_STEPS) throw new Error('the eigenvalues of a matrix do not converge: it has numbers that are none');
      let g = (diagonal[l + 1] - diagonal[l]) / (2 * beside[l]);
      let r = Math.hypot(g, 1);
      g = diagonal[m] - diagonal[l] + beside[l] / (g + (g >= 0 ? r : -r));
      let s = 1;
      let c = 1;
      let p = 0;
      let i = m - 1;
      for (; i >= l; i--) {
        const f = s * beside[i];
        const b = c * beside[i];
        r = Math.sqrt(f * f + g * g);
        beside[i + 1] = r;
        if (r === 0) {
          diagonal[i + 1] -= p;
          beside[m] = 0;
          break;
        }
        s = f / r;
        c = g / r;
        g = diagonal[i + 1] - p;
        r = (diagonal[i] - g) * s + 2 * c * b;
        p = s * r;
        diagonal[i + 1] = g + p;
        g = c * r - b;
      }
      if (r === 0 && i >= l) continue;
      diagonal[l] -= p;
      beside[l] = g;
      beside[m] = 0;
    }
  }
  return diagonal;
}

/**
 * Singular values of a matrix, largest first: those of its bidiagonal form, as the eigenvalues above 0 of the
 * tridiagonal matrix with that form's numbers beside a diagonal of zeros.
 */
export function singularValues({ data, rows, columns }: Matrix): Float64Array {
  const isWide = columns > rows;
  const count = Math.min(rows, columns);
  const largest = data.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
  if (largest === 0) return new Float64Array(count);
  const tall = isWide
    ? Float64Array.from({ length: data.length }, (_, i) => data[(i % rows) * columns + Math.floor(i / rows)] / largest)
    : data.map((value) => value / largest);
  const { diagonal, above } = bidiagonalize(tall, Math.max(rows, columns), count);
  const beside = Float64Array.from({ length: 2 * count }, (_, i) => (i % 2 === 0 ? diagonal[i / 2] : above[(i - 1) / 2]));
  return tridiagonalEigenvalues(new Float64Array(2 * count), beside)
    .sort()
    .reverse()
    .slice(0, count)
    .map((value) => Math.max(0, value) * largest);
}

/** Sum of the singular values. Of Fv Ft' it is the trace of the square root of Sv St, S = F'F. */
export function nuclearNorm(matrix: Matrix): number {
  return singularValues(matrix).reduce((sum, value) => sum + value, 0);
}
