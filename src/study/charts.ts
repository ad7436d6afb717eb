// The plots of a study as SVG, drawn by ECharts on the server side: no script in the page.

import { axisStyle, colorOf, dashOf, drawChart, fromLeft, gray, gridLines, numbers } from '../runs/chart.ts';

const blue = colorOf(0);
/** Labels of axes are part of what a grid's distances are measured to. */
const INSIDE = { outerBoundsMode: 'same', outerBoundsContain: 'axisLabel' } as const;

type Series = { [key: string]: unknown }[];

const zeroLine = { symbol: 'none', silent: true, label: { show: false }, lineStyle: { color: gray, type: 'dashed' }, data: [{ xAxis: 0 }] };
const legendOf = (names: readonly string[]) => ({
  data: [...names],
  top: 0,
  type: 'plain' as const,
  textStyle: { color: gray, fontSize: 11 },
  itemWidth: 16,
  itemHeight: 8,
});

/** Of charts with curves, in pixels. */
const WIDTH = 560;

/** Rows that a legend takes in a chart of so many pixels, by what letters of its size take. */
function legendRows(names: readonly string[], width: number): number {
  let [rows, filled] = [1, 0];
  for (const name of names) {
    const item = 36 + 6 * name.length;
    if (filled > 0 && filled + item > width) {
      rows++;
      filled = 0;
    }
    filled += item;
  }
  return rows;
}

export interface ForestRow {
  label: string;
  value: number;
  low: number;
  high: number;
}

/** Values with their intervals, one below the other; values in points. Infinite intervals are left out. */
export function forestPlot(rows: readonly ForestRow[], name = 'points'): string {
  const scaled = rows.map(({ label, value, low, high }) => ({ label, value: 100 * value, low: 100 * low, high: 100 * high }));
  const lines = scaled.flatMap(({ low, high }, i) =>
    Number.isFinite(low) && Number.isFinite(high)
      ? [
          {
            type: 'line',
            silent: true,
            showSymbol: false,
            lineStyle: { color: blue, width: 2 },
            data: [
              [low, i],
              [high, i],
            ],
          },
        ]
      : [],
  );
  const dots = {
    type: 'scatter',
    silent: true,
    symbolSize: 8,
    itemStyle: { color: blue },
    data: scaled.map(({ value }, i) => [value, i]),
    markLine: zeroLine,
  };
  return drawChart(
    {
      grid: { left: 8, right: 24, top: 8, bottom: 40, ...INSIDE },
      xAxis: { ...numbers(), ...fromLeft(name), ...gridLines },
      yAxis: {
        type: 'category',
        inverse: true,
        data: scaled.map(({ label }) => label),
        axisTick: { show: false },
        ...axisStyle,
        axisLabel: { color: gray, interval: 0 },
      },
      series: [...lines, dots] as Series,
    },
    720,
    70 + 24 * rows.length,
  );
}

/** Means at the levels of one factor, a line for each level of another; in percent. */
export function interactionPlot(
  by: string,
  levels: readonly string[],
  lines: readonly { name: string; values: (number | undefined)[] }[],
): string {
  return drawChart(
    {
      legend: legendOf(lines.map(({ name }) => name)),
      grid: { left: 8, right: 24, top: 36, bottom: 52, ...INSIDE },
      // all levels are named, the longer names in two lines
      xAxis: {
        type: 'category',
        data: [...levels],
        ...fromLeft(by),
        nameGap: 40,
        axisLabel: { color: gray, interval: 0, width: Math.floor(400 / levels.length), overflow: 'break' },
      },
      yAxis: { name: '%', ...axisStyle, ...numbers(), ...gridLines },
      series: lines.map(({ name, values }, i) => ({
        type: 'line',
        name,
        silent: true,
        symbolSize: 7,
        itemStyle: { color: colorOf(i) },
        lineStyle: { color: colorOf(i), width: 2 },
        data: values.map((value) => (value === undefined ? null : 100 * value)),
      })) as Series,
    },
    480,
    292,
  );
}

export interface CurveGroup {
  name: string;
  /** A line for each run. */
  runs: [number, number][][];
}

