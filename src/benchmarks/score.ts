// Scores answers that any system wrote, without a model.

import { existsSync } from 'node:fs';
import { basename, join } from 'node:path';
import { isFolder } from '../disk.ts';
import { UserError } from '../errors.ts';
import type { Answered, Benchmark, BenchmarkQuestion, Judged, Score } from './benchmark.ts';
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

/** Where questions should be, there are none. */
class NoQuestions extends UserError {}

/**
 * The questions that were asked for; undefined where nothing was said of them. UserError where there are
 * none.
 */
export async function questionsOf(
  benchmark: Benchmark,
  { questions, data, harness }: Pick<ScoreRequest, 'questions' | 'data'> & { harness: string },
): Promise<BenchmarkQuestion[] | undefined> {
  if (questions === undefined && data === undefined) return undefined;
  // a folder given for the question file is meant to have it
  const inFolder = questions?.length === 1 && isFolder(questions[0]) ? questions[0] : undefined;
  const place = inFolder ?? data;
  const folder = place === undefined ? undefined : folderOf(benchmark, place);
  const found = await benchmark.questions({ files: inFolder === undefined ? questions : undefined, folder, harness });
  if (found.length > 0) return found;
  const wanted = benchmark.files.filter(({ needed }) => needed === 'score').map(({ places }) => places[0]);
  throw new NoQuestions(
    `${questions?.join(', ') ?? folder}: there are no questions of ${benchmark.title}; expected ${wanted.join(', ')} (llava-gemma benchmarks ${benchmark.name} says more)`,
  );
}

/** What judged answers amount to. */
export function summarize(benchmark: Benchmark, judged: readonly Judged[], harness: string): Score {
  const { scores, groups, ...more } = benchmark.summarize(judged, harness);
  const unparsed = judged.filter(({ parsed }) => parsed === undefined).length;
  return { benchmark: benchmark.name, harness, n: judged.length, scores, unparsed, groups, ...more };
}

/** The answers with their questions. UserError that names file and line for what is missing or malformed. */
async function readAnswered(
  benchmark: Benchmark,
  { answers, ...request }: ScoreRequest,
): Promise<{ harness: string; answered: Answered[] }> {
  const harness = harnessOf(benchmark, request.harness);
  if (!existsSync(answers)) throw new UserError(`--answers ${basename(answers)}: there is nothing at ${answers}`);
  try {
    const questions = await questionsOf(benchmark, { ...request, harness });
    return { harness, answered: await benchmark.answers(answers, questions, harness) };
  } catch (error) {
    if (!(error instanceof NoQuestions) || request.questions !== undefined) throw error;
    // some forms hold their questions, so that a folder of downloads need not
    const answered = await benchmark.answers(answers, undefined, harness).catch(() => undefined);
    if (answered === undefined) throw error;
    return { harness, answered };
  }
}

/** Reads, judges and scores answers. UserError that names file and line for what is missing or malformed. */
export async function scoreAnswers(benchmark: Benchmark, { judge, ...request }: ScoreRequest): Promise<{ score: Score; judged: Judged[] }> {
  const { harness, answered } = await readAnswered(benchmark, request);
  const folder = request.data === undefined ? undefined : folderOf(benchmark, request.data);
  const judged = await benchmark.judge(answered, { harness, judge, folder });
  return { score: summarize(benchmark, judged, harness), judged };
}

/**
 * The file that a benchmark's server scores, and which server that is. UserError as of `scoreAnswers`, and
 * for a benchmark without one.
 */
export async function uploadOf(benchmark: Benchmark, request: ScoreRequest): Promise<{ server: string; text: string }> {
  const { upload, title } = benchmark;
  if (!upload) throw new UserError(`${title}: is scored here; there is no server that takes an upload`);
  const { harness, answered } = await readAnswered(benchmark, request);
  return { server: upload.server, text: upload.write(answered, harness) };
}
