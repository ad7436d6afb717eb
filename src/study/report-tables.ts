// The tables of a study's page.

import { type Finding, rankFindings } from '../diagnose/findings.ts';
import { escapeHtml, htmlTable } from '../runs/page.ts';
import { formatDuration } from '../runs/status.ts';
import type { Bootstrapped } from '../statistics/bootstrap.ts';
import { shownP } from '../statistics/estimate.ts';
import { meanOf } from '../statistics/proportion.ts';
import type { CellAlignment } from './alignment.ts';
import type { ScoreAnalysis } from './analysis.ts';
import type { StudySearch } from './cell-search.ts';
import type { Effect } from './effects.ts';
import type { FamilyMember } from './family.ts';
import type { CellMaps } from './maps.ts';
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

const light = (level: string, text = level) => `<span class="light ${level}">${text}</span>`;

/** The number of a finding that says most. */
function keyNumber({ numbers }: Finding): string {
  const [first] = Object.values(numbers);
  return first === undefined ? '' : String(Number(first.toPrecision(2)));
}

/** The worst of a sign over the runs of a cell. */
function worstOf(findings: readonly Finding[]): Finding | undefined {
  return rankFindings(findings)[0];
}

/**
 * Signs of failure by cell: the worst level over its seeds, how many of them have it, and the number behind
 * it.
 */
function healthMatrix(runs: StudyResults['runs']): string {
  const finished = runs.filter(({ outcome }) => outcome === 'finished');
  // the worst first, and causes before what they cause
  const signs = [...new Set(rankFindings(finished.flatMap(({ health }) => health)).map(({ sign }) => sign))];
  const isSeen = (sign: string) => finished.some(({ health }) => health.some((each) => each.sign === sign && each.level !== 'unknown'));
  const shown = signs.filter(isSeen);
  const cells = [...new Set(runs.map(({ cell }) => cell))];
  const rows = shown.map((sign) => [
    escapeHtml(sign),
    ...cells.map((cell) => {
      const own = runs.filter((run) => run.cell === cell).map(({ health }) => worstOf(health.filter((each) => each.sign === sign)));
      const found = own.filter((each) => each !== undefined);
      const worst = worstOf(found);
      if (!worst) return dash;
      const times = found.filter(({ level }) => level === worst.level).length;
      const isBad = worst.level === 'red' || worst.level === 'amber';
      const count = isBad && found.length > 1 ? ` ${times}/${found.length}` : '';
      return `${light(worst.level, `${worst.level}${count}`)} <span class="dim">${keyNumber(worst)}</span>`;
    }),
  ]);
  return htmlTable(['sign', ...cells], rows);
}

/** What is wrong with the runs: as they were trained, in their losses, recipes and answers. */
export function healthTable({ runs }: StudyResults): string {
  const rows = runs.flatMap(({ id, outcome, diverged, health }) => {
    if (outcome === 'diverged')
      return [
        [escapeHtml(id), light('red'), `<span class="told">non-finite at step ${diverged!.step} of ${escapeHtml(diverged!.stage)}</span>`],
      ];
    return health
      .filter(({ level }) => level === 'red' || level === 'amber')
      .map(({ sign, level, found, at }) => {
        const where = at ? ` (${at.stage}, step ${at.step})` : '';
        return [escapeHtml(id), light(level), `<span class="told"><b>${escapeHtml(sign)}</b>: ${escapeHtml(found + where)}</span>`];
      });
  });
  const details =
    rows.length > 0
      ? `<details><summary>what was found, run by run (${rows.length})</summary>${htmlTable(['run', '', 'what was found'], rows)}</details>`
      : '<p class="note">Nothing is red or amber in any run.</p>';
  return `${healthMatrix(runs)}<p class="note">The worst of the seeds of each cell, with how many of them have it where it is red or amber, and the number behind it
    (docs/diagnose.md says what it is). What asks for a pass of the model is here where the study looked for it (score.diagnosis).</p>${details}`;
}

/** Alignment of the models of each cell, and each layer of theirs. */
export function alignmentTables(alignment: readonly CellAlignment[]): string {
  const names = [...new Set(alignment.flatMap(({ numbers }) => Object.keys(numbers)))];
  const isRetrieval = (name: string) => /^(caption|picture) found|^chance/.test(name);
  const others = names.filter((name) => !isRetrieval(name));
  const digits = (value: number) => (Number.isFinite(value) ? String(Number(value.toPrecision(3))) : dash);
  const heads = htmlTable(
    ['cell', 'seeds', ...others],
    alignment.map(({ cell, seeds, numbers }) => [escapeHtml(cell), String(seeds), ...others.map((name) => digits(numbers[name]))]),
  );
  const found = names.filter(isRetrieval);
  const retrieval =
    found.length === 0
      ? ''
      : `<h3>Retrieval: found at the first place, in %</h3>${htmlTable(
          ['', ...alignment.map(({ cell }) => escapeHtml(cell))],
          found.map((name) => [escapeHtml(name), ...alignment.map(({ numbers }) => percent(numbers[name]))]),
        )}`;
  const layers = htmlTable(
    ['cell', 'layer', 'norm ratio', 'squared distance', 'with rows of equal norm'],
    alignment.flatMap(({ cell, layers: own }) =>
      own.map(({ layer, normRatio, distance, equalNormDistance }) => [
        escapeHtml(cell),
        String(layer),
        digits(normRatio),
        digits(distance),
        digits(equalNormDistance),
      ]),
    ),
  );
  return `${heads}${retrieval}<details><summary>every layer</summary>${layers}</details>`;
}

