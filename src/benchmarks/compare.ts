// Two evaluations of the same questions: the paired difference with its interval, McNemar's test where credit
// is yes or no, and Holm over the benchmarks.

import { existsSync } from 'node:fs';
import { z } from 'zod';
import { UserError } from '../errors.ts';
import { holm } from '../statistics/families.ts';
import { discordantPairs, mcnemar, oddsRatio, pairedDifference } from '../statistics/paired.ts';
import { meanOf } from '../statistics/proportion.ts';
import type { JudgedLine } from './assess.ts';
import { evaluationFolder, readSettings } from './evaluation-folder.ts';
import { readJson, readJsonLines } from './files.ts';

export interface BenchmarkComparison {
  benchmark: string;
  harness: string;
  /** Questions that both answered. */
  n: number;
  clusters: number;
  /** Official headline scores; null where one of the two answered other questions beside. */
  headline: { name: string; best: number; a: number | null; b: number | null };
  /** Mean credit over the questions that both answered, in [0, 1]. */
  credit: { a: number; b: number };
  /** Mean credit of A less that of B, in [-1, 1], its 95 % interval by t over clusters, and its p. */
  difference: { value: number; low: number; high: number; p: number; pHolm: number };
  /** Of the two credits over questions. */
  correlation: number | null;
  /** Where all credit is yes or no: questions that only one got right, and what that says. */
  mcnemar?: { onlyA: number; onlyB: number; exact: number; midP: number; oddsRatio: { value: number; low: number; high: number } };
}

export interface Comparison {
  /** Names of the two, with their folders where one model is in both. */
  a: string;
  b: string;
  benchmarks: BenchmarkComparison[];
}

const judgedSchema: z.ZodType<JudgedLine> = z.object({
  id: z.string(),
  prompt: z.string(),
  pictures: z.array(z.string()),
  cluster: z.string(),
  references: z.array(z.string()),
  answer: z.string(),
  credit: z.number().min(0).max(1),
  parsed: z.string().nullable(),
  problem: z.string().optional(),
});

const reportSchema = z.object({
  model: z.string(),
  benchmarks: z.array(
    z.object({
      headline: z.object({ name: z.string(), best: z.number(), value: z.number() }),
      score: z.object({ benchmark: z.string(), harness: z.string(), n: z.number() }),
    }),
  ),
});

/** What an evaluation's folder says. */
export function readEvaluation(path: string) {
  const folder = evaluationFolder(path);
  const settings = readSettings(path);
  if (!existsSync(folder.report)) throw new UserError(`${path}: the evaluation has not come to its end; go on with it first`);
  const report = readJson(folder.report, reportSchema, 'the report of an evaluation');
  const judged = (benchmark: string) =>
    readJsonLines(folder.judged(benchmark), judgedSchema, 'the judged answers of an evaluation').map(({ value }) => value);
  return { path, settings, report, judged };
}

export type ReadEvaluation = ReturnType<typeof readEvaluation>;

/** A question that both answered. */
export interface Pair {
  a: JudgedLine;
  b: JudgedLine;
}

/** The questions of a benchmark that both evaluations have. UserError where the words of one differ. */
export function pairsOf(a: ReadEvaluation, b: ReadEvaluation, benchmark: string): Pair[] {
  const others = new Map(b.judged(benchmark).map((line) => [line.id, line]));
  return a.judged(benchmark).flatMap((line) => {
    const other = others.get(line.id);
    if (other === undefined) return [];
    if (JSON.stringify(other.references) !== JSON.stringify(line.references))
      throw new UserError(
        `${benchmark}: question ${line.id} has other right answers in ${a.path} than in ${b.path}: they are of different files`,
      );
    return [{ a: line, b: other }];
  });
}

function comparisonOf(a: ReadEvaluation, b: ReadEvaluation, benchmark: string): BenchmarkComparison {
  const [ofA, ofB] = [a, b].map(({ report }) => report.benchmarks.find(({ score }) => score.benchmark === benchmark)!);
  if (ofA.score.harness !== ofB.score.harness)
    throw new UserError(
      `${benchmark}: ${a.path} was scored as ${ofA.score.harness}, ${b.path} as ${ofB.score.harness}: their numbers do not compare`,
    );
  const pairs = pairsOf(a, b, benchmark);
  if (pairs.length === 0) throw new UserError(`${benchmark}: ${a.path} and ${b.path} have no question in common`);
  const [creditsA, creditsB] = [pairs.map((pair) => pair.a.credit), pairs.map((pair) => pair.b.credit)];
  const { value, low, high, p, clusters, correlation } = pairedDifference(creditsA, creditsB, {
    clusters: pairs.map((pair) => pair.a.cluster),
  });
  const headlineOf = ({ headline, score }: typeof ofA) => (score.n === pairs.length ? headline.value : null);
  const isBinary = [...creditsA, ...creditsB].every((credit) => credit === 0 || credit === 1);
  return {
    benchmark,
    harness: ofA.score.harness,
    n: pairs.length,
    clusters,
    headline: { name: ofA.headline.name, best: ofA.headline.best, a: headlineOf(ofA), b: headlineOf(ofB) },
    credit: { a: meanOf(creditsA), b: meanOf(creditsB) },
    difference: { value, low: Math.max(-1, low), high: Math.min(1, high), p, pHolm: p },
    correlation: Number.isNaN(correlation) ? null : correlation,
    ...(isBinary ? { mcnemar: mcnemarOf(creditsA, creditsB) } : {}),
  };
}

function mcnemarOf(a: readonly number[], b: readonly number[]): BenchmarkComparison['mcnemar'] {
  const pairs = discordantPairs(a, b);
  const { exact, midP } = mcnemar(pairs);
  return { ...pairs, exact, midP, oddsRatio: oddsRatio(pairs) };
}

/**
 * Compares two folders of evaluations over the benchmarks that both have. The differences' p values are
 * adjusted by Holm for being several. UserError where nothing can be compared.
 */
export function compareEvaluations(pathA: string, pathB: string): Comparison & { pairs(benchmark: string): Pair[] } {
  const [a, b] = [readEvaluation(pathA), readEvaluation(pathB)];
  const names = a.report.benchmarks.map(({ score }) => score.benchmark);
  const common = names.filter((name) => b.report.benchmarks.some(({ score }) => score.benchmark === name));
  if (common.length === 0) throw new UserError(`${pathA} and ${pathB} have no benchmark in common`);
  const benchmarks = common.map((name) => comparisonOf(a, b, name));
  const adjusted = holm(benchmarks.map(({ difference }) => difference.p));
  for (const [i, { difference }] of benchmarks.entries()) difference.pHolm = adjusted[i];
  const isOne = a.report.model === b.report.model;
  const [nameA, nameB] = [a, b].map(({ report, path }) => (isOne ? `${report.model} in ${path}` : report.model));
  return { a: nameA, b: nameB, benchmarks, pairs: (benchmark) => pairsOf(a, b, benchmark) };
}
