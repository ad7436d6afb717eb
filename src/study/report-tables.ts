// The tables of a study's page.

import { escapeHtml, htmlTable } from '../runs/page.ts';
import { formatDuration } from '../runs/status.ts';
import { shownP } from '../statistics/estimate.ts';
import type { ScoreAnalysis } from './analysis.ts';
import type { Effect } from './effects.ts';
import type { FamilyMember } from './family.ts';
import type { StudyCost, StudyResults } from './results.ts';
import { points } from './verdict.ts';

const dash = '&ndash;';
export const percent = (share: number | undefined | null) =>
  share === undefined || share === null || !Number.isFinite(share) ? dash : (100 * share).toFixed(1);
const intervalText = ({ low, high }: { low: number; high: number }) =>
  Number.isFinite(low) && Number.isFinite(high) ? `${points(low)} to ${points(high)}` : dash;

/** The paper's table 1: cells down, scores across, with what each must beat below. */
export function gridTable(scores: readonly ScoreAnalysis[]): string {
  const cells = [...new Set(scores.flatMap(({ cells: own }) => own.map(({ cell }) => cell)))];
  const at = (score: ScoreAnalysis, cell: string) => score.cells.find((each) => each.cell === cell);
  const rows = cells.map((cell) => [
    escapeHtml(cell),
    String(at(scores[0], cell)?.seeds ?? 0),
    ...scores.flatMap((score) => {
      const found = at(score, cell);
      if (!found) return [dash, dash];
      const { chance, majority, blind, exchanged } = found.baselines;
      return [
        `<b>${percent(found.value)}</b> (${percent(found.se)})`,
        `<span class="dim">${[chance, majority, blind, exchanged].map(percent).join(' / ')}</span>`,
      ];
    }),
  ]);
  const heads = [
    'cell',
    'seeds',
    ...scores.flatMap(({ score, questions, clusters }) => [
      `${score} (n ${questions}, ${clusters} pictures)`,
      'chance / majority / blind / exchanged',
    ]),
  ];
  return `${htmlTable(heads, rows)}<p class="note">Percent of the questions, with its standard error. Beside it what it must beat: guessing, always the most frequent
    answer, the same model before a blank picture, and before the picture of another question.</p>`;
}

export function effectTable(effects: readonly Effect[]): string {
  return htmlTable(
    ['', 'points', '95 % interval', 'standard error', 'df', 'p'],
    effects.map((effect) => [
      escapeHtml(effect.label),
      points(effect.value),
      intervalText(effect),
      percent(effect.se),
      effect.df.toFixed(1),
      shownP(effect.p),
    ]),
  );
}

export function simpleTable({ simple }: ScoreAnalysis): string {
  if (simple.length === 0) return '';
  const rows = simple.flatMap(({ factor, level, from, by, at }) =>
    at.map(({ level: place, effect }) => [
      `${escapeHtml(factor)}: ${escapeHtml(from)} &rarr; ${escapeHtml(level)}`,
      `${escapeHtml(by)}: ${escapeHtml(place)}`,
      points(effect.value),
      intervalText(effect),
      shownP(effect.p),
    ]),
  );
  return htmlTable(['effect', 'where', 'points', '95 % interval', 'p'], rows);
}

export function familyTable(family: readonly FamilyMember[]): string {
  const odds = ({ oddsRatio }: FamilyMember) => (oddsRatio === undefined || !Number.isFinite(oddsRatio) ? dash : oddsRatio.toFixed(2));
  return htmlTable(
    [
      'comparison',
      'score',
      'points',
      '95 % interval',
      'p',
      'p (Holm)',
      'only this right : only the other',
      'odds ratio',
      'smallest visible',
    ],
    family.map((member) => [
      escapeHtml(member.label),
      escapeHtml(member.score),
      points(member.value),
      intervalText(member),
      shownP(member.p),
      `<b>${shownP(member.pHolm)}</b>`,
      member.onlyA === undefined ? dash : `${member.onlyA} : ${member.onlyB}`,
      odds(member),
      percent(member.smallestVisible),
    ]),
  );
}