/** Maps of the models of each cell beside chance, random orders and raw attention. */
export function mapsTable(maps: readonly CellMaps[]): string {
  const within = (value: number, { low, high }: { low: number; high: number }, digits: (value: number) => string) =>
    `${digits(value)} <span class="dim">(${digits(low)} to ${digits(high)})</span>`;
  const area = (value: number) => value.toFixed(2);
  const hits = maps.map(({ cell, seeds, summary: { pointing } }) => {
    if (!pointing) return [escapeHtml(cell), String(seeds), dash, dash, dash, dash];
    const { relevancy, attention } = pointing.maps;
    const gain = relevancy.overAttention!;
    return [
      escapeHtml(cell),
      String(seeds),
      within(relevancy.value, relevancy, percent),
      percent(attention.value),
      within(gain.value, gain, points),
      [pointing.chance, pointing.drawing].map(percent).join(' / '),
    ];
  });
  const areas = maps.map(({ cell, summary: { faithfulness } }) => {
    if (!faithfulness) return [escapeHtml(cell), '0', dash, dash, dash, dash];
    const { n, overRandom, overAttention } = faithfulness.relevancy;
    const shown = ({ value, ...interval }: Bootstrapped) => within(value, interval, area);
    return [
      escapeHtml(cell),
      String(n),
      ...[overRandom.deletion, overRandom.insertion, overAttention.deletion, overAttention.insertion].map(shown),
    ];
  });
  return `<h3>Do they point at the drawing that is asked about?</h3>
    ${htmlTable(['cell', 'seeds', 'relevancy, hits in %', 'raw attention', 'difference in points', 'a patch / a drawing at random'], hits)}
    <h3>Are they worth anything?</h3>
    ${htmlTable(['cell', 'answers', 'deletion, less a random order', 'insertion, less a random order', 'deletion, less raw attention', 'insertion, less raw attention'], areas)}
    <p class="note">The same questions for all; 95 % intervals with scenes drawn as a whole, over the models that there are. Areas under curves of log P of the answer: of deletion low is good, of insertion high.
    The answers are the right ones, whatever a model says; those to which its picture is worth nothing are left out below. How each is measured: docs/explain.md.</p>`;
}

/** Tuned beside shared: what each cell gains by values of its own, in points. */
export function tunedTable(search: StudySearch, scores: readonly ScoreAnalysis[]): string {
  const nameOf = (cell: string, settings: string) => [cell, settings].filter((part) => part !== '').join(' / ');
  const rows = search.cells.map(({ name, winner, spent }) => [
    escapeHtml(name || 'the recipe'),
    winner
      ? `<code>${escapeHtml(
          Object.entries(winner.values)
            .map(([path, value]) => `${path}=${JSON.stringify(value)}`)
            .join(' '),
        )}</code>`
      : "no trial has a value: the recipe's are kept",
    spent.toFixed(2),
    winner ? winner.value.toFixed(4) : dash,
    ...scores.flatMap(({ cells, pairs }) => {
      const of = (settings: string) => cells.find(({ cell }) => cell === nameOf(name, settings))?.value;
      const pair = pairs.find(({ a, b }) => [a, b].includes(nameOf(name, 'shared')) && [a, b].includes(nameOf(name, 'tuned')));
      const sign = pair?.a === nameOf(name, 'tuned') ? 1 : -1;
      const gain = pair ? `${points(sign * pair.value)} (${intervalText(sign > 0 ? pair : { low: -pair.high, high: -pair.low })})` : dash;
      return [percent(of('shared')), percent(of('tuned')), gain];
    }),
  ]);
  const heads = scores.flatMap(({ score }) => [`${score}, shared`, 'tuned', 'tuned less shared (95 % interval)']);
  return htmlTable(['cell', 'values of its own', 'schedules spent', 'when chosen', ...heads], rows);
}

/**
 * What the runs of a cell cost: CPU seconds with all that they begin with, a mean; bytes of a model, if one
 * is there.
 */
export function costOfCell({ runs }: Pick<StudyCost, 'runs'>, cell: string): { cpu: number; bytes: number | undefined } {
  const own = runs.filter((run) => run.cell === cell);
  return {
    cpu: meanOf(own.map(({ wholeCpuSeconds }) => wholeCpuSeconds)),
    bytes: own.find(({ modelBytes }) => modelBytes !== undefined)?.modelBytes,
  };
}

export function costTable({ runs, pieces }: StudyCost): string {
  const cells = [...new Set(runs.map(({ cell }) => cell))];
  const sum = (list: readonly { seconds: number; cpuSeconds: number }[], of: 'seconds' | 'cpuSeconds') =>
    list.reduce((total, each) => total + each[of], 0);
  const rows = cells.map((cell) => {
    const own = runs.filter((run) => run.cell === cell);
    const { cpu, bytes } = costOfCell({ runs }, cell);
    return [
      escapeHtml(cell),
      String(own.length),
      formatDuration(sum(own, 'seconds') / own.length),
      (sum(own, 'cpuSeconds') / own.length).toFixed(1),
      cpu.toFixed(1),
      `${Math.round(Math.max(...own.map(({ peakRssMb }) => peakRssMb)))} MB`,
      bytes === undefined ? dash : `${(bytes / 1e6).toFixed(1)} MB`,
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
            '',
            '',
          ],
        ]
      : [];
  return htmlTable(
    ['cell', 'runs', 'time a run', 'CPU seconds a run', 'with what it shares', 'peak memory', 'size of the model'],
    [...rows, ...shared],
  );
}
