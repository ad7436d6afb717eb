// study.html: the whole study on one page that opens offline. What it is and took, the verdict, the grid of
// scores, effects and interactions, pairs, losses and transfer, health, cost beside score, questions on which
// arms disagree, and what was not measured. Every plot has its table.

import { writeFileSync } from 'node:fs';
import { availableParallelism, cpus } from 'node:os';
import { stringify } from 'yaml';
import { onDisk } from '../disk.ts';
import { runFolder } from '../runs/folder.ts';
import { readMetrics } from '../runs/metrics.ts';
import { escapeHtml, htmlPage, htmlTable } from '../runs/page.ts';
import { formatDuration } from '../runs/status.ts';
import { curves, curvesNote, equalCost, quantityOf, trialTable } from '../search/search-report.ts';
import { seedsNeeded } from '../statistics/power.ts';
import { halfNormal } from '../statistics/unreplicated.ts';
import type { CellAlignment } from './alignment.ts';
import type { ScoreAnalysis } from './analysis.ts';
import type { StudySearch } from './cell-search.ts';
import { type CurveGroup, curvesPlot, forestPlot, interactionPlot, linesPlot, scatterPlot } from './charts.ts';
import type { ConvergenceAnalysis } from './convergence.ts';
import { disagreementsHtml } from './disagreements.ts';
import { readSettings, studyFolder } from './folder.ts';
import {
  alignmentTables,
  costOfCell,
  costTable,
  effectTable,
  familyTable,
  gridTable,
  healthTable,
  mapsTable,
  pairMatrix,
  percent,
  simpleTable,
  tunedTable,
} from './report-tables.ts';
import type { Analyzed, StudyCost } from './results.ts';
import type { Study } from './variants.ts';
import { points } from './verdict.ts';

const style = `<style>
.light { border-radius: 4px; color: #fff; font-size: 12px; padding: 1px 8px; } .light.green { background: #14803c; } .light.amber { background: #8a6300; } .light.red { background: #c4320a; } .light.info, .light.unknown { background: #6b7280; }
.told { display: block; max-width: 640px; text-align: left; white-space: normal; } ol.findings li { margin: 6px 0; } figure.forest { max-width: 760px; } h3 { margin-top: 28px; }
.arms { grid-template-columns: repeat(auto-fill, minmax(min(100%, 500px), 1fr)); } .arms dd { overflow-wrap: break-word; }
.scroll + .curves, .curves + .scroll { margin-top: 20px; }
</style>`;

const figure = (svg: string, caption: string, isWide = false) =>
  `<figure${isWide ? ' class="forest"' : ''}>${svg}<figcaption>${escapeHtml(caption)}</figcaption></figure>`;
const figures = (list: readonly string[]) => `<div class="curves">${list.join('\n')}</div>`;

/** Writes the page. */
export async function writeStudyReport(study: Study, folder: string, analyzed: Analyzed): Promise<void> {
  const page = await renderStudy(study, folder, analyzed);
  const { report } = studyFolder(folder);
  onDisk(report, () => writeFileSync(report, page));
}

async function renderStudy(study: Study, folder: string, { results, cost, outcome, tables }: Analyzed): Promise<string> {
  const { scores, verdict, family, convergence, alignment, maps, search, notMeasured } = results;
  const sections: [string, string][] = [
    ['Verdict', `<ol class="findings">${verdict.map((sentence) => `<li>${escapeHtml(sentence)}</li>`).join('')}</ol>`],
    ['Comparisons that were named beforehand', familyTable(family)],
    ['Scores', scores.length > 0 ? gridTable(scores) : '<p class="note">No run was scored.</p>'],
    ['Effects and interactions', scores.map((score) => effectsHtml(study, score)).join('\n')],
    ['Cells in pairs', scores.map((score) => `<h3>${escapeHtml(score.score)}</h3>${pairMatrix(score)}`).join('\n')],
    [
      'Losses',
      lossesHtml(
        study,
        folder,
        outcome.finished.map(({ run }) => run),
      ),
    ],
    ...(convergence ? ([['Convergence and transfer', convergenceHtml(convergence)]] as [string, string][]) : []),
    ['Health of the runs', healthTable(results)],
    ...(alignment.length > 0 ? ([['Alignment', alignmentHtml(alignment)]] as [string, string][]) : []),
    ...(maps ? ([['Where the models look', mapsTable(maps)]] as [string, string][]) : []),
    ...(search ? ([['Search', searchHtml(search, scores)]] as [string, string][]) : []),
    ['Cost beside score', costHtml(scores, cost)],
    ['Where arms disagree', await disagreementsHtml(study, tables)],
    ['What was not measured', `<ul>${notMeasured.map((what) => `<li>${escapeHtml(what)}</li>`).join('')}</ul>`],
    ['The study', studyHtml(study)],
  ];
  const body = sections.map(([title, html]) => `<h2>${title}</h2>\n${html}`).join('\n');
  return htmlPage(results.name, `${style}${provenance(study, folder, cost)}\n${body}`);
}

