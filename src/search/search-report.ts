// What came of a search: search.json, which is the same however often the search was stopped, and
// search.html.

import { writeWhole } from '../disk.ts';
import { axisStyle, colorOf, drawChart, fromLeft, gridLines, numbers } from '../runs/chart.ts';
import { escapeHtml, htmlPage, textTable } from '../runs/page.ts';
import type { Estimate } from '../statistics/estimate.ts';
import { pairedDifference } from '../statistics/paired.ts';
import { clusteredMean } from '../statistics/proportion.ts';
import { type ExpectedBest, expectedBest } from './expected-best.ts';
import { type Outcome, rankTrials, rungsOf, type SearchPlan } from './proposals.ts';
import type { FinishedTrial, SearchResult } from './search.ts';
import type { SearchFolder } from './search-folder.ts';
import type { Objective, SamplerName, SearchFile, StartName } from './search-schema.ts';
import { STARTUP } from './tpe.ts';

/** A run with a fresh seed. */
export interface Confirmation {
  of: 'winner' | 'base';
  seed: number;
  outcome: Outcome;
}

export interface VariantResult {
  name: string;
  /** What was spent, in whole schedules. */
  spent: number;
  winner: { index: number; values: FinishedTrial['values']; value: number } | null;
  confirmations: Confirmation[];
  /** Means over the fresh seeds, and winner - base on the same ones; null where a run has no value. */
  confirmed: { winner: Summary | null; base: Summary | null; gain: Summary | null };
  /** Of the whole schedules that do not depend on each other; diverged and failed ones count as the worst. */
  expectedBest: { trials: number; curve: ExpectedBest[] };
  /** The best value after each trial with a whole schedule, and what was spent until then. */
  bestSoFar: { spent: number; value: number }[];
  trials: FinishedTrial[];
  /** Floating-point operations of a whole schedule (compute.ts). */
  flops: number;
}

type Summary = Pick<Estimate, 'value' | 'low' | 'high'> & { n: number };

/** search.json. */
export interface SearchReport {
  format: 1;
  name: string;
  objective: Objective;
  budget: SearchFile['budget'];
  sampler: SamplerName;
  start?: StartName;
  asha: SearchFile['asha'] | null;
  seed: number;
  /** Whether low values are good. */
  lowest: boolean;
  variants: VariantResult[];
}

// === Numbers ===

const scoreOf = ({ outcome }: { outcome: Outcome }) => (outcome.status === 'finished' ? outcome.value : undefined);

export function resultOf(
  name: string,
  plan: SearchPlan,
  { trials, winner }: SearchResult,
  confirmations: Confirmation[],
): Omit<VariantResult, 'flops'> {
  return {
    name,
    spent: spentOn(trials),
    winner: winner?.outcome.status === 'finished' ? { index: winner.index, values: winner.values, value: winner.outcome.value } : null,
    confirmations,
    confirmed: confirmedOf(confirmations),
    expectedBest: curveOf(trials, plan),
    bestSoFar: bestSoFar(trials, plan),
    trials,
  };
}

// shares are fractions such as 1/9: their sum is told to a billionth
const spentOn = (trials: readonly FinishedTrial[]) => Number(trials.reduce((sum, { share }) => sum + share, 0).toFixed(9));

function confirmedOf(confirmations: readonly Confirmation[]): VariantResult['confirmed'] {
  const valuesOf = (of: Confirmation['of']) => confirmations.filter((run) => run.of === of).map(scoreOf);
  const isWhole = (values: readonly (number | undefined)[]): values is number[] => values.length > 0 && !values.includes(undefined);
  const [winner, base] = [valuesOf('winner'), valuesOf('base')];
  const summary = ({ value, low, high, n }: Estimate & { n: number }): Summary => ({ value, low, high, n });
  return {
    winner: isWhole(winner) ? summary(clusteredMean(winner)) : null,
    base: isWhole(base) ? summary(clusteredMean(base)) : null,
    gain: isWhole(winner) && isWhole(base) ? summary(pairedDifference(winner, base)) : null,
  };
}

/**
 * The curve of the trials that a sampler proposes without looking at others: all of random, halton and sobol,
 * the first ten of tpe. Under ASHA none of them is: whole schedules are chosen.
 */
function curveOf(trials: readonly FinishedTrial[], plan: SearchPlan): VariantResult['expectedBest'] {
  const free = plan.asha ? [] : plan.sampler === 'tpe' ? trials.slice(0, STARTUP) : trials;
  const ranked = rankTrials(free, plan).map((trial) => scoreOf(trial)!);
  if (ranked.length === 0) return { trials: 0, curve: [] };
  const values = free.map((trial) => scoreOf(trial) ?? ranked.at(-1)!);
  return { trials: values.length, curve: expectedBest(values, plan.lowest) };
}

