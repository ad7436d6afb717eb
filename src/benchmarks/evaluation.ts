// A whole evaluation: questions of benchmarks are put to a model, answers are judged, a report is written.
// Its folder can be gone on with at any time, and shares of it can be put together.

import { existsSync } from 'node:fs';
import { writeWhole } from '../disk.ts';
import { UserError } from '../errors.ts';
import type { Asker } from '../evaluate/asking.ts';
import type { OpenAnswer } from '../evaluate/open-answers.ts';
import { peakRssMb } from '../runs/status.ts';
import { readAnswerLog } from './answer-log.ts';
import { type AskProgress, askBenchmarks } from './ask.ts';
import { answeredOf, assess, type BenchmarkReport, type EvaluationReport, type JudgedLine } from './assess.ts';
import type { Benchmark, BenchmarkQuestion } from './benchmark.ts';
import type { Condition } from './conditions.ts';
import { type Cost, readCost } from './cost.ts';
import {
  contentOfQuestions,
  type EvaluationSettings,
  evaluationFolder,
  prepareFolder,
  readSettings,
  settingsDifference,
} from './evaluation-folder.ts';
import { type Card, galleryHtml } from './gallery.ts';
import type { Judge } from './judge.ts';
import { reportMarkdown, reportPage } from './report.ts';
import { folderOf, harnessOf, questionsOf } from './score.ts';
import { limitClusters, type Shard, shardOf } from './subset.ts';

/** A benchmark and whose rules. */
export interface Chosen {
  benchmark: Benchmark;
  harness: string;
  /** All that may be asked: after the limit, before the share. */
  questions: readonly BenchmarkQuestion[];
  /** That of its downloads. */
  folder: string;
}

/**
 * Reads the questions of benchmarks. `harnesses` names those that are not the default, by benchmark.
 * UserError for what is missing.
 */
export async function chooseBenchmarks(
  benchmarks: readonly Benchmark[],
  data: string,
  harnesses: Readonly<Record<string, string>> = {},
  limit?: number,
): Promise<Chosen[]> {
  const chosen: Chosen[] = [];
  for (const benchmark of benchmarks) {
    if (benchmark.scoreOnly)
      throw new UserError(`${benchmark.name}: no model can be asked for its answers yet; llava-gemma score scores them`);
    const harness = harnessOf(benchmark, harnesses[benchmark.name]);
    const questions = (await questionsOf(benchmark, { data, harness }))!;
    chosen.push({ benchmark, harness, questions: limitClusters(questions, limit), folder: folderOf(benchmark, data) });
  }
  return chosen;
}

export interface EvaluationRequest {
  out: string;
  overwrite?: boolean;
  /** Name of the model in answers, and what stands for its content. */
  model: string;
  content: string;
  chosen: readonly Chosen[];
  conditions: readonly Condition[];
  limit?: number;
  shard?: Shard;
  maxNewTokens?: number;
  quantize?: string;
}

function settingsOf({ model, content, chosen, conditions, limit, shard, maxNewTokens, quantize }: EvaluationRequest): EvaluationSettings {
  return {
    format: 1,
    model,
    content,
    benchmarks: chosen.map(({ benchmark, harness, questions }) => ({
      name: benchmark.name,
      harness,
      questions: questions.length,
      content: contentOfQuestions(questions),
    })),
    conditions: [...conditions],
    limit: limit ?? null,
    shard: shard ?? null,
    maxNewTokens: maxNewTokens ?? null,
    quantize: quantize ?? null,
  };
}

/**
 * Asks what has no answer yet, then scores. `openAsker` is called only where something is to be asked.
 * UserError where the folder holds an evaluation of something else.
 */
export async function runEvaluation(
  request: EvaluationRequest,
  openAsker: () => Promise<Asker>,
  options: { batchSize: number; judge?: Judge; signal?: AbortSignal; onProgress?: (progress: AskProgress) => void },
): Promise<EvaluationReport> {
  const { out, chosen, conditions, shard, model, maxNewTokens } = request;
  const folder = evaluationFolder(out);
  prepareFolder(out, settingsOf(request), request.overwrite ?? false);
  const asked = chosen.map(({ benchmark, questions }) => ({
    name: benchmark.name,
    questions,
    maxNewTokens: maxNewTokens ?? benchmark.maxNewTokens,
  }));
  const { signal, batchSize, onProgress } = options;
  await askBenchmarks(openAsker, asked, { modelId: model, conditions, shard, batchSize, signal, onProgress, logOf: folder.answers });
  return writeReport(request, options.judge);
}