function provenance(study: Study, folder: string, cost: StudyCost): string {
  const { threads } = readSettings(folder);
  const all = [...cost.runs, ...cost.pieces];
  const cpu = all.reduce((sum, { cpuSeconds }) => sum + cpuSeconds, 0);
  const tile = (value: string, what: string, more: string) =>
    `<div class="tile"><b>${value}</b><span>${what}</span><small>${more}</small></div>`;
  const { variants, seeds, runs } = study;
  return `<div class="tiles">${[
    tile(String(variants.length), 'cells', study.factors.map(({ name, levels }) => `${escapeHtml(name)} (${levels.length})`).join(', ')),
    tile(String(runs.length), 'runs', `${seeds.length} seed${seeds.length === 1 ? '' : 's'}: ${seeds.join(', ')}`),
    tile(formatDuration(cpu), 'CPU time', `${cost.pieces.length} pieces computed once for several runs`),
    tile(
      `${threads}`,
      `thread${threads === 1 ? '' : 's'} a run`,
      `${escapeHtml(cpus()[0]?.model.trim() ?? 'unknown processor')}, ${availableParallelism()} cores, Node ${process.version}`,
    ),
  ].join('')}</div>`;
}

// === Effects ===

function effectsHtml(study: Study, score: ScoreAnalysis): string {
  const { main, interactions, runNoise, runSd, notTold, lenth } = score;
  const all = [...main, ...interactions];
  if (all.length === 0) return `<h3>${escapeHtml(score.score)}</h3><p class="note">There is nothing to compare.</p>`;
  const noise = runNoise
    ? `Errors of questions (by picture) and of runs. Between seeds of a cell the standard deviation is ${percent(runSd)} points; an effect of ${percent(score.smallestVisible)} points had an 80 % chance of being seen, were it the only one that is tested. ${moreSeeds(study, score)}`
    : 'Run noise was not measured: there is one run a cell, and the intervals are of the questions and these very runs.';
  const half = lenth
    ? `<p class="note">Lenth: an effect beyond ${percent(lenth.margin)} points stands out from the others (${percent(lenth.simultaneousMargin)} for all at once): ${lenth.active.map(escapeHtml).join(', ') || 'none does'}.</p>${halfNormalFigure(all)}`
    : '';
  const untold =
    notTold.length > 0
      ? `<p class="note">Not told by these cells: ${notTold.map(({ term, from }) => `${escapeHtml(term)} (from ${escapeHtml(from)})`).join(', ')}.</p>`
      : '';
  return `<h3>${escapeHtml(score.score)}</h3>
    ${figure(forestPlot(all), 'Effects (second level less first) and interactions (half of how much an effect changes with the other factor), with 95 % intervals', true)}
    <p class="note">${noise}</p>${half}${untold}
    <details open><summary>the numbers</summary>${effectTable(all)}</details>
    ${figures(interactionPlots(study, score))}
    <details open><summary>each effect at each level of the others</summary>${simpleTable(score)}</details>`;
}

/** Seeds that a cell would need to see half of what it can see, as far as the noise of runs goes. */
function moreSeeds({ variants, seeds }: Study, { runSd, smallestVisible }: ScoreAnalysis): string {
  if (smallestVisible === null || runSd === null) return '';
  const needed = seedsNeeded(smallestVisible / 2, runSd, variants.length);
  if (!(needed > seeds.length) || !Number.isFinite(needed)) return '';
  return `For ${percent(smallestVisible / 2)} points, each cell would need ${needed} seeds or more.`;
}

/** Effects without an estimate of noise beside where they would lie if all of them were noise. */
function halfNormalFigure(effects: readonly { label: string; value: number }[]): string {
  const points = halfNormal(effects.map(({ value }) => value)).toReversed();
  const groups = points.map(({ index, size, quantile }) => ({
    name: effects[index].label,
    points: [[quantile, 100 * size] as [number, number]],
  }));
  return figure(
    scatterPlot(groups, { x: 'half-normal quantile', y: 'points' }),
    'Sizes of effects: what is noise lies on a line through 0',
  );
}

