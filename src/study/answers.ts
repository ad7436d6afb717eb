// What the finished runs of a study answered, side by side: the same questions for all.

import { existsSync } from 'node:fs';
import type { Alignment } from '../alignment/align.ts';
import { answerFindings } from '../diagnose/answer-signs.ts';
import { withSkippedStage } from '../diagnose/diagnose.ts';
import { type Finding, rankFindings } from '../diagnose/findings.ts';
import { runFindings } from '../diagnose/run-signs.ts';
import { readSamples } from '../evaluate/samples.ts';
import type { BatchLine } from '../explain/batch.ts';
import { runFolder } from '../runs/folder.ts';
import { readMetrics } from '../runs/metrics.ts';
import { readAlignment } from './alignment.ts';
import type { Answered, AnsweredScore } from './answered.ts';
import { readJson, readRecord, type StudyRecord, studyFolder } from './folder.ts';
import { readMaps } from './maps.ts';
import { exchangedFile, measures, type RunFiles, signsFile } from './measures.ts';
import type { Study, StudyRun } from './variants.ts';

export interface FinishedRun {
  run: StudyRun;
  scores: Record<string, AnsweredScore>;
  numbers: Record<string, number>;
  /** What looked wrong while it was trained. */
  signs: { stage: string; step: number; sign: string; module?: string; message: string }[];
  /** What its folder and its answers show (diagnose/), the worst first. */
  health: Finding[];
  alignment: Alignment | undefined;
  maps: BatchLine[] | undefined;
}

export interface StudyOutcome {
  finished: FinishedRun[];
  diverged: { run: StudyRun; stage: string; step: number }[];
  records: Map<string, StudyRecord>;
}

/** A question of all runs. */
export type CommonQuestion = Pick<Answered, 'key' | 'cluster' | 'prompt' | 'expected' | 'picture'>;

/** A split or benchmark over all finished runs. */
export interface ScoreTable {
  name: string;
  questions: CommonQuestion[];
  /** Questions that not all runs were asked. */
  leftOut: number;
  runs: { run: StudyRun; credits: Float64Array; answers: string[]; baselines: ReturnType<AnsweredScore['baselines']> }[];
}

function filesOf(folder: string, { id, recipe }: StudyRun, study: Study): RunFiles {
  const paths = studyFolder(folder);
  return { run: paths.run(id), measures: paths.measures(id), recipe, benchmarks: study.file.score.benchmarks };
}

/** Reads all runs that have a record. */
export function readOutcome(study: Study, folder: string): StudyOutcome {
  const outcome: StudyOutcome = { finished: [], diverged: [], records: new Map() };
  for (const run of study.runs) {
    const record = readRecord(folder, run.id);
    if (!record) continue;
    outcome.records.set(run.id, record);
    if (record.diverged) {
      outcome.diverged.push({ run, ...record.diverged });
      continue;
    }
    const files = filesOf(folder, run, study);
    const warnings = readMetrics(runFolder(files.run).metrics).flatMap((event) => (event.type === 'warning' ? [event] : []));
    outcome.finished.push({
      run,
      scores: Object.assign({}, ...measures.map(({ scores }) => scores?.(files) ?? {})),
      numbers: Object.assign({}, ...measures.map(({ numbers }) => numbers?.(files) ?? {})),
      health: healthOf(files),
      alignment: readAlignment(files.measures),
      maps: readMaps(files.measures),
      signs: warnings.map(({ stage, step, sign, module, message }) => ({ stage, step, sign, ...(module ? { module } : {}), message })),
    });
  }
  return outcome;
}

/** What its folder, its answers and, where they were looked for, the signs of its model say of a run. */
function healthOf({ run, measures: folder, recipe }: RunFiles): Finding[] {
  const paths = runFolder(run);
  const splits = recipe.evaluate?.splits ?? [];
  const samples = splits.flatMap((split) => readSamples(paths.samples(split)));
  const exchanged = splits.flatMap((split) => {
    const path = exchangedFile(folder, split);
    return existsSync(path) ? readSamples(path) : [];
  });
  const answers = samples.length > 0 ? answerFindings({ samples, ...(exchanged.length > 0 ? { exchanged } : {}) }) : [];
  const ofModel = readJson<Finding[]>(signsFile(folder)) ?? [];
  return rankFindings(withSkippedStage([...runFindings(paths), ...answers, ...ofModel]));
}

/** Names of the splits and benchmarks, in the order in which they are asked. */
export const scoreNames = ({ finished }: StudyOutcome): string[] => [...new Set(finished.flatMap(({ scores }) => Object.keys(scores)))];

/** The questions that all runs were asked, in the order of the first run. */
export function scoreTable(name: string, { finished }: StudyOutcome): ScoreTable {
  const asked = finished.flatMap(({ run, scores }) => (scores[name] ? [{ run, score: scores[name] }] : []));
  // the same words about the same picture may be asked twice: counted apart
  const numbered = asked.map(({ run, score }) => {
    const seen = new Map<string, number>();
    const byKey = new Map(
      score.questions.map((question, index) => {
        const times = seen.get(question.key) ?? 0;
        seen.set(question.key, times + 1);
        return [times === 0 ? question.key : `${question.key} ${times}`, { ...question, index }];
      }),
    );
    return { run, byKey, score };
  });
  const keys = [...(numbered[0]?.byKey.keys() ?? [])].filter((key) => numbered.every(({ byKey }) => byKey.has(key)));
  const most = Math.max(0, ...numbered.map(({ byKey }) => byKey.size));
  return {
    name,
    questions: keys.map((key) => {
      const { cluster, prompt, expected, picture } = numbered[0].byKey.get(key)!;
      return { key, cluster, prompt, expected, ...(picture === undefined ? {} : { picture }) };
    }),
    leftOut: most - keys.length,
    runs: numbered.map(({ run, byKey, score }) => ({
      run,
      credits: Float64Array.from(keys, (key) => byKey.get(key)!.credit),
      answers: keys.map((key) => byKey.get(key)!.answer),
      baselines: score.baselines(keys.map((key) => byKey.get(key)!.index)),
    })),
  };
}
