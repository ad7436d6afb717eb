// How close a picture's rows and a text's token embeddings are, as they enter the language model.

import { type Matrix, meanRow, type Rows, rowNorms, timesTransposed } from './matrices.ts';
import type { Scores } from './retrieval.ts';

/** Rows of each picture, rows of each text, and the picture that each text is about. */
export interface RowSets {
  pictures: readonly Rows[];
  texts: readonly Rows[];
  owners: readonly number[];
}

function scoresOf({ pictures, texts, owners }: RowSets, score: (picture: number, text: number) => number): Scores {
  const data = new Float64Array(pictures.length * texts.length);
  for (let i = 0; i < pictures.length; i++) for (let j = 0; j < texts.length; j++) data[i * texts.length + j] = score(i, j);
  return { data, pictures: pictures.length, texts: texts.length, owners };
}

/** A vector with this of its length is nothing but rounding. */
const NOTHING = 1e-9;

/** Of unit length; zeros where it is as good as zero beside `scale`. */
function unit(vector: Float64Array, scale: number): Float64Array {
  const length = Math.hypot(...vector);
  return vector.map((value) => (length > NOTHING * scale ? value / length : 0));
}

const dot = (a: Float64Array, b: Float64Array) => {
  let sum = 0;
  for (let i = 0; i < a.length; i++) sum += a[i] * b[i];
  return sum;
};

/**
 * Rows as one vector each, about their common mean, which removes what all of a kind share, and of unit
 * length.
 */
function centeredUnits(sets: readonly Rows[]): Float64Array[] {
  const means = sets.map(meanRow);
  const center = means[0].map((_, i) => means.reduce((sum, mean) => sum + mean[i], 0) / means.length);
  return means.map((mean) =>
    unit(
      mean.map((value, i) => value - center[i]),
      Math.hypot(...mean),
    ),
  );
}

/** Cosine of the mean of a picture's rows and the mean of a text's, each about the mean of its kind. */
export function pooledScores(sets: RowSets): Scores {
  const [pictures, texts] = [centeredUnits(sets.pictures), centeredUnits(sets.texts)];
  return scoresOf(sets, (i, j) => dot(pictures[i], texts[j]));
}

/** Rows of unit length; a row of zeros stays one. */
function unitRows(rows: Rows): Matrix {
  const { count, width } = rows;
  const norms = rowNorms(rows);
  const data = Float64Array.from(rows.data, (value, at) => (norms[Math.floor(at / width)] > 0 ? value / norms[Math.floor(at / width)] : 0));
  return { data, rows: count, columns: width };
}

/** The largest cosine of each row with any of the others. */
function largestCosines(rows: Matrix, others: Matrix): Float64Array {
  const { data, columns } = timesTransposed(rows, others);
  return Float64Array.from({ length: rows.rows }, (_, i) => data.subarray(i * columns, (i + 1) * columns).reduce((a, b) => Math.max(a, b)));
}

const meanOf = (values: Float64Array) => values.reduce((sum, value) => sum + value, 0) / values.length;

/**
 * Late interaction (Khattab & Zaharia 2020): the mean over a text's tokens of the largest cosine with a
 * picture's rows.
 */
export function lateScores(sets: RowSets): Scores {
  const [pictures, texts] = [sets.pictures.map(unitRows), sets.texts.map(unitRows)];
  return scoresOf(sets, (i, j) => meanOf(largestCosines(texts[j], pictures[i])));
}

/** Cosines of vectors, one for each picture and each text: an encoder with a text tower. */
export function cosineScores(sets: RowSets): Scores {
  const [pictures, texts] = [sets.pictures.map(unitRows), sets.texts.map(unitRows)];
  return scoresOf(sets, (i, j) => dot(pictures[i].data, texts[j].data));
}

// === Pictures among themselves ===

/** Mean cosine between rows of different pictures: near 1, the connector gives all of them the same. */
export function meanCosineAcross(pictures: readonly Rows[]): number {
  const sums = pictures.map((rows) => {
    const sum = new Float64Array(rows.width);
    unitRows(rows).data.forEach((value, at) => {
      sum[at % rows.width] += value;
    });
    return { sum, count: rows.count };
  });
  const total = new Float64Array(pictures[0].width);
  for (const { sum } of sums) for (let i = 0; i < total.length; i++) total[i] += sum[i];
  const count = sums.reduce((all, { count }) => all + count, 0);
  // of all pairs of rows, those within a picture taken away
  const within = sums.reduce((all, { sum }) => all + dot(sum, sum), 0);
  const pairs = count * count - sums.reduce((all, { count }) => all + count * count, 0);
  return (dot(total, total) - within) / pairs;
}

/**
 * Modality gap (Liang et al. 2022, arXiv 2203.02053): the distance between the means of image rows and of
 * text rows, each row of unit length. 0 to 2.
 */
export function modalityGap(image: Rows, text: Rows): number {
  const [a, b] = [image, text].map((rows) => {
    const { data, rows: count, columns: width } = unitRows(rows);
    return meanRow({ data, count, width });
  });
  return Math.hypot(...a.map((value, i) => value - b[i]));
}

/** The k nearest others of each picture, by the distance of mean rows. */
function nearestPictures(pictures: readonly Rows[], k: number): Set<number>[] {
  const means = pictures.map(meanRow);
  return means.map((mean, i) => {
    const distances = means.map((other) => other.reduce((sum, value, d) => sum + (value - mean[d]) ** 2, 0));
    const others = [...means.keys()].filter((j) => j !== i).sort((a, b) => distances[a] - distances[b] || a - b);
    return new Set(others.slice(0, k));
  });
}

/**
 * Share of a picture's k nearest pictures that are so both before and after the connector (2509.11986), and
 * what random neighbors would share.
 */
export function neighborOverlap(before: readonly Rows[], after: readonly Rows[], neighbors: number): { overlap: number; chance: number } {
  const k = Math.min(neighbors, before.length - 1);
  const [first, second] = [nearestPictures(before, k), nearestPictures(after, k)];
  const shared = first.reduce((sum, near, i) => sum + [...near].filter((j) => second[i].has(j)).length, 0);
  return { overlap: shared / (k * before.length), chance: k / (before.length - 1) };
}

/**
 * A score, version 1 (2408.16357): the mean over a picture's rows of the largest cosine with a reference's
 * rows for it.
 */
export const maxCosine = (rows: Rows, reference: Rows): number => meanOf(largestCosines(unitRows(rows), unitRows(reference)));