/** For each pair of factors, means of the cells at their levels. */
function interactionPlots(study: Study, { cells }: ScoreAnalysis): string[] {
  const scoreOf = new Map(cells.map(({ cell, value }) => [cell, value]));
  return study.factors.flatMap((a, i) =>
    study.factors.slice(i + 1).map((b, offset) => {
      const j = i + 1 + offset;
      const lines = a.levels.map(({ label }, level) => ({
        name: `${a.name}: ${label}`,
        values: b.levels.map((_, other) => {
          const values = study.variants.flatMap(({ levels, label: cell }) =>
            levels[i] === level && levels[j] === other && scoreOf.has(cell) ? [scoreOf.get(cell)!] : [],
          );
          return values.length > 0 ? values.reduce((sum, value) => sum + value, 0) / values.length : undefined;
        }),
      }));
      return figure(
        interactionPlot(
          b.name,
          b.levels.map(({ label }) => label),
          lines,
        ),
        `${a.name} by ${b.name}: mean of the cells`,
      );
    }),
  );
}

// === Losses ===

function lossesHtml(study: Study, folder: string, runs: readonly Study['runs'][number][]): string {
  const events = runs.map((run) => ({ run, metrics: readMetrics(runFolder(studyFolder(folder).run(run.id)).metrics) }));
  const stages = [...new Set(runs.flatMap(({ recipe }) => recipe.stages.map(({ name }) => name)))];
  const plots = stages.flatMap((stage) =>
    (['held-out', 'step'] as const).flatMap((type) => {
      const groups = study.variants.flatMap((variant): CurveGroup[] => {
        const curves = events.flatMap(({ run, metrics }) => {
          if (run.variant !== variant) return [];
          const points = metrics.flatMap((event): [number, number][] =>
            event.type === type && event.stage === stage ? [[event.step, event.loss]] : [],
          );
          return points.length > 0 ? [points] : [];
        });
        return curves.length > 0 ? [{ name: variant.label, runs: curves }] : [];
      });
      const what = type === 'step' ? 'loss while training' : 'held-out loss';
      return groups.length > 0
        ? [figure(curvesPlot(groups, 'step', 'loss'), `${stage}: ${what}, by cell (mean of the seeds, each seed pale)`)]
        : [];
    }),
  );
  return plots.length > 0 ? figures(plots) : '<p class="note">No losses were logged.</p>';
}

// === Convergence ===

const bandText = ({ low, high }: { low?: number; high?: number } = {}) =>
  low === undefined || high === undefined ? '' : ` (${low.toFixed(3)} to ${high.toFixed(3)})`;

function convergenceHtml({ stage, arms, transfer }: ConvergenceAnalysis): string {
  const laws = arms.map(({ arm, points: measured, fit }) => {
    const curve = fit && !fit.notIdentified ? fit.curve.map(({ n, loss, low = loss, high = loss }) => ({ x: n, y: loss, low, high })) : [];
    const groups = [{ name: stage, points: measured.map(({ n, loss }): [number, number] => [n, loss]) }];
    const says = !fit
      ? 'too few sizes for a fit'
      : fit.notIdentified
        ? `not identified: ${fit.notIdentified}`
        : `a ${fit.a.toFixed(3)}, b ${fit.b.toFixed(2)}, c ${fit.c.toFixed(3)}, band: bootstrap over runs`;
    return figure(
      scatterPlot(groups, { x: 'steps', y: 'held-out loss', logX: true, curve }),
      `${arm || stage}: held-out loss by steps; L(N) = a + b N^-c: ${says}`,
    );
  });
  const scatter = transfer.map(({ score, points: all, rho, low, high }) => {
    const shares = [...new Set(all.map(({ share }) => share))];
    const groups = shares.map((share) => ({
      name: share,
      points: all.filter((point) => point.share === share).map((point): [number, number] => [point.loss, 100 * point.score]),
    }));
    return figure(
      scatterPlot(groups, { x: `held-out loss of ${stage}`, y: '%' }),
      `${score} after all stages; Spearman ${rho.toFixed(2)} (${low.toFixed(2)} to ${high.toFixed(2)})`,
    );
  });
  const fits = arms.flatMap(({ arm, fit }) =>
    fit
      ? [
          [
            escapeHtml(arm || stage),
            ...(['a', 'b', 'c'] as const).map((key) => `${fit[key].toFixed(3)}${bandText(fit.intervals?.[key])}`),
            fit.heldOut
              ? `${fit.heldOut.predicted.toFixed(3)}${bandText(fit.heldOut)}, measured ${fit.heldOut.measured.toFixed(3)}`
              : '&ndash;',
            escapeHtml(fit.notIdentified ?? 'yes'),
          ],
        ]
      : [],
  );
  const missing = arms.flatMap(({ arm, missing: byScore }) =>
    Object.entries(byScore).flatMap(([score, rows]) =>
      rows.map(({ share, steps, effect }) => [
        escapeHtml(arm || stage),
        escapeHtml(score),
        share,
        String(steps),
        points(effect.value),
        Number.isFinite(effect.low) ? `${points(effect.low)} to ${points(effect.high)}` : '&ndash;',
      ]),
    ),
  );
  return `${figures([...laws, ...scatter])}
    ${htmlTable(['arm', 'a', 'b', 'c', 'largest size, foretold by the others', 'identified'], fits)}
    <h3>What a share lacks to the whole</h3>${htmlTable(['arm', 'score', 'share', 'steps', 'points', '95 % interval'], missing)}`;
}

