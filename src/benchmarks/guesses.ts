// What a score must beat without any model: the most frequent answer, and guessing, judged as any answers.

import { createRandom, type Random } from '../random.ts';
import { meanOf } from '../statistics/proportion.ts';
import type { Benchmark, BenchmarkQuestion } from './benchmark.ts';

/** Rounds of guessing whose scores are averaged. */
const ROUNDS = 10;

/** Equally frequent answers that are tried: of open questions there may be as many as questions. */
const MOST_TIES = 10;

/** The most frequent of texts, in the order of the alphabet where several are. */
function mostFrequent(texts: readonly string[]): string[] {
  const counts = new Map<string, number>();
  for (const text of texts) counts.set(text, (counts.get(text) ?? 0) + 1);
  const most = [...counts.values()].reduce((a, b) => Math.max(a, b), 0);
  return [...counts.keys()].filter((text) => counts.get(text) === most).sort();
}

interface Scored {
  /** The headline. */
  score: number;
  /** Mean credit. */
  credit: number;
}

/** What it would be if these had been the answers. */
async function scoreOf(
  benchmark: Benchmark,
  questions: readonly BenchmarkQuestion[],
  harness: string,
  answerOf: (question: BenchmarkQuestion) => string,
): Promise<Scored> {
  const answered = questions.map((question) => ({ question, answer: answerOf(question) }));
  const judged = await benchmark.judge(answered, { harness });
  const score = benchmark.summarize(judged, harness).scores[benchmark.headline.name];
  return { score, credit: meanOf(judged.map(({ credit }) => credit)) };
}

export interface Guesses {
  /**
   * The headline of always giving the most frequent answer of these very questions: an upper bound, since it
   * has seen them. Of equally frequent ones, the best.
   */
  majority: { answer: string; score: number };
  /** Of guessing: one of the options, or any answer that is right somewhere. */
  random: number;
  /** Mean credit of both, in [0, 1]. */
  credits: { majority: number; random: number };
}

/** Undefined where a model judges, or no right answers are known. */
export async function guessesOf(
  benchmark: Benchmark,
  questions: readonly BenchmarkQuestion[],
  harness: string,
): Promise<Guesses | undefined> {
  const references = questions.flatMap((question) => question.references);
  if (benchmark.judged === 'always' || references.length === 0) return undefined;
  const score = (answerOf: (question: BenchmarkQuestion) => string) => scoreOf(benchmark, questions, harness, answerOf);
  const different = [...new Set(references)].sort();
  const guess = (question: BenchmarkQuestion, random: Random) => {
    const among = question.options ?? different;
    return among[random.integer(among.length)];
  };
  const rounds: Scored[] = [];
  for (let round = 0; round < ROUNDS; round++) {
    const random = createRandom(round, benchmark.name, 'guesses');
    rounds.push(await score((question) => guess(question, random)));
  }
  const constant: (Scored & { answer: string })[] = [];
  for (const answer of mostFrequent(references).slice(0, MOST_TIES)) constant.push({ answer, ...(await score(() => answer)) });
  const best = constant.reduce((most, each) => (each.score > most.score ? each : most));
  return {
    majority: { answer: best.answer, score: best.score },
    random: meanOf(rounds.map((round) => round.score)),
    credits: { majority: best.credit, random: meanOf(rounds.map(({ credit }) => credit)) },
  };
}
