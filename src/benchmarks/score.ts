// Scores answers that any system wrote, without a model.

import { existsSync } from 'node:fs';
import { basename, join } from 'node:path';
import { UserError } from '../errors.ts';
import type { Benchmark, BenchmarkQuestion, Judged, Score } from './benchmark.ts';
import type { Judge } from './judge.ts';

export interface ScoreRequest {
  /** A file or folder of answers. */
  answers: string;
  /** Files of questions. */
  questions?: readonly string[];
  /** The folder that holds the downloads of all benchmarks, or of this one. */
  data?: string;
  /** Default: the paper's. */
  harness?: string;
  judge?: Judge;
}

/** The folder of a benchmark's downloads: `<data>/<name>`, or `data` itself where that is not there. */
export function folderOf(benchmark: Benchmark, data: string): string {
  if (!existsSync(data)) throw new UserError(`${data}: there is no such folder`);
  const own = join(data, benchmark.name);
  return existsSync(own) ? own : data;
}

/** The harness of that name. UserError, with the names that there are, for one that is unknown. */
export function harnessOf(benchmark: Benchmark, name: string = benchmark.harnesses[0].name): string {
  if (benchmark.harnesses.some((harness) => harness.name === name)) return name;
  const known = benchmark.harnesses.map((harness) => harness.name).join(', ');
  throw new UserError(`${benchmark.title} is not scored as ${name}: there ${benchmark.harnesses.length > 1 ? 'are' : 'is'} ${known}`);
}

/**
 * The questions that were asked for; undefined where nothing was said of them. UserError where there are
 * none.
 */
export async function questionsOf(
  benchmark: Benchmark,
  { questions, data, harness }: Pick<ScoreRequest, 'questions' | 'data'> & { harness: string },
): Promise<BenchmarkQuestion[] | undefined> {
  if (questions === undefined && data === undefined) return undefined;
  const folder = data === undefined ? undefined : folderOf(benchmark, data);
  const found = await benchmark.questions({ files: questions, folder, harness });
  if (found.length > 0) return found;
  const wanted = benchmark.files.filter(({ needed }) => needed === 'score').map(({ places }) => places[0]);
  throw new UserError(
    `${questions?.join(', ') ?? folder}: there are no questions of ${benchmark.title}; expected ${wanted.join(', ')} (llava-gemma benchmarks ${benchmark.name} says more)`,
  );
}

/** What judged answers amount to. */
export function summarize(benchmark: Benchmark, judged: readonly Judged[], harness: string): Score {
  const { scores, groups, ...more } = benchmark.summarize(judged, harness);
  const unparsed = judged.filter(({ parsed }) => parsed === undefined).length;
  return { benchmark: benchmark.name, harness, n: judged.length, scores, unparsed, groups, ...more };
}

/** Reads, judges and scores answers. UserError that names file and line for what is missing or malformed. */
export async function scoreAnswers(
  benchmark: Benchmark,
  { answers, judge, ...request }: ScoreRequest,
): Promise<{ score: Score; judged: Judged[] }> {
  const harness = harnessOf(benchmark, request.harness);
  const questions = await questionsOf(benchmark, { ...request, harness });
  if (!existsSync(answers)) throw new UserError(`--answers ${basename(answers)}: there is nothing at ${answers}`);
  const answered = await benchmark.answers(answers, questions, harness);
  const folder = request.data === undefined ? undefined : folderOf(benchmark, request.data);
  const judged = await benchmark.judge(answered, { harness, judge, folder });
  return { score: summarize(benchmark, judged, harness), judged };
}
