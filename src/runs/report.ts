// report.html: a run on one page that opens offline, with curves, scores next to what they must beat, sample
// images with answers, and timing. Charts are drawn to SVG here (ECharts' server-side rendering); images are
// inlined. The page loads nothing and runs no script.
import { readFileSync, writeFileSync } from 'node:fs';
import { extname } from 'node:path';
import { groupBy } from '../arrays.ts';
import { onDisk } from '../disk.ts';
import { beatsBaselines, type Sample, type Scores, type TaskScore } from '../evaluate/samples.ts';
import { axisStyle, colorOf, drawChart, fromLeft, gridLines, numbers } from './chart.ts';
import type { RunSummary } from './folder.ts';
import type { HeldOutEvent, MetricEvent, StepEvent } from './metrics.ts';
import { escapeHtml, htmlPage, htmlTable, textTable } from './page.ts';
import { formatDuration } from './status.ts';

/** A sample to be shown, with the path of its image. */
export interface GallerySample extends Sample {
  imagePath: string;
}

export interface ReportInput {
  title: string;
  /** The resolved recipe as YAML. */
  recipe: string;
  metrics: readonly MetricEvent[];
  summary: RunSummary;
  gallery: readonly GallerySample[];
}

const lineColor = colorOf(0);
const rawColor = '#93b4e8';
const heldOutColor = colorOf(1);

const inDigits = (value: number, digits: number) => (Number.isFinite(value) ? value.toFixed(digits) : 'not finite');

/** Exponential moving average, with the bias of its start corrected as in Adam (Kingma & Ba 2015). */
export function smooth(values: readonly number[], decay: number): number[] {
  let sum = 0;
  let weight = 0;
  return values.map((value) => {
    sum = decay * sum + (1 - decay) * value;
    weight = decay * weight + (1 - decay);
    return sum / weight;
  });
}

const hasLoss = ({ loss }: StepEvent | HeldOutEvent) => Number.isFinite(loss);

/**
 * The loss of one stage against its steps as an SVG image: as measured (pale) and smoothed, and the held-out
 * loss where there is one. What is not finite is left out.
 */
function lossCurve(steps: readonly StepEvent[], measured: readonly HeldOutEvent[]): string {
  const [events, heldOut] = [steps.filter(hasLoss), measured.filter(hasLoss)];
  const smoothed = smooth(
    events.map(({ loss }) => loss),
    events.length > 20 ? 0.8 : 0,
  );
  const line = { type: 'line', showSymbol: events.length === 1, silent: true } as const;
  return drawChart(
    {
      grid: { left: 48, right: 16, top: 28, bottom: 40 },
      xAxis: { type: 'value', min: 0, max: events.at(-1)?.step, ...fromLeft('step') },
      yAxis: { name: 'loss', ...axisStyle, ...numbers(), ...gridLines },
      series: [
        { ...line, data: events.map(({ step, loss }) => [step, loss]), lineStyle: { color: rawColor, width: 1, opacity: 0.6 } },
        {
          ...line,
          data: events.map(({ step }, index) => [step, smoothed[index]]),
          lineStyle: { color: lineColor, width: 2 },
          itemStyle: { color: lineColor },
        },
        {
          ...line,
          data: heldOut.map(({ step, loss }) => [step, loss]),
          showSymbol: true,
          lineStyle: { color: heldOutColor, width: 2 },
          itemStyle: { color: heldOutColor },
        },
      ],
    },
    520,
    260,
  );
}

function heldOutText(events: readonly HeldOutEvent[]): string {
  if (events.length === 0) return '';
  const { loss, samples, imageGain } = events.at(-1)!;
  const gain = imageGain === undefined ? '' : `, and ${inDigits(imageGain, 3)} more with the pictures of others`;
  return `; <span class="held-out">on ${samples} samples held out</span> ${inDigits(events[0].loss, 3)} &rarr; ${inDigits(loss, 3)}${gain}`;
}

/** What looked wrong while the run was on. */
function warnings(metrics: readonly MetricEvent[]): string {
  const found = metrics.filter((event) => event.type === 'warning');
  if (found.length === 0) return '';
  const items = found.map(({ stage, step, message }) => `<li><b>${escapeHtml(stage)}, step ${step}</b>: ${escapeHtml(message)}</li>`);
  return `<ul class="warnings">${items.join('\n')}</ul>`;
}

/** What each stage trained, and at which rates. */
function trainedTable(metrics: readonly MetricEvent[]): string {
  const stages = metrics.filter((event) => event.type === 'trains');
  if (stages.length === 0) return '';
  const rows = stages.flatMap(({ stage, groups }) =>
    groups.map(({ name, tensors, numbers, learningRate, weightDecay }) => [
      stage,
      name,
      ...[tensors, numbers.toLocaleString('en'), learningRate, weightDecay].map(String),
    ]),
  );
  return textTable(['stage', 'trained', 'tensors', 'numbers', 'peak learning rate', 'weight decay of matrices'], rows);
}

