// Numbers that tell a sick model from a healthy one, from what was measured: no model is run here.

import { majorityBaseline } from '../evaluate/baselines.ts';
import type { Sample } from '../evaluate/samples.ts';
import { answerKind, FAILED, normalizeText, parseAnswer } from '../evaluate/scoring.ts';
import { normalQuantile } from '../statistics/distributions.ts';

/** Rows of one width, one after the other. */
export interface Rows {
  data: Float32Array;
  width: number;
}

const rowCount = ({ data, width }: Rows) => data.length / width;

/** Mean Euclidean norm of rows. */
export function meanNorm({ data, width }: Rows): number {
  let sum = 0;
  for (let at = 0; at < data.length; at += width) {
    let squares = 0;
    for (let i = at; i < at + width; i++) squares += data[i] * data[i];
    sum += Math.sqrt(squares);
  }
  return sum / (data.length / width);
}

/** Cosine of two rows; 0 where one of them is 0. */
function cosine(a: Float32Array, b: Float32Array): number {
  let [ab, aa, bb] = [0, 0, 0];
  for (let i = 0; i < a.length; i++) {
    ab += a[i] * b[i];
    aa += a[i] * a[i];
    bb += b[i] * b[i];
  }
  return aa === 0 || bb === 0 ? 0 : ab / Math.sqrt(aa * bb);
}

/**
 * Mean cosine between the rows of different pictures, each row beside the one in its place of the next
 * picture: near 1 where the connector says the same whatever it is shown.
 */
export function meanCosine(pictures: readonly Rows[]): number {
  let [sum, count] = [0, 0];
  for (const [i, { data, width }] of pictures.entries()) {
    const other = pictures[(i + 1) % pictures.length].data;
    for (let at = 0; at < data.length; at += width, count++) sum += cosine(data.subarray(at, at + width), other.subarray(at, at + width));
  }
  return sum / count;
}

/**
 * Effective rank of rows about their mean (Roy & Vetterli 2007): exp(-sum p log p), p the share of each
 * singular value in their sum. 0 where all rows are the same.
 */
export function effectiveRank(rows: Rows): number {
  return exponentialEntropy(singularValues(rows));
}

/** exp(-sum p log p) of shares of values that are not negative. */
export function exponentialEntropy(values: readonly number[]): number {
  const total = values.reduce((sum, value) => sum + value, 0);
  if (!(total > 0)) return 0;
  return Math.exp(-values.reduce((sum, value) => (value > 0 ? sum + (value / total) * Math.log(value / total) : sum), 0));
}

/** Singular values of rows about their mean. */
function singularValues({ data, width }: Rows): number[] {
  const count = data.length / width;
  const centered = Float64Array.from(data);
  for (let column = 0; column < width; column++) {
    let mean = 0;
    for (let row = 0; row < count; row++) mean += centered[row * width + column] / count;
    for (let row = 0; row < count; row++) centered[row * width + column] -= mean;
  }
  // the products of rows, or of columns where these are fewer: the same values
  const byRows = count <= width;
  const [size, length] = byRows ? [count, width] : [width, count];
  const vectors = Array.from({ length: size }, (_, k) =>
    byRows ? centered.subarray(k * width, (k + 1) * width) : Float64Array.from({ length }, (_, row) => centered[row * width + k]),
  );
  return orthogonalizedNorms(vectors);
}

/**
 * Singular values of vectors by one-sided Jacobi rotations (Hestenes 1958), which make them orthogonal: their
 * norms are the values. Exact for small values too.
 */
function orthogonalizedNorms(vectors: Float64Array[]): number[] {
  const dot = (a: Float64Array, b: Float64Array) => {
    let sum = 0;
    for (let i = 0; i < a.length; i++) sum += a[i] * b[i];
    return sum;
  };
  for (let sweep = 0; sweep < 20; sweep++) {
    let isDone = true;
    for (let p = 0; p < vectors.length - 1; p++)
      for (let q = p + 1; q < vectors.length; q++) {
        const [a, b] = [vectors[p], vectors[q]];
        const [aa, bb, ab] = [dot(a, a), dot(b, b), dot(a, b)];
        if (Math.abs(ab) <= 1e-9 * Math.sqrt(aa * bb)) continue;
        isDone = false;
        const zeta = (bb - aa) / (2 * ab);
        const tangent = Math.sign(zeta || 1) / (Math.abs(zeta) + Math.sqrt(1 + zeta * zeta));
        const cos = 1 / Math.sqrt(1 + tangent * tangent);
        const sin = cos * tangent;
        for (let i = 0; i < a.length; i++) {
          const [x, y] = [a[i], b[i]];
          a[i] = cos * x - sin * y;
          b[i] = sin * x + cos * y;
        }
      }
    if (isDone) break;
  }
  return vectors.map((vector) => Math.sqrt(dot(vector, vector)));
}

