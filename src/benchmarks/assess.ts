// An evaluation's answers become a report: official scores with intervals, beside what they must beat.

import type { OpenAnswer } from '../evaluate/open-answers.ts';
import { meanOf } from '../statistics/proportion.ts';
import type { Answered, Benchmark, BenchmarkQuestion, Judged, JudgingOptions, Score } from './benchmark.ts';
import type { Condition } from './conditions.ts';
import { type Guesses, guessesOf } from './guesses.ts';
import { type HeadlineInterval, headlineInterval } from './interval.ts';
import { summarize } from './score.ts';

/** The headline under another condition, over the questions that were asked under it. */
export interface ConditionScore {
  score: number;
  n: number;
}

export interface BenchmarkReport {
  title: string;
  headline: { name: string; best: number; value: number } & Partial<HeadlineInterval>;
  /** Before blank pictures, and before those of other questions; absent where it was not measured. */
  blind?: ConditionScore;
  exchanged?: ConditionScore;
  majority?: Guesses['majority'];
  random?: number;
  /**
   * Mean credit in [0, 1] of the same: the headline may be another number, and credit of models compares with
   * credit alone.
   */
  credits: { blind?: number; exchanged?: number; majority?: number; random?: number };
  /**
   * Questions that could not be asked, and the first reason; they count as wrong, and out of them nothing was
   * read.
   */
  unasked: { count: number; reason?: string };
  score: Score;
}

/** The same for the same answers. */
export interface EvaluationReport {
  model: string;
  benchmarks: BenchmarkReport[];
  /** Benchmarks whose right answers are secret, with the server that scores an upload; absent if none is. */
  uploads?: { benchmark: string; server: string }[];
}

/** One question of an evaluation with all that became of it: a line of judged.jsonl. */
export interface JudgedLine {
  id: string;
  prompt: string;
  pictures: string[];
  cluster: string;
  references: readonly string[];
  answer: string;
  credit: number;
  /** null where nothing could be read out of the answer. */
  parsed: string | null;
  problem?: string;
}

export interface Assessment {
  report: BenchmarkReport;
  judged: JudgedLine[];
}

type Answers = ReadonlyMap<string, OpenAnswer>;

/** Pairs the questions that were asked with their answers. */
export function answeredOf(questions: readonly BenchmarkQuestion[], answers: Answers): Answered[] {
  return questions.flatMap((question) => {
    const answer = answers.get(question.id);
    return answer === undefined ? [] : [{ question, answer: answer.text }];
  });
}

/** What a benchmark's answers amount to, under each condition that was asked. */
export async function assess(
  benchmark: Benchmark,
  questions: readonly BenchmarkQuestion[],
  answers: Partial<Record<Condition, Answers>>,
  options: JudgingOptions,
): Promise<Assessment> {
  const { harness } = options;
  const { name, best } = benchmark.headline;
  const plain = answers.plain ?? new Map();
  const judgeAll = async (under: Answers): Promise<Judged[]> => {
    const found = await benchmark.judge(answeredOf(questions, under), options);
    // an answer of nothing is one to some rules: yes, or an option that is drawn
    return found.map((one) => (under.get(one.question.id)?.metadata.problem === undefined ? one : unaskedOf(benchmark, one)));
  };
  const judged = await judgeAll(plain);
  const score = summarize(benchmark, judged, harness);
  const value = score.scores[name];
  const under = async (condition: Condition): Promise<{ report?: ConditionScore; credit?: number }> => {
    const others = answers[condition];
    if (others === undefined || others.size === 0) return {};
    const found = await judgeAll(others);
    const report = { score: summarize(benchmark, found, harness).scores[name], n: found.length };
    return { report, credit: meanOf(found.map(({ credit }) => credit)) };
  };
  const [blind, exchanged] = [await under('blind'), await under('exchanged')];
  const problems = questions.flatMap(({ id }) => plain.get(id)?.metadata.problem ?? []);
  const { majority, random, credits } = (await guessesOf(benchmark, questions, harness)) ?? {};
  const report: BenchmarkReport = {
    title: benchmark.title,
    headline: { name, best, value, ...headlineInterval(benchmark, judged, harness, value) },
    blind: blind.report,
    exchanged: exchanged.report,
    majority,
    random,
    credits: { blind: blind.credit, exchanged: exchanged.credit, ...credits },
    unasked: problems.length > 0 ? { count: problems.length, reason: problems[0] } : { count: 0 },
    score,
  };
  return { report, judged: judged.map((one) => lineOf(one, plain)) };
}

/** A question that could not be asked. */
const unaskedOf = (benchmark: Benchmark, one: Judged): Judged => ({
  ...(benchmark.unasked?.(one) ?? one),
  credit: 0,
  parsed: undefined,
});

function lineOf({ question, answer, credit, parsed }: Judged, answers: Answers): JudgedLine {
  const { id, prompt, pictures, cluster, references } = question;
  const problem = answers.get(id)?.metadata.problem;
  const shown = pictures.map((picture) => picture.name);
  return { id, prompt, pictures: shown, cluster, references, answer, credit, parsed: parsed ?? null, ...(problem ? { problem } : {}) };
}