function curves(metrics: readonly MetricEvent[]): string {
  const steps = metrics.filter((event) => event.type === 'step');
  if (steps.length === 0) return '<p class="note">No steps were logged.</p>';
  const figures = groupBy(steps, ({ stage }) => stage).map((events) => {
    const { stage } = events[0];
    const last = events.at(-1)!;
    const caption = `${escapeHtml(stage)}: loss ${inDigits(events[0].loss, 3)} &rarr; ${inDigits(last.loss, 3)} in ${last.step} steps`;
    const heldOut = metrics.filter((event) => event.type === 'held-out' && event.stage === stage) as HeldOutEvent[];
    return `<figure>${lossCurve(events, heldOut)}<figcaption>${caption}${heldOutText(heldOut)}</figcaption></figure>`;
  });
  return `<div class="curves">${figures.join('\n')}</div>`;
}

const share = (value: number | undefined) => (value === undefined ? '&ndash;' : value.toFixed(3));

/** A bar from 0 to 1: the accuracy, its interval, and marks where the baselines are. */
function scoreBar(score: TaskScore): string {
  const percent = (value: number) => `${(100 * value).toFixed(2)}%`;
  const mark = (value: number | undefined, name: string) =>
    value === undefined ? '' : `<i class="mark ${name}" style="left:${percent(value)}" title="${name} ${value.toFixed(3)}"></i>`;
  return `<div class="bar"><i class="fill" style="width:${percent(score.accuracy)}"></i>
    <i class="interval" style="left:${percent(score.ciLow)};width:${percent(score.ciHigh - score.ciLow)}"></i>
    ${mark(score.blind, 'blind')}${mark(score.majority, 'majority')}${mark(score.random, 'random')}</div>`;
}

function scoreTable(tasks: Record<string, TaskScore>): string {
  const rows = Object.entries(tasks).map(([task, score]) => {
    const { accuracy, ciLow, ciHigh, blind, majority, majorityFrom, random, precision, recall, f1, yesRate, n } = score;
    return [
      escapeHtml(task),
      `<div class="wide">${scoreBar(score)}</div>`,
      `<span class="${beatsBaselines(score) ? 'good' : 'unsure'}">${share(accuracy)}</span>`,
      `${share(ciLow)} &ndash; ${share(ciHigh)}`,
      share(blind),
      `${share(majority)}${majorityFrom === 'evaluation' ? '*' : ''}`,
      ...[random, precision, recall, f1, yesRate].map(share),
      String(n),
    ];
  });
  const heads = ['task', '', 'accuracy', '95 % interval', 'blind', 'majority', 'random', 'precision', 'recall', 'F1', 'yes-rate', 'n'];
  return htmlTable(heads, rows);
}

function scoreTables(scores: Scores): string {
  if (Object.keys(scores).length === 0) return '<p class="note">This run was not scored.</p>';
  const tables = Object.entries(scores).map(([split, tasks]) => `<h3>${escapeHtml(split)}</h3>${scoreTable(tasks)}`);
  return `${tables.join('\n')}
    <p class="note">Bars: <span class="key fill"></span> accuracy with its 95 % interval (Wilson), <span class="key blind"></span> blind (the same model before a
    blank picture), <span class="key majority"></span> majority (always the most frequent training answer; * of the evaluation itself),
    <span class="key random"></span> guessing. An accuracy is green when its interval lies wholly above majority and above blind's interval.
    Precision, recall, F1 and yes-rate as in POPE.</p>`;
}

const mediaTypes: Record<string, string> = {
  '.png': 'image/png',
  '.jpg': 'image/jpeg',
  '.jpeg': 'image/jpeg',
  '.webp': 'image/webp',
  '.svg': 'image/svg+xml',
};

function dataUri(path: string): string {
  return `data:${mediaTypes[extname(path).toLowerCase()] ?? 'application/octet-stream'};base64,${readFileSync(path).toString('base64')}`;
}

/** Images with their questions; questions about one image share a card. */
function gallery(samples: readonly GallerySample[]): string {
  if (samples.length === 0) return '<p class="note">No samples were kept.</p>';
  const cards = groupBy(samples, ({ split, imagePath }) => `${split} ${imagePath}`).map((questions) => {
    const items = questions.map((sample) => {
      const prompt = escapeHtml(sample.prompt.replaceAll('<image>', '').trim()).replaceAll('\n', '<br>');
      const blind =
        sample.blindAnswer === undefined ? '' : `<dt>blind</dt><dd class="dim">${escapeHtml(sample.blindAnswer) || '(nothing)'}</dd>`;
      return `<div class="answer ${sample.correct ? 'right' : 'wrong'}"><p>${prompt}</p><dl><dt>expected</dt><dd>${escapeHtml(sample.expected)}</dd>
        <dt>answer</dt><dd><b>${escapeHtml(sample.answer) || '(nothing)'}</b> <span class="verdict">${sample.correct ? '&#10003; right' : '&#10007; wrong'}</span></dd>${blind}</dl></div>`;
    });
    const { split, image, imagePath } = questions[0];
    return `<article><img src="${dataUri(imagePath)}" alt="${escapeHtml(image)}"><div><small>${escapeHtml(split)}</small>${items.join('\n')}</div></article>`;
  });
  return `<div class="gallery">${cards.join('\n')}</div>`;
}

