// What the published code of MIR computes by default in place of the trace of a square root: five steps of
// Y <- (Y + Z^-1 M) / 2, Z <- (Z + Y^-1 M) / 2 from Y = M, Z = 1. There it stands still, so that in exact
// arithmetic it gives tr M; in float32, on covariances that are nearly singular, whatever rounding makes of
// it. For comparison with published numbers alone. On nearly singular covariances two machines differ, and
// so do we.

import { covariance, type Rows } from './matrices.ts';

const STEPS = 5;

/** a b, both [n, n], each product summed in float64 and kept in float32. */
function times(a: Float32Array, b: Float32Array, n: number): Float32Array {
  const product = new Float32Array(n * n);
  const row = new Float64Array(n);
  for (let i = 0; i < n; i++) {
    row.fill(0);
    for (let k = 0; k < n; k++) {
      const factor = a[i * n + k];
      for (let j = 0; j < n; j++) row[j] += factor * b[k * n + j];
    }
    product.set(row, i * n);
  }
  return product;
}

/** The inverse in float32 by Gauss and Jordan, with the largest pivot of each column. */
function inverse(matrix: Float32Array, n: number): Float32Array {
  const a = matrix.slice();
  const b = identity(n);
  for (let k = 0; k < n; k++) {
    let pivot = k;
    for (let i = k + 1; i < n; i++) if (Math.abs(a[i * n + k]) > Math.abs(a[pivot * n + k])) pivot = i;
    for (const m of [a, b]) {
      const row = m.slice(pivot * n, (pivot + 1) * n);
      m.copyWithin(pivot * n, k * n, (k + 1) * n);
      m.set(row, k * n);
    }
    const scale = 1 / a[k * n + k];
    for (const m of [a, b]) for (let j = 0; j < n; j++) m[k * n + j] *= scale;
    for (let i = 0; i < n; i++) {
      const factor = a[i * n + k];
      if (i === k || factor === 0) continue;
      for (const m of [a, b]) for (let j = 0; j < n; j++) m[i * n + j] -= factor * m[k * n + j];
    }
  }
  return b;
}

function identity(n: number): Float32Array {
  const one = new Float32Array(n * n);
  for (let i = 0; i < n; i++) one[i * n + i] = 1;
  return one;
}

const halfway = (a: Float32Array, b: Float32Array) => a.map((value, i) => 0.5 * (value + b[i]));

/**
 * The trace that the published code takes for that of the square root of S_a S_b, of the rows times
 * `scale`.
 */
export function fastRootTrace(a: Rows, b: Rows, scale: number): number {
  const n = a.width;
  const [first, second] = [a, b].map((rows) => Float32Array.from(covariance(rows).data, (value) => value * scale * scale));
  const product = times(first, second, n);
  let y = product;
  let z = identity(n);
  for (let step = 0; step < STEPS; step++) {
    y = halfway(y, times(inverse(z, n), product, n));
    z = halfway(z, times(inverse(y, n), product, n));
  }
  let trace = 0;
  for (let i = 0; i < n; i++) trace += y[i * n + i];
  return trace;
}
