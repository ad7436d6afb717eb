// A comparison as a table, and as a page with the questions on which two systems differ.

import { alignColumns } from '../runs/columns.ts';
import { escapeHtml, htmlPage, textTable } from '../runs/page.ts';
import { shownP } from '../statistics/estimate.ts';
import type { QuestionPicture } from './benchmark.ts';
import { benchmarkNamed } from './benchmarks.ts';
import type { BenchmarkComparison, Comparison, Pair } from './compare.ts';
import { type Card, galleryHtml } from './gallery.ts';
import { formatScore } from './report.ts';
import { questionsOf } from './score.ts';

const signed = (value: number) => `${value < 0 ? '' : '+'}${value.toFixed(4)}`;

function rowOf({ benchmark, harness, headline, credit, difference, mcnemar, n }: BenchmarkComparison): string[] {
  const { value, low, high, p, pHolm } = difference;
  const odds = mcnemar?.oddsRatio;
  return [
    `${benchmark} (${harness})`,
    headline.name,
    formatScore(headline.a ?? undefined, headline.best),
    formatScore(headline.b ?? undefined, headline.best),
    credit.a.toFixed(4),
    credit.b.toFixed(4),
    signed(value),
    `${signed(low)} to ${signed(high)}`,
    shownP(p),
    shownP(pHolm),
    mcnemar ? `${mcnemar.onlyA} : ${mcnemar.onlyB}` : '-',
    mcnemar ? shownP(mcnemar.midP) : '-',
    odds && Number.isFinite(odds.value) ? odds.value.toFixed(2) : '-',
    String(n),
  ];
}

const heads = [
  '',
  'score',
  'A',
  'B',
  'credit A',
  'credit B',
  'A - B',
  '95 % interval',
  'p',
  'p (Holm)',
  'only A : only B',
  'McNemar mid-p',
  'odds',
  'n',
];

const LEGEND =
  'credit: mean over the questions that both answered; the interval of A - B by t over clusters (pictures, pairs); Holm over the benchmarks named here; McNemar knows no clusters: where questions share pictures, the interval decides.';

export function comparisonTable({ a, b, benchmarks }: Comparison): string {
  return [`A: ${a}`, `B: ${b}`, '', ...alignColumns([heads, ...benchmarks.map(rowOf)])].join('\n');
}

type Pictures = ReadonlyMap<string, readonly QuestionPicture[]>;

/** Pictures of the questions of each benchmark, by id, in a folder of downloads; none without one. */
export async function picturesIn(comparison: Comparison, data: string | undefined): Promise<ReadonlyMap<string, Pictures>> {
  const found = new Map<string, Pictures>();
  if (data === undefined) return found;
  for (const { benchmark: name, harness } of comparison.benchmarks) {
    const questions = (await questionsOf(benchmarkNamed(name), { data, harness }))!;
    found.set(name, new Map(questions.map(({ id, pictures }) => [id, pictures])));
  }
  return found;
}

/** The page. Of each benchmark, at most `limit` questions of differing credit, evenly from the whole. */
export async function comparisonPage(
  comparison: Comparison,
  pairsOf: (benchmark: string) => Pair[],
  limit: number,
  pictures: ReadonlyMap<string, Pictures>,
): Promise<string> {
  const { a, b, benchmarks } = comparison;
  const sections: string[] = [];
  for (const { benchmark } of benchmarks) {
    const differing = pairsOf(benchmark).filter((pair) => pair.a.credit !== pair.b.credit);
    const shown = Math.min(limit, differing.length);
    const chosen = Array.from({ length: shown }, (_, i) => differing[Math.floor((i * differing.length) / shown)]);
    const cards = chosen.map((pair): Card => cardOf(benchmark, pair, comparison, pictures.get(benchmark)));
    const count = shown < differing.length ? `${shown} of ${differing.length} questions` : `${shown} questions`;
    sections.push(
      `<h2>${escapeHtml(benchmarkNamed(benchmark).title)}</h2><p class="note">${count} on which the two differ</p>${await galleryHtml(cards)}`,
    );
  }
  return htmlPage(
    `${a} and ${b}`,
    `<p>A: <b>${escapeHtml(a)}</b><br>B: <b>${escapeHtml(b)}</b></p>${textTable(heads, benchmarks.map(rowOf))}
<p class="note">${escapeHtml(LEGEND)}</p>${sections.join('\n')}`,
  );
}

function cardOf(benchmark: string, pair: Pair, comparison: Comparison, pictures: Pictures | undefined): Card {
  const { id, prompt, references } = pair.a;
  const answers = [
    { by: `A, ${comparison.a}`, text: pair.a.answer, credit: pair.a.credit },
    { by: `B, ${comparison.b}`, text: pair.b.answer, credit: pair.b.credit },
  ];
  return { from: `${benchmark} ${id}`, prompt, pictures: pictures?.get(id) ?? [], references, answers };
}