function timing({ wallSeconds, peakRssMb, stages }: RunSummary, metrics: readonly MetricEvent[]): string {
  const rows = stages.map(({ name, seconds, steps, firstLoss, lastLoss }) => {
    const speeds = metrics
      .flatMap((event) => (event.type === 'step' && event.stage === name ? [event.tokensPerSecond] : []))
      .sort((a, b) => a - b);
    const median = speeds.length === 0 ? '&ndash;' : Math.round(speeds[Math.floor(speeds.length / 2)]).toLocaleString('en');
    return [escapeHtml(name), formatDuration(seconds), String(steps), median, inDigits(firstLoss, 4), inDigits(lastLoss, 4)];
  });
  const left = stages
    .flatMap(({ name, skipped }) => (skipped ? [` ${skipped} bad samples of ${escapeHtml(name)} were left out (skipped.jsonl).`] : []))
    .join('');
  return `${htmlTable(['stage', 'time', 'steps', 'tokens/s (median)', 'first loss', 'last loss'], rows)}
    <p>Wall time ${formatDuration(wallSeconds)}, peak memory ${Math.round(peakRssMb).toLocaleString('en')} MB.${left}</p>`;
}

/** The main numbers at the top of the page: every task of the first split. */
function headline(summary: RunSummary): string {
  const [split, tasks] = Object.entries(summary.scores)[0] ?? [];
  const tiles = Object.entries(tasks ?? {}).map(
    ([task, score]) =>
      `<div class="tile"><b>${(100 * score.accuracy).toFixed(1)} %</b><span>${escapeHtml(task)}</span><small>blind ${
        score.blind === undefined ? '&ndash;' : `${(100 * score.blind).toFixed(1)} %`
      }<br>majority ${(100 * score.majority).toFixed(1)} %</small></div>`,
  );
  tiles.push(
    `<div class="tile"><b>${formatDuration(summary.wallSeconds)}</b><span>wall time</span><small>peak memory ${Math.round(summary.peakRssMb).toLocaleString('en')} MB</small></div>`,
  );
  return `${split === undefined ? '' : `<p class="note">Accuracy on <b>${escapeHtml(split)}</b></p>`}<div class="tiles">${tiles.join('\n')}</div>`;
}

/** The page as HTML. */
export function renderReport({ title, recipe, metrics, summary, gallery: samples }: ReportInput): string {
  return htmlPage(
    title,
    `${headline(summary)}
${warnings(metrics)}
<h2>Loss</h2>
${curves(metrics)}
<h2>Scores</h2>
${scoreTables(summary.scores)}
<h2>Answers</h2>
${gallery(samples)}
<h2>Time and memory</h2>
${timing(summary, metrics)}
${trainedTable(metrics)}
<h2>Recipe</h2>
<details><summary>recipe.yaml with every field</summary><pre tabindex="0">${escapeHtml(recipe)}</pre></details>`,
  );
}

/** Writes the page. Throws the error of the file system if an image of the gallery cannot be read. */
export function writeReport(path: string, input: ReportInput): void {
  const page = renderReport(input);
  onDisk(path, () => writeFileSync(path, page));
}

/**
 * Samples for the gallery: at most `pictures` images per split, spread evenly over its samples, right and
 * wrong as they come. Each image comes with at most `questions` questions of different tasks, starting with a
 * different task at each image.
 */
export function chooseGallery(
  samples: readonly Sample[],
  imagePath: (sample: Sample) => string,
  pictures = 8,
  questions = 3,
): GallerySample[] {
  return groupBy(samples, ({ split }) => split).flatMap((ofSplit) => {
    const groups = groupBy(ofSplit, ({ image }) => image);
    const shown = Math.min(pictures, groups.length);
    return Array.from({ length: shown }, (_, index) => {
      const group = groups[Math.floor((index * groups.length) / shown)];
      const oneOfTask = groupBy(group, ({ task }) => task).map(([first]) => first);
      const start = index % oneOfTask.length;
      return [...oneOfTask.slice(start), ...oneOfTask.slice(0, start)].slice(0, questions);
    })
      .flat()
      .map((sample) => ({ ...sample, imagePath: imagePath(sample) }));
  });
}