function bestSoFar(trials: readonly FinishedTrial[], plan: SearchPlan): VariantResult['bestSoFar'] {
  const top = rungsOf(plan) - 1;
  return trials.flatMap((trial, i) => {
    if (trial.rung !== top) return [];
    const before = trials.slice(0, i + 1);
    const [best] = rankTrials(
      before.filter(({ rung }) => rung === top),
      plan,
    );
    return best ? [{ spent: spentOn(before), value: scoreOf(best)! }] : [];
  });
}

/**
 * What each variant has found with as many operations as the one that has spent least: undefined where a
 * variant had no whole schedule by then.
 */
export function atEqualFlops(variants: readonly Pick<VariantResult, 'flops' | 'spent' | 'bestSoFar'>[]) {
  const least = Math.min(...variants.map(({ spent, flops }) => spent * flops));
  // what was spent is told to a billionth
  const values = variants.map(({ bestSoFar: points, flops }) => points.findLast(({ spent }) => spent * flops <= least * (1 + 1e-6))?.value);
  return { flops: least, values };
}

// === Page ===

function chart(series: object[], xName: string, yName: string, isLogarithmic = false): string {
  return drawChart(
    {
      grid: { left: 56, right: 16, top: 28, bottom: 44 },
      xAxis: { ...fromLeft(xName), ...numbers(isLogarithmic) },
      yAxis: { name: yName, ...axisStyle, ...numbers(), ...gridLines },
      series,
    },
    520,
    280,
  );
}

const line = (data: number[][], color: string, dashed = false, step = false) => ({
  type: 'line',
  silent: true,
  data,
  step: step ? 'end' : false,
  showSymbol: data.length === 1,
  lineStyle: { color, width: 2, type: dashed ? 'dashed' : 'solid' },
  itemStyle: { color },
});

const figure = (svg: string, caption: string) => `<figure>${svg}<figcaption>${caption}</figcaption></figure>`;

/** The best so far, by schedules and by operations, and the expected best of n. */
export function curves(variants: readonly VariantResult[], quantity: string): string {
  const key = variants
    .map(({ name }, i) => `<i class="key fill" style="background:${colorOf(i)};opacity:1"></i> <b>${escapeHtml(name)}</b>`)
    .join(', ');
  const expected = variants.flatMap(({ expectedBest: { curve } }, i) => [
    line(
      curve.map(({ n, unbiased }) => [n, unbiased]),
      colorOf(i),
    ),
    line(
      curve.map(({ n, plain }) => [n, plain]),
      colorOf(i),
      true,
    ),
  ]);
  const running = variants.map(({ bestSoFar: points }, i) =>
    line(
      points.map(({ spent, value }) => [spent, value]),
      colorOf(i),
      false,
      true,
    ),
  );
  const byCost = variants.map(({ bestSoFar: points, flops }, i) =>
    line(
      points.map(({ spent, value }) => [(spent * flops) / 1e12, value]),
      colorOf(i),
      false,
      true,
    ),
  );
  const figures = [
    figure(chart(running, 'whole schedules spent', quantity), `The best so far, with what was spent (${key})`),
    ...(variants.length > 1 ? [figure(chart(byCost, 'TFLOP spent', quantity), `The same, by what was computed (${key})`)] : []),
    ...(variants.some(({ expectedBest: { curve } }) => curve.length > 0)
      ? [figure(chart(expected, 'trials', quantity), `Expected best of n trials: unbiased, dashed with replacement (${key})`)]
      : []),
  ];
  return `<div class="curves">${figures.join('\n')}</div>`;
}

/** A figure for each field with numbers: what its values were worth in whole schedules. */
function slices({ trials }: VariantResult, quantity: string): string {
  const whole = trials.filter(({ share, outcome }) => share === 1 && outcome.status === 'finished');
  const paths = Object.keys(trials[0]?.values ?? {}).filter((path) => trials.every(({ values }) => typeof values[path] === 'number'));
  const figures = paths.map((path) => {
    const points = whole.map((trial) => [trial.values[path] as number, scoreOf(trial)!]);
    const places = points.map(([x]) => x);
    const isWide = Math.min(...places) > 0 && Math.max(...places) / Math.min(...places) > 20;
    const dots = { type: 'scatter', silent: true, symbolSize: 7, data: points, itemStyle: { color: colorOf(0) } };
    return figure(chart([dots], path, quantity, isWide), escapeHtml(path));
  });
  return whole.length > 0 && figures.length > 0 ? `<div class="curves">${figures.join('\n')}</div>` : '';
}

const shown = (value: number | undefined) => (value === undefined ? '-' : Number.isFinite(value) ? value.toFixed(4) : 'unknown');
const interval = (summary: Summary | null) => (summary ? `${shown(summary.value)} (${shown(summary.low)} to ${shown(summary.high)})` : '-');
const said = (value: unknown) => (typeof value === 'string' ? value : JSON.stringify(value));

