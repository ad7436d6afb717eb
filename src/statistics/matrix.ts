// The little linear algebra that least squares with few columns needs. Matrices are row after row.

/** What of a column's length is left, at least, if it does not follow from the columns before it. */
const TOLERANCE = 1e-9;

export interface Orthogonalized {
  /** R [k * k], upper, with columns = Q R. */
  triangle: Float64Array;
  /** The first column that follows from those before it. */
  dependent: number | undefined;
  /** Q' target [k]. */
  coordinates: Float64Array;
  /** What the columns leave of the target: the residuals [n]. */
  target: Float64Array;
}

/**
 * Modified Gram-Schmidt on k columns [n] with the target as the last one: for least squares as good as
 * Householder's way (Bjorck 1967).
 */
export function orthogonalize(columns: readonly Float64Array[], target: ArrayLike<number>): Orthogonalized {
  const k = columns.length;
  const work = [...columns.map((column) => column.slice()), Float64Array.from(target)];
  const triangle = new Float64Array(k * k);
  const coordinates = new Float64Array(k);
  const dot = (a: Float64Array, b: Float64Array) => {
    let sum = 0;
    for (let i = 0; i < a.length; i++) sum += a[i] * b[i];
    return sum;
  };
  for (let a = 0; a < k; a++) {
    const column = work[a];
    const length = Math.sqrt(dot(column, column));
    if (!(length > TOLERANCE * Math.sqrt(dot(columns[a], columns[a])))) return { triangle, dependent: a, coordinates, target: work[k] };
    triangle[a * k + a] = length;
    for (let i = 0; i < column.length; i++) column[i] /= length;
    for (let b = a + 1; b <= k; b++) {
      const other = work[b];
      const along = dot(column, other);
      for (let i = 0; i < other.length; i++) other[i] -= along * column[i];
      if (b < k) triangle[a * k + b] = along;
      else coordinates[a] = along;
    }
  }
  return { triangle, dependent: undefined, coordinates, target: work[k] };
}

/** The inverse of an upper triangle [k * k]. */
export function inverseOfTriangle(triangle: Float64Array, k: number): Float64Array {
  const inverse = new Float64Array(k * k);
  for (let column = 0; column < k; column++)
    for (let row = column; row >= 0; row--) {
      let sum = row === column ? 1 : 0;
      for (let l = row + 1; l <= column; l++) sum -= triangle[row * k + l] * inverse[l * k + column];
      inverse[row * k + column] = sum / triangle[row * k + row];
    }
  return inverse;
}

/** x with A x = b for a positive definite A [k * k], by Cholesky; undefined where A is not. */
export function solve(matrix: Float64Array, b: readonly number[]): number[] | undefined {
  const k = b.length;
  const lower = new Float64Array(k * k);
  const half = new Array<number>(k).fill(0);
  for (let row = 0; row < k; row++) {
    for (let column = 0; column <= row; column++) {
      let sum = matrix[row * k + column];
      for (let l = 0; l < column; l++) sum -= lower[row * k + l] * lower[column * k + l];
      if (row === column && !(sum > 0)) return undefined;
      lower[row * k + column] = row === column ? Math.sqrt(sum) : sum / lower[column * k + column];
    }
    half[row] = b[row];
    for (let l = 0; l < row; l++) half[row] -= lower[row * k + l] * half[l];
    half[row] /= lower[row * k + row];
  }
  const x = new Array<number>(k).fill(0);
  for (let row = k - 1; row >= 0; row--) {
    x[row] = half[row];
    for (let l = row + 1; l < k; l++) x[row] -= lower[l * k + row] * x[l];
    x[row] /= lower[row * k + row];
  }
  return x;
}