// === Alignment, search ===

function alignmentHtml(alignment: readonly CellAlignment[]): string {
  const plot = (of: (layer: CellAlignment['layers'][number]) => number, y: string, caption: string) =>
    figure(
      linesPlot(
        alignment.map(({ cell, layers }) => ({ name: cell, points: layers.map((layer): [number, number] => [layer.layer, of(layer)]) })),
        'layer',
        y,
        true,
      ),
      caption,
    );
  return `${figures([
    plot(({ normRatio }) => normRatio, 'ratio', 'Norm of image rows over that of text rows, after each layer'),
    plot(
      ({ distance }) => distance,
      'distance',
      'Squared Frechet distance of image and text rows, text norm 1: MIR is the logarithm of their sum',
    ),
    plot(({ equalNormDistance }) => equalNormDistance, 'distance', 'The same with both sets at norm 1: what is not a ratio of norms'),
  ])}
    ${alignmentTables(alignment)}<p class="note">Of the models as they end, on the same scenes for all; means over seeds. MIR: lower is closer. A score: minus the loss of captions
    in nats a token. How each is measured: docs/alignment.md.</p>`;
}

function searchHtml(search: StudySearch, scores: readonly ScoreAnalysis[]): string {
  const { cells, objective, lowest } = search;
  const quantity = quantityOf(objective);
  const trials = cells.map(
    (cell) => `<details><summary>all trials of ${escapeHtml(cell.name || 'the recipe')}</summary>${trialTable(cell)}</details>`,
  );
  return `<p>Each cell was searched with the same budget before its runs: ${escapeHtml(quantity)}, ${lowest ? 'low' : 'high'} is good. Each was then run with the values of the recipe
    (shared) and with its own best ones (tuned), on seeds that no trial had.</p>
    ${tunedTable(search, scores)}${curves(cells, quantity)}${curvesNote}${equalCost(cells, quantity, 'h3')}${trials.join('\n')}`;
}

// === Cost, and the study itself ===

function costHtml(scores: readonly ScoreAnalysis[], cost: StudyCost): string {
  const beside = ({ score, cells }: ScoreAnalysis, of: (cell: string) => number, x: string) =>
    figure(
      scatterPlot(
        cells.map(({ cell, value }) => ({ name: cell, points: [[of(cell), 100 * value]] as [number, number][] })),
        { x, y: '%' },
      ),
      score,
    );
  const plots = scores.flatMap((score) => [
    beside(score, (cell) => costOfCell(cost, cell).cpu, 'CPU seconds of a run, with all that it begins with'),
    ...(score.cells.every(({ cell }) => costOfCell(cost, cell).bytes !== undefined)
      ? [beside(score, (cell) => costOfCell(cost, cell).bytes! / 1e6, 'MB of the model, as it is stored')]
      : []),
  ]);
  return `${figures(plots)}${costTable(cost)}`;
}

function studyHtml(study: Study): string {
  const recipes = study.variants.map(
    ({ label, recipe }) =>
      `<details><summary>recipe of ${escapeHtml(label)}</summary><pre tabindex="0">${escapeHtml(stringify(recipe))}</pre></details>`,
  );
  return `<details><summary>the study with every field</summary><pre tabindex="0">${escapeHtml(stringify(study.file))}</pre></details>${recipes.join('\n')}`;
}
