// What `llava-gemma study` does.
import { basename, extname, join } from 'node:path';
import { parseShard } from '../../benchmarks/subset.ts';
import { UserError } from '../../errors.ts';
import { lockFolder } from '../../folder-lock.ts';
import { alignColumns } from '../../runs/columns.ts';
import { createStatusLine, formatDuration, type StatusLine } from '../../runs/status.ts';
import { shownP } from '../../statistics/estimate.ts';
import { cellSearches, readSearch, searchCells, tunedOf } from '../../study/cell-search.ts';
import { checkScores } from '../../study/checks.ts';
import { executeStudy } from '../../study/execute.ts';
import { contentReader, contentsOf, openStudyFolder, readSettings, settingsOf, studyFolder } from '../../study/folder.ts';
import { mergeShares } from '../../study/merge.ts';
import type { StudyShard } from '../../study/pieces.ts';
import { peakMemory, planStudy, type Sharing, type StudyPlan, shareOut } from '../../study/plan.ts';
import { writeStudyReport } from '../../study/report.ts';
import { analyzeStudy, type StudyResults, writeResults } from '../../study/results.ts';
import { loadStudy } from '../../study/study-schema.ts';
import { buildStudy, type Study } from '../../study/variants.ts';
import { points } from '../../study/verdict.ts';
import { formatBytes } from '../format.ts';
import { withInterrupt } from '../interrupt.ts';

export interface StudyFlags {
  out?: string;
  plan?: boolean;
  json?: boolean;
  jobs?: number;
  threads?: number;
  shard?: string;
  merge: string[];
}

/** Runs the command. */
export async function runStudy(path: string, flags: StudyFlags): Promise<void> {
  if (flags.json && !flags.plan) throw new UserError('--json goes with --plan; the results are in study.json');
  if (flags.merge.length > 0 && (flags.plan || flags.shard !== undefined)) throw new UserError('--merge takes no --plan and no --shard');
  const file = loadStudy(path);
  const study = buildStudy(file, path);
  await checkScores(study);
  cellSearches(study);
  const out = flags.out ?? join('runs', basename(path, extname(path)));
  const contents = await contentsOf(study);
  const shard = flags.shard === undefined ? undefined : parseShard(flags.shard);
  if (file.search && (shard || flags.merge.length > 0))
    throw new UserError('a study with a search takes no --shard and no --merge: all of its cells are searched before the first run');
  if (shard && shard.count > study.runs.length) throw new UserError(`--shard ${flags.shard}: the study has only ${study.runs.length} runs`);
  const status = createStatusLine();
  try {
    if (flags.plan) return await plan(study, contents, shard, flags, status);
    const lock = await lockFolder(out, { note: status.note });
    try {
      if (flags.merge.length > 0) mergeShares(study, settingsOf(study, contents, 1, undefined), flags.merge, out, status.note);
      else await execute(study, contents, shard, { out, asked: flags }, status);
      await conclude(study, shard, out);
    } finally {
      await lock.release();
    }
  } finally {
    status.clear();
  }
}

async function plan(study: Study, contents: Record<string, string>, shard: StudyShard | undefined, flags: StudyFlags, status: StatusLine) {
  const found = await withInterrupt(
    (signal) => planStudy(study, { shard, asked: flags, contentOf: contentReader(contents), status, signal }),
    'nothing was trained',
  );
  status.clear();
  console.log(flags.json ? JSON.stringify(found, null, 2) : formatPlan(found));
}

async function execute(
  study: Study,
  contents: Record<string, string>,
  shard: StudyShard | undefined,
  { out, asked }: { out: string; asked: Partial<Sharing> },
  status: StatusLine,
): Promise<void> {
  await withInterrupt(async (signal) => {
    const { jobs, threads } = shareOut(await peakMemory(study, signal), study.runs.length, asked);
    const settings = openStudyFolder(out, settingsOf(study, contents, threads, shard));
    if (settings.threads !== threads) status.note(`${settings.threads} threads a run, as when the study began`);
    status.note(`${study.runs.length} runs of ${study.variants.length} cells, ${jobs} at a time with ${settings.threads} threads each`);
    await searchCells(study, { folder: out, jobs, threads: settings.threads, status, signal });
    await executeStudy(tuned(study, out), { folder: out, settings, jobs, status, signal });
  }, `the same command goes on with what is in ${out}`);
}

