// study.json: all that a study has found, the same for the same answers whenever and wherever its runs were
// computed. Times and memory are apart, in cost.json.

import { existsSync, readdirSync, statSync } from 'node:fs';
import { join } from 'node:path';
import type { Finding } from '../diagnose/findings.ts';
import { runFolder } from '../runs/folder.ts';
import { meanOf } from '../statistics/proportion.ts';
import { type CellAlignment, cellAlignments } from './alignment.ts';
import { analyzeScore, type ScoreAnalysis } from './analysis.ts';
import { readOutcome, type ScoreTable, type StudyOutcome, scoreNames, scoreTable } from './answers.ts';
import type { StudySearch } from './cell-search.ts';
import { analyzeConvergence, type ConvergenceAnalysis } from './convergence.ts';
import { type FamilyMember, familyOf, unmeasuredOf } from './family.ts';
import { readRecord, studyFolder, writeJson } from './folder.ts';
import { type CellMaps, cellMaps } from './maps.ts';
import { EXCHANGED, measures } from './measures.ts';
import { firstPieceOf, neededBy, type Piece, piecesOf } from './pieces.ts';
import type { Study } from './variants.ts';
import { verdictOf } from './verdict.ts';

export interface StudyResults {
  format: 1;
  name: string;
  factors: { name: string; levels: string[] }[];
  seeds: number[];
  runs: {
    id: string;
    cell: string;
    seed: number;
    outcome: 'finished' | 'diverged';
    diverged?: { stage: string; step: number };
    /** On the questions that all runs were asked. */
    scores: Record<string, number>;
    numbers: Record<string, number>;
    signs: StudyOutcome['finished'][number]['signs'];
    health: Finding[];
  }[];
  scores: ScoreAnalysis[];
  /** Comparisons that were named beforehand. */
  family: FamilyMember[];
  convergence?: ConvergenceAnalysis;
  /** By cell; empty where it was not measured. */
  alignment: CellAlignment[];
  /** By cell, likewise. */
  maps?: CellMaps[];
  /** Of a study with a search. */
  search?: StudySearch;
  verdict: string[];
  notMeasured: string[];
}

export interface StudyCost {
  runs: {
    id: string;
    cell: string;
    seed: number;
    seconds: number;
    cpuSeconds: number;
    /** With all of what it begins with, features and stages that others share. */
    wholeCpuSeconds: number;
    peakRssMb: number;
    /** Of the weights that it ends with, as they are stored; undefined where they were removed. */
    modelBytes?: number;
  }[];
  pieces: { id: string; seconds: number; cpuSeconds: number; peakRssMb: number }[];
}

/** All that the report shows. */
export interface Analyzed {
  results: StudyResults;
  cost: StudyCost;
  outcome: StudyOutcome;
  tables: ScoreTable[];
}

/** Analyzes the runs in a study's folder. */
export function analyzeStudy(study: Study, folder: string, contentOf: (path: string) => string, search?: StudySearch): Analyzed {
  const outcome = readOutcome(study, folder);
  const tables = scoreNames(outcome).map((name) => scoreTable(name, outcome));
  const pieces = piecesOf(study.runs, folder, contentOf);
  const analyzed = tables.map((table) => ({ table, analysis: analyzeScore(study, table, (run) => firstPieceOf(run, pieces)) }));
  const familyScores = study.file.family.scores ?? tables.slice(0, 1).map(({ name }) => name);
  const ofFamily = analyzed
    .filter(({ table }) => familyScores.includes(table.name))
    .map(({ table, analysis }) => ({ table, model: analysis.model }));
  const family = familyOf(study, ofFamily);
  const convergence = analyzeConvergence(
    study,
    outcome,
    tables,
    analyzed.map(({ analysis }) => analysis),
  );
  const maps = cellMaps(outcome.finished.map(({ run, maps }) => ({ cell: run.variant.label, maps })));
  const found = {
    format: 1 as const,
    name: study.file.name,
    factors: study.factors.map(({ name, levels }) => ({ name, levels: levels.map(({ label }) => label) })),
    seeds: study.seeds,
    runs: runResults(study, outcome, tables),
    scores: analyzed.map(({ analysis: { model: _, ...analysis } }) => analysis),
    family,
    ...(convergence ? { convergence } : {}),
    alignment: cellAlignments(outcome.finished.map(({ run, alignment }) => ({ cell: run.variant.label, alignment }))),
    ...(maps.length > 0 ? { maps } : {}),
    ...(search ? { search } : {}),
    notMeasured: notMeasured(study, outcome, tables),
  };
  const verdict = verdictOf(study, { ...found, unmeasured: unmeasuredOf(study, ofFamily) });
  return { results: { ...found, verdict }, cost: costOf(study, folder, outcome, pieces), outcome, tables };
}