/** Rows less columns; what Holm over all pairs tells from 0 is in bold. */
export function pairMatrix({ cells, pairs }: ScoreAnalysis): string {
  if (pairs.length === 0) return '<p class="note">There are too many cells, or too few, to show them in pairs.</p>';
  const names = cells.map(({ cell }) => cell);
  const numbered = names.map((name, i) => `${i + 1} ${escapeHtml(name)}`);
  const rows = names.map((row, i) => [
    numbered[i],
    ...names.map((column) => {
      const pair = pairs.find(({ a, b }) => (a === row && b === column) || (a === column && b === row));
      if (!pair) return '';
      const value = pair.a === row ? pair.value : -pair.value;
      const text = points(value);
      return pair.pHolm < 0.05 ? `<b class="${value > 0 ? 'good' : 'unsure'}">${text}</b>` : text;
    }),
  ]);
  const details = htmlTable(
    [
      'pair',
      'points',
      '95 % interval',
      'p (Holm over all pairs)',
      'correlation',
      'only first : only second',
      'odds ratio',
      'McNemar mid-p',
    ],
    pairs.map((pair) => [
      `${escapeHtml(pair.a)} &minus; ${escapeHtml(pair.b)}`,
      points(pair.value),
      intervalText(pair),
      shownP(pair.pHolm),
      Number.isNaN(pair.correlation) ? dash : pair.correlation.toFixed(2),
      pair.onlyA === undefined ? dash : `${pair.onlyA} : ${pair.onlyB}`,
      pair.oddsRatio === undefined || !Number.isFinite(pair.oddsRatio) ? dash : pair.oddsRatio.toFixed(2),
      pair.midP === undefined ? dash : shownP(pair.midP),
    ]),
  );
  return `${htmlTable(['row less column, points', ...names.map((_, i) => String(i + 1))], rows)}
    <details><summary>every pair with its interval</summary>${details}</details>`;
}

/** What looked wrong while the runs were trained, and those that became non-finite. */
export function healthTable({ runs }: StudyResults): string {
  const rows = runs.map(({ id, outcome, diverged, signs }) => {
    const state = outcome === 'diverged' || signs.some(({ sign }) => sign === 'not-finite') ? 'red' : signs.length > 0 ? 'amber' : 'green';
    const told = diverged
      ? [`non-finite at step ${diverged.step} of ${diverged.stage}`]
      : signs.map(({ stage, step, message }) => `${stage}, step ${step}: ${message}`);
    return [
      escapeHtml(id),
      `<span class="light ${state}">${state}</span>`,
      `<span class="told">${told.map(escapeHtml).join('<br>') || 'nothing'}</span>`,
    ];
  });
  return htmlTable(['run', '', 'what was seen'], rows);
}

export function costTable({ runs, pieces }: StudyCost): string {
  const cells = [...new Set(runs.map(({ cell }) => cell))];
  const sum = (list: readonly { seconds: number; cpuSeconds: number }[], of: 'seconds' | 'cpuSeconds') =>
    list.reduce((total, each) => total + each[of], 0);
  const rows = cells.map((cell) => {
    const own = runs.filter((run) => run.cell === cell);
    return [
      escapeHtml(cell),
      String(own.length),
      formatDuration(sum(own, 'seconds') / own.length),
      (sum(own, 'cpuSeconds') / own.length).toFixed(1),
      `${Math.round(Math.max(...own.map(({ peakRssMb }) => peakRssMb)))} MB`,
    ];
  });
  const shared =
    pieces.length > 0
      ? [
          [
            'shared by several runs, in all',
            String(pieces.length),
            formatDuration(sum(pieces, 'seconds')),
            sum(pieces, 'cpuSeconds').toFixed(1),
            '',
          ],
        ]
      : [];
  return htmlTable(['cell', 'runs', 'time a run', 'CPU seconds a run', 'peak memory'], [...rows, ...shared]);
}
