// Answers that were measured, and what is made of many.

import { round } from '../statistics.ts';

/** One answer, in milliseconds since the beginning of its part. */
export interface Answered {
  asked: number;
  first: number;
  done: number;
  tokens: number;
  cached: number;
}

export interface Part {
  seconds: number;
  answers: Answered[];
  errors: string[];
  /** CPU time of the server and its model, in seconds. */
  cpu: number;
}

const quantile = (values: readonly number[], q: number) => values.toSorted((a, b) => a - b)[Math.floor((values.length - 1) * q)] ?? 0;

/** Requests within so many milliseconds may arrive in any order. */
const AT_ONCE = 200;

/** How many others that were asked later had their first token earlier, for the answer that was hurt most. */
function mostOvertaken(answers: readonly Answered[]): number {
  return answers.reduce(
    (most, one) => Math.max(most, answers.filter(({ asked, first }) => asked > one.asked + AT_ONCE && first < one.first).length),
    0,
  );
}

export function summary({ seconds, answers, errors, cpu }: Part) {
  const tokens = answers.reduce((sum, answer) => sum + answer.tokens, 0);
  const first = answers.map((answer) => answer.first - answer.asked);
  const total = answers.map((answer) => answer.done - answer.asked);
  return {
    answers: answers.length,
    errors: errors.length,
    tokens_per_s: round(tokens / seconds, 1),
    tokens_per_cpu_s: round(tokens / cpu, 1),
    answers_per_s: round(answers.length / seconds, 1),
    first_token_ms: { median: round(quantile(first, 0.5), 0), p95: round(quantile(first, 0.95), 0) },
    total_ms: { median: round(quantile(total, 0.5), 0), p95: round(quantile(total, 0.95), 0) },
    most_overtaken_by: mostOvertaken(answers),
    cached_tokens_per_answer: round(answers.reduce((sum, { cached }) => sum + cached, 0) / answers.length, 1),
  };
}

/** Parts one after the other as one. */
export function joined(parts: readonly Part[]): Part {
  const all: Part = { seconds: 0, answers: [], errors: [], cpu: 0 };
  for (const { seconds, answers, errors, cpu } of parts) {
    const later = (time: number) => time + all.seconds * 1000;
    all.answers.push(...answers.map((each) => ({ ...each, asked: later(each.asked), first: later(each.first), done: later(each.done) })));
    all.errors.push(...errors);
    all.seconds += seconds;
    all.cpu += cpu;
  }
  return all;
}
