// What a score must beat without any model: the most frequent answer, and guessing, judged as any answers.

import { createRandom, type Random } from '../random.ts';
import type { Benchmark, BenchmarkQuestion } from './benchmark.ts';

/** Rounds of guessing whose scores are averaged. */
const ROUNDS = 10;

/** The most frequent of texts, the first in the alphabet of equals. */
function mostFrequent(texts: readonly string[]): string | undefined {
  const counts = new Map<string, number>();
  for (const text of texts) counts.set(text, (counts.get(text) ?? 0) + 1);
  return [...counts.keys()].sort((a, b) => counts.get(b)! - counts.get(a)! || (a < b ? -1 : 1))[0];
}

/** The headline if these had been the answers. */
async function headlineOf(benchmark: Benchmark, questions: readonly BenchmarkQuestion[], harness: string, answers: readonly string[]) {
  const answered = questions.map((question, i) => ({ question, answer: answers[i] }));
  return benchmark.summarize(await benchmark.judge(answered, { harness }), harness).scores[benchmark.headline.name];
}

export interface Guesses {
  /**
   * The headline of always giving the most frequent answer of these very questions: an upper bound, since it
   * has seen them.
   */
  majority: { answer: string; score: number };
  /** Of guessing: one of the options, or any answer that is right somewhere. */
  random: number;
}

/** Undefined where a model judges, or no right answers are known. */
export async function guessesOf(
  benchmark: Benchmark,
  questions: readonly BenchmarkQuestion[],
  harness: string,
): Promise<Guesses | undefined> {
  const references = questions.flatMap((question) => question.references);
  const answer = mostFrequent(references);
  if (benchmark.judged === 'always' || answer === undefined) return undefined;
  const different = [...new Set(references)].sort();
  const guess = (question: BenchmarkQuestion, random: Random) => {
    const among = question.options ?? different;
    return among[random.integer(among.length)];
  };
  let sum = 0;
  for (let round = 0; round < ROUNDS; round++) {
    const random = createRandom(round, benchmark.name, 'guesses');
    sum += await headlineOf(
      benchmark,
      questions,
      harness,
      questions.map((question) => guess(question, random)),
    );
  }
  const majority = {
    answer,
    score: await headlineOf(
      benchmark,
      questions,
      harness,
      questions.map(() => answer),
    ),
  };
  return { majority, random: sum / ROUNDS };
}
