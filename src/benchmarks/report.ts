// An evaluation as a table for terminals and Markdown, and as a page.

import { alignColumns } from '../runs/columns.ts';
import { escapeHtml, htmlPage, textTable } from '../runs/page.ts';
import { formatDuration } from '../runs/status.ts';
import type { BenchmarkReport, EvaluationReport } from './assess.ts';
import type { Score } from './benchmark.ts';
import type { Cost } from './cost.ts';

/** A score in its units: shares to three digits behind the point, percents to two, sums to one. */
export function formatScore(value: number | undefined, best: number): string {
  if (value === undefined || Number.isNaN(value)) return '-';
  return value.toFixed(best <= 1 ? 3 : best <= 100 ? 2 : 1);
}

const intervalOf = ({ low, high, best }: BenchmarkReport['headline']) =>
  low === undefined ? '-' : `${formatScore(low, best)} - ${formatScore(high, best)}`;

const HEADS = ['', 'score', '', '95 % interval', 'blind', 'exchanged', 'majority', 'random', 'unparsed', 'n'];

function rowOf({ headline, blind, exchanged, majority, random, score }: BenchmarkReport): string[] {
  const shown = (value: number | undefined) => formatScore(value, headline.best);
  return [
    `${score.benchmark} (${score.harness})`,
    headline.name,
    shown(headline.value),
    intervalOf(headline),
    shown(blind?.score),
    shown(exchanged?.score),
    shown(majority?.score),
    shown(random),
    String(score.unparsed),
    String(score.n),
  ];
}

/** What has to be said beside the numbers. */
function remarksOf({ headline, unasked, score }: BenchmarkReport): string[] {
  const { benchmark, bounds, unparsed, notes = [] } = score;
  const remarks = notes.map((note) => `${benchmark}: ${note}`);
  if (bounds)
    remarks.push(
      `${benchmark}: ${unparsed} answers could not be read; ${headline.name} lies between ${formatScore(bounds.low, headline.best)} and ${formatScore(bounds.high, headline.best)}, whatever they meant`,
    );
  if (unasked.count > 0) remarks.push(`${benchmark}: ${unasked.count} questions could not be asked: ${unasked.reason}`);
  return remarks;
}

const LEGEND =
  'blind: the same model before a blank picture; exchanged: before the picture of another question; majority: always the most frequent right answer of these questions; random: guessing.';

const costText = ({ answers, tokens, promptTokens, seconds, peakRssMb }: Cost) =>
  `${answers.toLocaleString('en')} answers, ${promptTokens.toLocaleString('en')} tokens read and ${tokens.toLocaleString('en')} written, in ${formatDuration(seconds)}; peak memory ${Math.round(peakRssMb).toLocaleString('en')} MB`;

/** For a terminal. */
export function reportTable({ model, benchmarks }: EvaluationReport, cost: Cost): string {
  const lines = alignColumns([HEADS, ...benchmarks.map(rowOf)]);
  return [model, '', ...lines, '', ...benchmarks.flatMap(remarksOf), costText(cost)].join('\n');
}

const markdownRow = (cells: readonly string[]) => `| ${cells.map((cell) => cell.replaceAll('|', '\\|')).join(' | ')} |`;

export function reportMarkdown({ model, benchmarks }: EvaluationReport, cost: Cost): string {
  const table = [HEADS, HEADS.map((_, i) => (i === 0 ? '---' : '---:')), ...benchmarks.map(rowOf)].map(markdownRow);
  const remarks = benchmarks.flatMap(remarksOf).map((remark) => `- ${remark}`);
  return `# ${model}\n\n${table.join('\n')}\n\n${LEGEND}\n\n${[...remarks, `- ${costText(cost)}`].join('\n')}\n`;
}

/** A number of a group: counts whole, others to four digits behind the point. */
export const formatNumber = (value: number) => (Number.isInteger(value) ? value.toLocaleString('en') : value.toFixed(4));

/** The groups of a score as rows beneath the names of their numbers. */
export function groupRows(members: Score['groups'][string]): { columns: string[]; rows: string[][] } {
  const columns = [...new Set(Object.values(members).flatMap((member) => Object.keys(member)))];
  const rows = Object.entries(members).map(([name, member]) => [
    name,
    ...columns.map((of) => (of in member ? formatNumber(member[of]) : '-')),
  ]);
  return { columns, rows };
}

function sectionOf({ title, score }: BenchmarkReport): string {
  const all = textTable(
    ['', ''],
    Object.entries(score.scores).map(([name, value]) => [name, formatNumber(value)]),
  );
  const groups = Object.entries(score.groups).map(([grouping, members]) => {
    const { columns, rows } = groupRows(members);
    return textTable([grouping, ...columns], rows);
  });
  return `<h2>${escapeHtml(title)}</h2>${all}${groups.join('\n')}`;
}

/** The page; `gallery` is HTML. */
export function reportPage({ model, benchmarks }: EvaluationReport, cost: Cost, gallery: string): string {
  const remarks = [...benchmarks.flatMap(remarksOf), costText(cost)].map((remark) => `<li>${escapeHtml(remark)}</li>`);
  return htmlPage(
    model,
    `${textTable(HEADS, benchmarks.map(rowOf))}<p class="note">${escapeHtml(LEGEND)}</p><ul>${remarks.join('')}</ul>
${benchmarks.map(sectionOf).join('\n')}${gallery}`,
  );
}