export function trialTable({ trials }: VariantResult): string {
  const paths = Object.keys(trials[0]?.values ?? {});
  const rows = trials.map(({ index, share, values, outcome }) => [
    String(index),
    share.toFixed(3),
    outcome.status === 'finished' ? shown(outcome.value) : outcome.status,
    ...paths.map((path) => said(values[path])),
    outcome.status === 'finished' ? '' : outcome.reason,
  ]);
  return textTable(['trial', 'share of the schedule', 'value', ...paths, ''], rows);
}

function variantSection(variant: VariantResult, quantity: string): string {
  const { winner, confirmations } = variant;
  const settings = winner
    ? `<p>Trial ${winner.index} has won: <code>${escapeHtml(
        Object.entries(winner.values)
          .map(([path, value]) => `--set '${path}=${said(value)}'`)
          .join(' '),
      )}</code></p>`
    : '<p>No whole schedule has a value: there is no winner.</p>';
  const runs = confirmations.map(({ of, seed, outcome }) => [
    of,
    String(seed),
    outcome.status === 'finished' ? shown(outcome.value) : outcome.status,
  ]);
  return `<h2>${escapeHtml(variant.name)}</h2>${settings}
${runs.length > 0 ? `<h3>Fresh seeds</h3>${textTable(['', 'seed', quantity], runs)}` : ''}
<h3>What the values were worth</h3>${slices(variant, quantity)}
<h3>All trials</h3>${trialTable(variant)}`;
}

/** What is measured, in words. */
export function quantityOf(objective: Objective): string {
  if ('held_out' in objective) return `held-out loss of ${objective.held_out}`;
  return `right answers on ${objective.accuracy}${objective.task ? `, ${objective.task}` : ''}`;
}

const HEADS = ['', 'spent', 'winner when chosen', 'winner, fresh seeds', 'recipe, fresh seeds', 'winner - recipe'];

/** A row for each variant: names as `HEADS`. */
export function summaryRows({ variants }: SearchReport): string[][] {
  const rows = variants.map(({ name, spent, winner, confirmed }) => [
    name,
    spent.toFixed(2),
    shown(winner?.value),
    interval(confirmed.winner),
    interval(confirmed.base),
    interval(confirmed.gain),
  ]);
  return [HEADS, ...rows];
}

/** What each has found with as many operations, under a heading; nothing of a single one. */
export function equalCost(variants: readonly VariantResult[], quantity: string, heading: 'h2' | 'h3'): string {
  if (variants.length < 2) return '';
  const equal = atEqualFlops(variants);
  const tera = (flops: number) => (flops / 1e12).toPrecision(3);
  const rows = variants.map(({ name, flops, spent, winner }, i) => [
    name,
    tera(flops),
    tera(spent * flops),
    shown(winner?.value),
    shown(equal.values[i]),
  ]);
  return `<${heading}>At equal cost</${heading}>
${textTable(['', 'TFLOP a schedule', 'TFLOP in all', `${quantity}, all trials`, `the same within ${tera(equal.flops)} TFLOP`], rows)}
<p class="note">All variants had as many trials of as many samples, and a larger model computes more in them. The last column cuts each search where it has
spent what the cheapest one has in all. A token takes 4 operations for each weight, and 2 more for one that is trained.</p>`;
}

export const curvesNote = `<p class="note">The expected best is of trials that do not depend on each other: those of random, halton and sobol, the first ${STARTUP} of tpe, none
under ASHA. Diverged and failed trials count as the worst.</p>`;

export function searchPage(report: SearchReport): string {
  const { name, objective, lowest, sampler, start, asha, budget, variants } = report;
  const quantity = quantityOf(objective);
  const length = budget.steps ? `${budget.steps} steps` : budget.samples ? `${budget.samples} samples` : 'the length of the recipe';
  const how = `${sampler}${start ? ` that starts with ${start}` : ''}${asha ? ` with ASHA (${asha.rungs} rungs, 1 of ${asha.reduction} goes on)` : ''}`;
  const [head, ...rows] = summaryRows(report);
  return htmlPage(
    name,
    `<p>${escapeHtml(quantity)}, ${lowest ? 'low' : 'high'} is good. Each variant had ${budget.trials} whole schedules of ${length}, proposed by ${how}.</p>
${textTable(head, rows)}
<p class="note">The winner when chosen is flattered: it is the best of many noisy values. Fresh seeds had no part in the choice; 95 % intervals by t over
seeds, the last column paired by seed. Choose on samples that no table reports.</p>
${equalCost(variants, quantity, 'h2')}
<h2>Curves</h2>
${curves(variants, quantity)}
${curvesNote}
${variants.map((variant) => variantSection(variant, quantity)).join('\n')}`,
  );
}

/** Writes search.json and search.html. */
export function writeSearchReport(folder: SearchFolder, report: SearchReport): void {
  writeWhole(folder.result, `${JSON.stringify(report, null, 2)}\n`);
  writeWhole(folder.page, searchPage(report));
}
