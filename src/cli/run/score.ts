// What `llava-gemma score` does.
import { writeFileSync } from 'node:fs';
import type { Benchmark, Score } from '../../benchmarks/benchmark.ts';
import { benchmarkNamed } from '../../benchmarks/benchmarks.ts';
import { formatNumber, groupRows } from '../../benchmarks/report.ts';
import { type ScoreRequest, scoreAnswers, uploadOf } from '../../benchmarks/score.ts';
import { makeFolderOf, onDisk } from '../../disk.ts';
import { UserError } from '../../errors.ts';
import { alignColumns } from '../../runs/columns.ts';
import { formatCount } from '../format.ts';
import { withInterrupt } from '../interrupt.ts';
import { type JudgeFlags, openNamedJudge } from './judge.ts';

export interface ScoreFlags extends JudgeFlags {
  answers: string;
  questions: string[];
  data?: string;
  harness?: string;
  upload?: string;
  json?: boolean;
}

/** Scores as lines of text: the official numbers, then a table for each grouping. */
export function formatScore({ benchmark, harness, n, scores, unparsed, groups, bounds, judge, notes = [] }: Score): string {
  const lines = [`${benchmark} (${harness}), ${formatCount(n)} questions`];
  lines.push(...alignColumns(Object.entries(scores).map(([name, value]) => [`  ${name}`, formatNumber(value)])));
  if (unparsed > 0) lines.push(`  ${formatCount(unparsed)} answers could not be read`);
  if (bounds) lines.push(`  between ${formatNumber(bounds.low)} and ${formatNumber(bounds.high)}, whatever these meant`);
  if (judge) lines.push(`  judged by ${judge.judge}${judge.prompt ? `, ${judge.prompt}` : ''}; ${judge.rule}`);
  for (const [grouping, members] of Object.entries(groups)) {
    const { columns, rows } = groupRows(members);
    lines.push('', ...alignColumns([[grouping, ...columns], ...rows.map(([name, ...cells]) => [`  ${name}`, ...cells])]));
  }
  return [...lines, ...notes.flatMap((note) => ['', note])].join('\n');
}

/** Writes an upload; UserError as of `uploadOf`. */
async function writeUpload(benchmark: Benchmark, request: ScoreRequest, path: string): Promise<void> {
  const { server, text } = await uploadOf(benchmark, request);
  makeFolderOf(path);
  onDisk(path, () => writeFileSync(path, text));
  console.log(`${path}: for ${server}`);
}

export async function score(name: string, flags: ScoreFlags): Promise<void> {
  const { answers, data, harness, json, upload } = flags;
  const benchmark = benchmarkNamed(name);
  const request = { answers, data, harness, questions: flags.questions.length > 0 ? flags.questions : undefined };
  if (upload !== undefined) return writeUpload(benchmark, request, upload);
  if (flags.judge !== undefined && !benchmark.judged) throw new UserError(`${benchmark.title} is scored by rules, without --judge`);
  const { score } = await withInterrupt(async (signal) => {
    const judge = await openNamedJudge(flags, signal);
    return scoreAnswers(benchmark, { ...request, judge });
  }, 'judgements so far are kept, and the same command goes on from there');
  console.log(json ? JSON.stringify(score, null, 2) : formatScore(score));
}