function runResults(study: Study, { finished, diverged }: StudyOutcome, tables: readonly ScoreTable[]): StudyResults['runs'] {
  return study.runs.flatMap((run): StudyResults['runs'] => {
    const named = { id: run.id, cell: run.variant.label, seed: run.seed };
    const lost = diverged.find((each) => each.run === run);
    if (lost)
      return [
        { ...named, outcome: 'diverged', diverged: { stage: lost.stage, step: lost.step }, scores: {}, numbers: {}, signs: [], health: [] },
      ];
    const done = finished.find((each) => each.run === run);
    if (!done) return [];
    const scores = Object.fromEntries(
      tables.flatMap(({ name, runs }) =>
        runs.flatMap((each) => (each.run === run && each.credits.length > 0 ? [[name, meanOf(each.credits)]] : [])),
      ),
    );
    return [{ ...named, outcome: 'finished', scores, numbers: done.numbers, signs: done.signs, health: done.health }];
  });
}

/** What the report cannot say, in words. */
function notMeasured(study: Study, { finished, diverged }: StudyOutcome, tables: readonly ScoreTable[]): string[] {
  const has = (name: string, of: (run: StudyOutcome['finished'][number]) => boolean) =>
    finished.some(of) ? [] : measures.filter((measure) => measure.name === name).map(({ missing }) => missing);
  const lost = new Set(diverged.map(({ run }) => run.variant.label));
  return [
    ...(study.seeds.length === 1 ? ['run noise: there is one seed a cell, and errors are of the questions and these very runs'] : []),
    ...has('held-out splits', ({ run, scores }) =>
      Object.keys(scores).some((name) => (run.recipe.evaluate?.splits as string[] | undefined)?.includes(name)),
    ),
    // baselines of benchmarks are known of all their questions alone
    ...has(EXCHANGED, ({ scores }) =>
      Object.values(scores).some(({ questions, baselines }) => baselines([...questions.keys()]).exchanged !== undefined),
    ),
    ...has('held-out loss', ({ numbers }) => Object.keys(numbers).some((name) => name.endsWith('held-out loss'))),
    ...has('benchmarks', () => study.file.score.benchmarks.length > 0),
    ...(study.file.convergence ? [] : ['what a stage is worth by its steps (convergence)']),
    ...has('alignment', ({ alignment }) => alignment !== undefined),
    ...(study.file.search
      ? []
      : ['hyper-parameters of each cell (search): all cells have those of the recipe, but for what a factor changes']),
    ...has('signs of the model', ({ health }) => health.some(({ sign }) => sign === 'norm-mismatch')),
    ...has('maps', ({ maps }) => maps !== undefined),
    ...tables
      .filter(({ leftOut }) => leftOut > 0)
      .map(({ name, leftOut }) => `${leftOut} questions of ${name}, which not all runs were asked`),
    ...(lost.size > 0
      ? [`scores of runs that became non-finite, in ${[...lost].join('; ')}: what is said of these cells is of the other runs`]
      : []),
  ];
}

function costOf(study: Study, folder: string, { records }: StudyOutcome, pieces: readonly Piece[]): StudyCost {
  const cpuOf = (id: string) => readRecord(folder, id)?.cpuSeconds ?? 0;
  const paths = studyFolder(folder);
  return {
    runs: study.runs.flatMap(({ id, variant, seed, recipe }) => {
      const record = records.get(id);
      if (!record) return [];
      const { seconds, cpuSeconds, peakRssMb } = record;
      const wholeCpuSeconds = [...neededBy(id, pieces)].reduce((sum, each) => sum + cpuOf(each), cpuSeconds);
      const modelBytes = weightBytes(runFolder(paths.run(id)).checkpoint(recipe.stages.at(-1)!.name));
      return [
        { id, cell: variant.label, seed, seconds, cpuSeconds, wholeCpuSeconds, peakRssMb, ...(modelBytes > 0 ? { modelBytes } : {}) },
      ];
    }),
    pieces: pieces
      .filter(({ kind }) => kind !== 'run')
      .flatMap(({ id }) => {
        const record = readRecord(folder, id);
        return record ? [{ id, seconds: record.seconds, cpuSeconds: record.cpuSeconds, peakRssMb: record.peakRssMb }] : [];
      }),
  };
}

/** Bytes of the weights in a folder; 0 without any. */
function weightBytes(dir: string): number {
  if (!existsSync(dir)) return 0;
  const files = readdirSync(dir).filter((name) => name.endsWith('.safetensors') && name.startsWith('model'));
  return files.reduce((sum, name) => sum + statSync(join(dir, name)).size, 0);
}

/** Writes study.json and cost.json. */
export function writeResults(folder: string, { results, cost }: Analyzed): void {
  const paths = studyFolder(folder);
  writeJson(paths.results, results);
  writeJson(paths.cost, cost);
}