/** The study with the values that its searches have found. */
const tuned = (study: Study, out: string): Study =>
  study.file.search ? buildStudy(study.file, study.path, tunedOf(readSearch(study, out))) : study;

/** Results and report; of a share, only where they will come from. */
async function conclude(study: Study, shard: StudyShard | undefined, out: string): Promise<void> {
  if (shard) return console.log(`share ${shard.index}/${shard.count} of the study is in ${out}; --merge puts the shares together`);
  const whole = tuned(study, out);
  const analyzed = analyzeStudy(whole, out, contentReader(readSettings(out).contents), readSearch(study, out));
  writeResults(out, analyzed);
  await writeStudyReport(whole, out, analyzed);
  console.log(formatResults(analyzed.results));
  console.log(`\nreport: ${studyFolder(out).report}`);
}

const percent = (share: number) => `${(100 * share).toFixed(1)}`;

/** The family of comparisons as a table, under the verdict. */
export function formatResults({ family, verdict }: StudyResults): string {
  const heads = ['', 'score', 'points', '95 % interval', 'p (Holm)'];
  const rows = family.map(({ label, score, value, low, high, pHolm }) => [
    label,
    score,
    points(value),
    Number.isFinite(low) ? `${points(low)} to ${points(high)}` : '-',
    shownP(pHolm),
  ]);
  return [...alignColumns([heads, ...rows]), '', ...verdict].join('\n');
}

export function formatPlan(plan: StudyPlan): string {
  const { cells, seeds, runs, searched, shared, jobs, threads, seconds, cpuSeconds, variants, disk, memory, power, notes } = plan;
  const heads = ['cell', 'steps', 'trained', 'memory', 'time alone'];
  const rows = variants.map(({ label, steps, trained, peak, seconds: each }) => [
    label,
    String(steps),
    trained.toLocaleString('en'),
    formatBytes(peak),
    formatDuration(each),
  ]);
  return [
    `${plan.name}: ${cells} cells, ${seeds} seeds, ${runs} runs`,
    ...plan.factors.map(({ name, levels }) => `  ${name}: ${levels.join(', ')}`),
    '',
    ...alignColumns([heads, ...rows]),
    '',
    ...(searched.trials > 0 ? [`search   ${searched.trials} schedules in all, ${formatDuration(searched.seconds)}`] : []),
    `shared   ${shared.stages} stages that ${shared.runsThatBeginShared} runs begin with, features of ${shared.features} encoders`,
    `time     ${formatDuration(seconds.total)} with ${jobs} at a time, ${threads} threads each (${formatDuration(seconds.alone)} one by one, nothing shared)`,
    `CPU      ${formatDuration(cpuSeconds.total)} over all threads (${formatDuration(cpuSeconds.alone)} with nothing shared)`,
    `disk     ${formatBytes(disk.needed)}${Number.isFinite(disk.free) ? ` of ${formatBytes(disk.free)} that are free` : ''}`,
    `memory   ${formatBytes(memory.peak)} of ${formatBytes(memory.available)}`,
    ...power.map(powerLine),
    ...notes.map((note) => `note     ${note}`),
  ].join('\n');
}

function powerLine({ score, questions, comparisons, byRunSd }: StudyPlan['power'][number]): string {
  const each = byRunSd.map(
    ({ runSd, effect }) => `${Number.isFinite(effect) ? percent(effect) : 'none'} if seeds differ by ${percent(runSd)}`,
  );
  return `can see  ${score}, ${questions} questions, ${comparisons} comparisons: effects from (points) ${each.join(', ')}`;
}