/** A line for each group. */
export function linesPlot(groups: readonly ScatterGroup[], x: string, y: string, logY = false): string {
  const rows = legendRows(
    groups.map(({ name }) => name),
    WIDTH,
  );
  return drawChart(
    {
      legend: legendOf(groups.map(({ name }) => name)),
      grid: { left: 8, right: 24, top: 24 + 18 * rows, bottom: 40, ...INSIDE },
      xAxis: { minInterval: 1, ...numbers(), ...fromLeft(x) },
      yAxis: { name: y, ...axisStyle, ...numbers(logY), ...gridLines },
      series: groups.map(({ name, points }, i) => ({
        type: 'line',
        name,
        silent: true,
        symbolSize: 6,
        data: points,
        itemStyle: { color: colorOf(i) },
        lineStyle: { color: colorOf(i), width: 2 },
      })) as Series,
    },
    WIDTH,
    260 + 18 * rows,
  );
}

/** The mean of runs that have the same steps; else the first. */
function meanCurve(runs: readonly [number, number][][]): [number, number][] {
  const [first] = runs;
  if (!first || runs.some(({ length }) => length !== first.length)) return first ?? [];
  return first.map(([x], i) => [x, runs.reduce((sum, run) => sum + run[i][1], 0) / runs.length]);
}

/** Curves of runs (pale) and their means by group. */
export function curvesPlot(groups: readonly CurveGroup[], x: string, y: string): string {
  const pale = groups.flatMap(({ runs }, i) =>
    runs.map((data) => ({
      type: 'line',
      silent: true,
      showSymbol: false,
      data,
      lineStyle: { color: colorOf(i), width: 1, opacity: 0.25 },
    })),
  );
  const means = groups.map(({ name, runs }, i) => {
    const data = meanCurve(runs);
    return {
      type: 'line',
      name,
      silent: true,
      showSymbol: data.length === 1,
      data,
      itemStyle: { color: colorOf(i) },
      lineStyle: { color: colorOf(i), width: 2, type: dashOf(i) },
    };
  });
  const rows = legendRows(
    groups.map(({ name }) => name),
    WIDTH,
  );
  return drawChart(
    {
      legend: legendOf(groups.map(({ name }) => name)),
      grid: { left: 8, right: 24, top: 24 + 18 * rows, bottom: 40, ...INSIDE },
      xAxis: { type: 'value', ...fromLeft(x) },
      yAxis: { name: y, ...axisStyle, ...numbers(), ...gridLines },
      series: [...pale, ...means] as Series,
    },
    WIDTH,
    260 + 18 * rows,
  );
}

export interface ScatterGroup {
  name: string;
  points: [number, number][];
}

/** Points by group, beside a fitted curve with its band where there is one. */
export function scatterPlot(
  groups: readonly ScatterGroup[],
  {
    x,
    y,
    logX = false,
    curve = [],
  }: { x: string; y: string; logX?: boolean; curve?: { x: number; y: number; low: number; high: number }[] },
): string {
  const line = (of: (point: (typeof curve)[number]) => number, style: object) => ({
    type: 'line',
    silent: true,
    showSymbol: false,
    data: curve.map((point) => [point.x, of(point)]),
    lineStyle: { color: gray, ...style },
  });
  const fitted =
    curve.length === 0
      ? []
      : [
          line(({ y: value }) => value, { width: 2 }),
          line(({ low }) => low, { width: 1, type: 'dashed' }),
          line(({ high }) => high, { width: 1, type: 'dashed' }),
        ];
  const rows = legendRows(
    groups.map(({ name }) => name),
    WIDTH,
  );
  return drawChart(
    {
      legend: legendOf(groups.length > 1 ? groups.map(({ name }) => name) : []),
      grid: { left: 8, right: 32, top: groups.length > 1 ? 24 + 18 * rows : 32, bottom: 40, ...INSIDE },
      xAxis: { ...fromLeft(x), ...numbers(logX) },
      yAxis: { name: y, ...axisStyle, ...numbers(), ...gridLines },
      series: [
        ...fitted,
        ...groups.map(({ name, points }, i) => ({
          type: 'scatter',
          name,
          silent: true,
          symbolSize: 8,
          itemStyle: { color: colorOf(i) },
          data: points,
        })),
      ] as Series,
    },
    WIDTH,
    250 + 18 * rows,
  );
}