/** At most so many rows of several matrices, evenly spread. */
export function someRows(parts: readonly Rows[], most: number): Rows {
  const { width } = parts[0];
  const total = parts.reduce((sum, part) => sum + rowCount(part), 0);
  const step = Math.max(1, total / most);
  const rows: Float32Array[] = [];
  let index = 0;
  let next = 0;
  for (const part of parts)
    for (let at = 0; at < part.data.length; at += width, index++) {
      if (index < Math.floor(next)) continue;
      rows.push(part.data.subarray(at, at + width));
      next += step;
    }
  const data = new Float32Array(rows.length * width);
  for (const [i, row] of rows.entries()) data.set(row, i * width);
  return { data, width };
}

// === Answers ===

export interface YesBias {
  questions: number;
  yesRate: number;
  /** How well yes and no are told apart, in standard deviations. */
  sensitivity: number;
  /** Below 0 leans to yes. */
  criterion: number;
}

/** d' = z(H) - z(F) and c = -(z(H) + z(F)) / 2 of hit and false alarm rates. */
export function detection(hits: number, falseAlarms: number): { sensitivity: number; criterion: number } {
  const [h, f] = [normalQuantile(hits), normalQuantile(falseAlarms)];
  return { sensitivity: h - f, criterion: -(h + f) / 2 };
}

/**
 * Of yes/no questions; undefined where there are none of one answer. Rates as (n + .5) / (N + 1), so that
 * none is 0 or 1.
 */
export function yesBias(samples: readonly Sample[]): YesBias | undefined {
  const asked = samples.filter(({ task, problem }) => answerKind(task) === 'yes-no' && problem === undefined);
  const rateOf = (expected: 'yes' | 'no') => {
    const some = asked.filter((sample) => parseAnswer('yes-no', sample.expected) === expected);
    const yes = some.filter(({ answer }) => parseAnswer('yes-no', answer) === 'yes').length;
    return { yes, n: some.length, rate: (yes + 0.5) / (some.length + 1) };
  };
  const [positive, negative] = [rateOf('yes'), rateOf('no')];
  if (positive.n === 0 || negative.n === 0) return undefined;
  // as if there were as many of each
  const yesRate = (positive.yes / positive.n + negative.yes / negative.n) / 2;
  return { questions: asked.length, yesRate, ...detection(positive.rate, negative.rate) };
}

export interface ConstantAnswer {
  task: string;
  /** The answer given most often, and its share. */
  answer: string;
  share: number;
  /** The same of the answers that are right. */
  expectedShare: number;
  /** exp of the entropy of the answers: how many different ones there are, as it were. */
  different: number;
  accuracy: number;
  majority: number;
}

/** The task whose answers are most alike beside those that are right. */
export function constantAnswer(samples: readonly Sample[]): ConstantAnswer | undefined {
  const tasks = [...new Set(samples.map(({ task }) => task))].filter((task) => task !== 'describe');
  const found = tasks.map((task): ConstantAnswer => {
    const some = samples.filter((sample) => sample.task === task);
    const kind = answerKind(task);
    const given = shares(some.map(({ answer }) => parseAnswer(kind, answer)));
    const right = shares(some.map(({ expected }) => parseAnswer(kind, expected)));
    const [answer, share] = given[0];
    return {
      task,
      answer,
      share,
      expectedShare: right[0][1],
      different: exponentialEntropy(given.map(([, part]) => part)),
      accuracy: some.filter(({ correct }) => correct).length / some.length,
      majority: majorityBaseline(
        kind,
        some.map(({ expected }) => expected),
      ).accuracy,
    };
  });
  return found.sort((a, b) => b.share - b.expectedShare - (a.share - a.expectedShare))[0];
}

/** Each different value with its share, the most frequent first. */
function shares(values: readonly string[]): [string, number][] {
  const counts = new Map<string, number>();
  for (const value of values) counts.set(value, (counts.get(value) ?? 0) + 1);
  return [...counts].map(([value, count]): [string, number] => [value, count / values.length]).sort((a, b) => b[1] - a[1]);
}

/** Answers in which no answer of their task's form is found; POPE's own reading would take them for a yes. */
export function unparsedShare(samples: readonly Sample[]): number {
  const isUnparsed = ({ task, answer }: Sample) => {
    const kind = answerKind(task);
    if (kind === 'yes-no') return !/\b(yes|no|not)\b/i.test(answer);
    return kind === 'text' ? normalizeText(answer) === '' : parseAnswer(kind, answer) === FAILED;
  };
  return samples.filter(isUnparsed).length / samples.length;
}

// === Distributions ===

/** Kullback-Leibler divergence of p from q in nats, from their logits. */
export function divergence(p: ArrayLike<number>, q: ArrayLike<number>): number {
  const [logP, logQ] = [logSoftmax(p), logSoftmax(q)];
  return logP.reduce((sum, value, i) => sum + Math.exp(value) * (value - logQ[i]), 0);
}

export function logSoftmax(logits: ArrayLike<number>): Float64Array {
  let largest = Number.NEGATIVE_INFINITY;
  for (let i = 0; i < logits.length; i++) largest = Math.max(largest, logits[i]);
  let sum = 0;
  for (let i = 0; i < logits.length; i++) sum += Math.exp(logits[i] - largest);
  const normalizer = largest + Math.log(sum);
  return Float64Array.from({ length: logits.length }, (_, i) => logits[i] - normalizer);
}
