// Numbers that tell a sick model from a healthy one, from what was measured: no model is run here.

import { exponentialEntropy } from '../alignment/effective-rank.ts';
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