/** Scores the answers of a folder, and writes what `EvaluationFolder` lists. */
async function writeReport({ out, chosen, conditions, shard, model }: EvaluationRequest, judge?: Judge): Promise<EvaluationReport> {
  const folder = evaluationFolder(out);
  const reports: BenchmarkReport[] = [];
  const all: OpenAnswer[] = [];
  const cards: Card[] = [];
  const uploads: NonNullable<EvaluationReport['uploads']> = [];
  for (const { benchmark, harness, questions, folder: downloads } of chosen) {
    const logs = conditions.map((condition) => [condition, readAnswerLog(folder.answers(benchmark.name, condition))] as const);
    const answers = Object.fromEntries(
      logs.map(([condition, lines]) => [condition, new Map(lines.map((line) => [String(line.question_id), line]))]),
    );
    for (const [, lines] of logs) for (const line of lines) all.push(line);
    if (benchmark.upload && questions.every(({ references }) => references.length === 0)) {
      const answered = answeredOf(shardOf(questions, shard), answers.plain ?? new Map());
      writeWhole(folder.upload(benchmark.name), benchmark.upload.write(answered, harness));
      uploads.push({ benchmark: benchmark.name, server: benchmark.upload.server });
      continue;
    }
    const { report, judged } = await assess(benchmark, shardOf(questions, shard), answers, { harness, judge, folder: downloads });
    writeWhole(folder.judged(benchmark.name), judged.map((line) => `${JSON.stringify(line)}\n`).join(''));
    reports.push(report);
    cards.push(...cardsOf(benchmark.name, questions, judged));
  }
  const report = { model, benchmarks: reports, ...(uploads.length > 0 ? { uploads } : {}) };
  writeWhole(folder.report, `${JSON.stringify(report, null, 2)}\n`);
  const cost = costOf(all, readCost(folder.cost));
  writeWhole(folder.cost, `${JSON.stringify(cost, null, 2)}\n`);
  writeWhole(folder.markdown, reportMarkdown(report, cost));
  writeWhole(folder.page, reportPage(report, cost, `<h2>Some answers</h2>${await galleryHtml(cards)}`));
  return report;
}

/** Questions that the page of an evaluation shows of each benchmark. */
const SHOWN = 8;

/** Some questions, evenly from the whole. */
function cardsOf(benchmark: string, questions: readonly BenchmarkQuestion[], judged: readonly JudgedLine[]): Card[] {
  const pictures = new Map(questions.map((question) => [question.id, question.pictures]));
  const shown = Math.min(SHOWN, judged.length);
  return Array.from({ length: shown }, (_, i) => {
    const { id, prompt, references, answer, credit } = judged[Math.floor((i * judged.length) / shown)];
    const answers = [{ by: 'answer', text: answer, credit }];
    return { from: `${benchmark} ${id}`, prompt, pictures: pictures.get(id) ?? [], references, answers };
  });
}

function costOf(lines: readonly OpenAnswer[], before: Cost | undefined): Cost {
  const sum = (of: (line: OpenAnswer) => number | undefined) => lines.reduce((total, line) => total + (of(line) ?? 0), 0);
  return {
    answers: lines.length,
    promptTokens: sum(({ metadata }) => metadata.prompt_tokens),
    tokens: sum(({ metadata }) => metadata.tokens),
    seconds: sum(({ metadata }) => metadata.seconds),
    peakRssMb: Math.max(before?.peakRssMb ?? 0, peakRssMb()),
  };
}

/**
 * Puts the shares of an evaluation together: what `out` then holds is what one run would have written. The
 * shares' settings say what was asked. UserError for shares of different evaluations, and for one that is
 * missing, given twice or not at its end.
 */
export async function mergeEvaluations(shares: readonly string[], request: EvaluationRequest, judge?: Judge): Promise<EvaluationReport> {
  const settings = settingsOf({ ...request, shard: undefined });
  checkShares(shares, settings);
  prepareFolder(request.out, settings, request.overwrite ?? false);
  const into = evaluationFolder(request.out);
  for (const { benchmark } of request.chosen)
    for (const condition of request.conditions) {
      const lines = shares.flatMap((share) => readAnswerLog(evaluationFolder(share).answers(benchmark.name, condition)));
      const path = into.answers(benchmark.name, condition);
      writeWhole(path, lines.map((line) => `${JSON.stringify(line)}\n`).join(''));
    }
  return writeReport({ ...request, shard: undefined }, judge);
}

function checkShares(shares: readonly string[], whole: EvaluationSettings): void {
  const found = shares.map((path) => ({ path, settings: readSettings(path) }));
  const count = found[0].settings.shard?.count;
  for (const { path, settings } of found) {
    if (settings.shard === null) throw new UserError(`${path}: is no share of an evaluation, but a whole one`);
    const difference = settingsDifference({ ...settings, shard: null }, whole);
    if (difference !== undefined) throw new UserError(`${path}: is of an evaluation with other ${difference}`);
    if (settings.shard.count !== count)
      throw new UserError(`${path}: is one of ${settings.shard.count} shares, and ${found[0].path} one of ${count}`);
    if (!existsSync(evaluationFolder(path).report)) throw new UserError(`${path}: has not come to its end; go on with it first`);
  }
  for (let index = 1; index <= count!; index++) {
    const those = found.filter(({ settings }) => settings.shard!.index === index);
    if (those.length === 0) throw new UserError(`share ${index}/${count} is missing`);
    if (those.length > 1) throw new UserError(`share ${index}/${count} was given twice: ${those.map(({ path }) => path).join(' and ')}`);
  }
}
