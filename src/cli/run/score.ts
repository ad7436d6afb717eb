// What `llava-gemma score` does.
import { writeFileSync } from 'node:fs';
import type { Benchmark, Score } from '../../benchmarks/benchmark.ts';
import { benchmarkNamed } from '../../benchmarks/benchmarks.ts';
import { formatNumber, groupRows } from '../../benchmarks/report.ts';
import { type ScoreRequest, scoreAnswers, uploadOf } from '../../benchmarks/score.ts';
import { makeFolderOf, onDisk } from '../../disk.ts';
import { alignColumns } from '../../runs/columns.ts';
import { formatCount } from '../format.ts';

export interface ScoreFlags {
  answers: string;
  questions: string[];
  data?: string;
  harness?: string;
  upload?: string;
  json?: boolean;
}

/** Scores as lines of text: the official numbers, then a table for each grouping. */
export function formatScore({ benchmark, harness, n, scores, unparsed, groups, bounds, notes = [] }: Score): string {
  const lines = [`${benchmark} (${harness}), ${formatCount(n)} questions`];
  lines.push(...alignColumns(Object.entries(scores).map(([name, value]) => [`  ${name}`, formatNumber(value)])));
  if (unparsed > 0) lines.push(`  ${formatCount(unparsed)} answers could not be read`);
  if (bounds) lines.push(`  between ${formatNumber(bounds.low)} and ${formatNumber(bounds.high)}, whatever these meant`);
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

export async function score(name: string, { questions, json, upload, ...rest }: ScoreFlags): Promise<void> {
  const benchmark = benchmarkNamed(name);
  const request = { ...rest, questions: questions.length > 0 ? questions : undefined };
  if (upload !== undefined) return writeUpload(benchmark, request, upload);
  const { score } = await scoreAnswers(benchmark, request);
  console.log(json ? JSON.stringify(score, null, 2) : formatScore(score));
}
