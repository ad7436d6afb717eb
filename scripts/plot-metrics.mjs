// Draws the loss of runs against their steps as one SVG image, from the runs' metrics.jsonl: one panel per
// stage, one line per run.
//
//     node scripts/plot-metrics.mjs runs/tiny-clip --out docs/images/tiny-clip-loss.svg
//     node scripts/plot-metrics.mjs runs/two-stages runs/stage-2-only --stage finetune \
//         --out docs/images/skip-stage-1.svg
//
// Needs `npm ci`. The image has a white background, so that it looks the same on light and dark pages.
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { basename, dirname, join, resolve } from 'node:path';
import { parseArgs } from 'node:util';
import { LineChart } from 'echarts/charts';
import { GridComponent, LegendComponent, TitleComponent } from 'echarts/components';
import { init, use } from 'echarts/core';
import { SVGRenderer } from 'echarts/renderers';
import { build } from './setup.mjs';

build();
const { smooth } = await import('../dist/runs/report.js');

use([LineChart, GridComponent, LegendComponent, TitleComponent, SVGRenderer]);

const usage = 'usage: node scripts/plot-metrics.mjs <run folder>... --out <file.svg> [--stage <name>]... [--label <name of a run>]...';
const colors = ['#2563eb', '#d97706', '#059669', '#9333ea'];
const panel = { width: 560, height: 320, left: 56, right: 24, top: 44, bottom: 76 };

function fail(message) {
  console.error(`error: ${message}`);
  process.exit(1);
}

/**
 * What a run logged while training, in order. An incomplete last line, as a killed run leaves it, is skipped.
 */
function readSteps(folder) {
  const path = join(folder, 'metrics.jsonl');
  let text;
  try {
    text = readFileSync(path, 'utf8');
  } catch {
    fail(`cannot read ${path}; give the folder of a run`);
  }
  const whole = text.slice(0, text.lastIndexOf('\n') + 1).split('\n');
  return whole.flatMap((line) => (line === '' ? [] : [JSON.parse(line)])).filter(({ type }) => type === 'step');
}

/** Lines of one run: pale as measured, in full color as smoothed. */
function linesOf(name, events, index, color) {
  const line = { type: 'line', xAxisIndex: index, yAxisIndex: index, showSymbol: false, silent: true };
  const smoothed = smooth(
    events.map(({ loss }) => loss),
    1 - 1 / Math.max(1, events.length / 40),
  );
  return [
    { ...line, data: events.map(({ step, loss }) => [step, loss]), lineStyle: { color: color, width: 1, opacity: 0.3 } },
    {
      ...line,
      name,
      data: events.map(({ step }, i) => [step, smoothed[i]]),
      lineStyle: { color: color, width: 2 },
      itemStyle: { color: color },
    },
  ];
}

function draw(runs, stages) {
  const width = panel.width * stages.length;
  const chart = init(null, null, { renderer: 'svg', ssr: true, width, height: panel.height });
  const axis = { type: 'value', axisLine: { lineStyle: { color: '#475569' } }, axisLabel: { color: '#475569' } };
  chart.setOption({
    animation: false,
    backgroundColor: '#ffffff',
    title: stages.map((stage, i) => ({
      text: `${stage}: loss`,
      left: i * panel.width + panel.left,
      top: 8,
      textStyle: { fontSize: 14, color: '#0f172a' },
    })),
    legend:
      runs.length > 1
        ? { bottom: 4, data: runs.map(({ name }) => name), selectedMode: false, icon: 'roundRect', itemHeight: 4, itemGap: 24 }
        : undefined,
    grid: stages.map((_, i) => ({
      left: i * panel.width + panel.left,
      width: panel.width - panel.left - panel.right,
      top: panel.top,
      height: panel.height - panel.top - panel.bottom,
    })),
    xAxis: stages.map((_, i) => ({ ...axis, gridIndex: i, name: 'step', nameLocation: 'middle', nameGap: 24, splitLine: { show: false } })),
    yAxis: stages.map((_, i) => ({ ...axis, gridIndex: i, scale: true, splitLine: { lineStyle: { color: '#e2e8f0' } } })),
    series: stages.flatMap((stage, i) =>
      runs.flatMap(({ name, steps }, r) => {
        const events = steps.filter((event) => event.stage === stage);
        return events.length === 0 ? [] : linesOf(name, events, i, colors[r % colors.length]);
      }),
    ),
  });
  const svg = chart.renderToSVGString();
  chart.dispose();
  return svg;
}

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: { out: { type: 'string' }, stage: { type: 'string', multiple: true }, label: { type: 'string', multiple: true } },
});
if (positionals.length === 0 || values.out === undefined) fail(usage);
const runs = positionals.map((folder, i) => ({ name: values.label?.[i] ?? basename(resolve(folder)), steps: readSteps(folder) }));
const known = [...new Set(runs.flatMap(({ steps }) => steps.map(({ stage }) => stage)))];
if (known.length === 0) fail(`${positionals.join(', ')}: no steps were logged`);
const stages = values.stage ?? known;
const unknown = stages.find((stage) => !known.includes(stage));
if (unknown !== undefined) fail(`--stage ${unknown}: the stages are ${known.join(', ')}`);
const empty = runs.find(({ steps }) => !steps.some(({ stage }) => stages.includes(stage)));
if (empty) fail(`${empty.name}: no steps of ${stages.join(', ')} were logged`);
mkdirSync(dirname(values.out), { recursive: true });
writeFileSync(values.out, draw(runs, stages));
