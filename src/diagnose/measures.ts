// Numbers that tell a sick model from a healthy one, from what was measured: no model is run here.

import { exponentialEntropy } from '../alignment/effective-rank.ts';
import { groupBy } from '../arrays.ts';
import { majorityBaseline } from '../evaluate/baselines.ts';
import type { Sample } from '../evaluate/samples.ts';
import { answerKind, FAILED, normalizeText, parseAnswer } from '../evaluate/scoring.ts';
import { normalQuantile } from '../statistics/distributions.ts';
import type { Interval } from '../statistics/estimate.ts';
import { meanCredit, meanOf } from '../statistics/proportion.ts';

// === Answers ===

export interface YesBias extends Interval {
  split: string;
  questions: number;
  /** Share of yes as if half of the questions were to be answered so; `low` and `high` are of it. */
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
 * Of the yes/no questions of each split that has some of both answers. The rate is (H + F) / 2 of hits and
 * false alarms, so that it is measured against the truth: 0.5 is no bias, however many questions are to be
 * answered with yes. Its interval joins those of H and F, clustered by picture (squares added: Newcombe
 * 1998); d' and c take rates as (n + .5) / (N + 1), so that none is 0 or 1.
 */
export function yesBiases(samples: readonly Sample[]): YesBias[] {
  const asked = samples.filter(({ task, problem }) => answerKind(task) === 'yes-no' && problem === undefined);
  return groupBy(asked, ({ split }) => split).flatMap((some) => {
    const [hits, alarms] = (['yes', 'no'] as const).map((expected) => yesShare(some, expected));
    if (!hits || !alarms) return [];
    const yesRate = (hits.value + alarms.value) / 2;
    const reach = (end: 'low' | 'high') => Math.hypot(hits.value - hits[end], alarms.value - alarms[end]) / 2;
    const interval = { low: yesRate - reach('low'), high: yesRate + reach('high') };
    return [{ split: some[0].split, questions: some.length, yesRate, ...interval, ...detection(hits.corrected, alarms.corrected) }];
  });
}

/** How often yes is said to questions with one right answer; undefined where there are none. */
function yesShare(samples: readonly Sample[], expected: 'yes' | 'no') {
  const some = samples.filter((sample) => parseAnswer('yes-no', sample.expected) === expected);
  if (some.length === 0) return undefined;
  const isYes = some.map(({ answer }) => Number(parseAnswer('yes-no', answer) === 'yes'));
  const { value, low, high } = meanCredit(isYes, { clusters: some.map(({ image }) => image) });
  return { value, low, high, corrected: (value * some.length + 0.5) / (some.length + 1) };
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

/**
 * Words from which on a text is long, and of the pieces that may repeat in it (Welleck et al. 2019, arXiv
 * 1908.04319).
 */
const LONG = 8;
const PIECE = 4;

const wordsOf = (text: string) => text.toLowerCase().match(/[\p{L}\p{N}]+/gu) ?? [];

/** Share of a text's four-word pieces that it has already said. */
function repeatedPieces(text: string): number {
  const words = wordsOf(text);
  const pieces = Array.from({ length: words.length - PIECE + 1 }, (_, i) => words.slice(i, i + PIECE).join(' '));
  return 1 - new Set(pieces).size / pieces.length;
}

export interface Repetition {
  /** Long answers. */
  answers: number;
  /** Share of four-word pieces that an answer repeats, and the same of the answers that are right. */
  within: number;
  expectedWithin: number;
  /** Share of long answers that are given to another picture too, about which something else is right. */
  same: number;
}

/** Of answers of eight words or more; undefined where there are none. */
export function repetition(samples: readonly Sample[]): Repetition | undefined {
  const long = samples.filter(({ answer }) => wordsOf(answer).length >= LONG);
  if (long.length === 0) return undefined;
  const expected = long.filter((sample) => wordsOf(sample.expected).length >= LONG);
  const isSame = (group: readonly Sample[]) => (sample: Sample) =>
    group.some((other) => other.image !== sample.image && other.expected !== sample.expected);
  const same = groupBy(long, ({ answer }) => normalizeText(answer)).reduce((sum, group) => sum + group.filter(isSame(group)).length, 0);
  return {
    answers: long.length,
    within: meanOf(long.map(({ answer }) => repeatedPieces(answer))),
    expectedWithin: expected.length > 0 ? meanOf(expected.map((sample) => repeatedPieces(sample.expected))) : 0,
    same: same / long.length,
  };
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
