// Charts of reports as SVG, drawn by ECharts on the server side: no script in the page.

import { LineChart, ScatterChart } from 'echarts/charts';
import { GridComponent, LegendComponent, MarkLineComponent } from 'echarts/components';
import { init, use } from 'echarts/core';
import { SVGRenderer } from 'echarts/renderers';

use([LineChart, ScatterChart, GridComponent, LegendComponent, MarkLineComponent, SVGRenderer]);

/** For axes and all that is not data: readable on white and on black, as are the colors of the lines. */
export const gray = '#868e96';
const palette = ['#3b82f6', '#e8590c', '#12a150', '#9333ea', '#d6336c', '#0c8599', '#a87900', gray];

export const colorOf = (index: number): string => palette[index % palette.length];
/** Tells lines of one color apart. */
export const dashOf = (index: number): 'solid' | 'dashed' => (index < palette.length ? 'solid' : 'dashed');

type ChartOption = Parameters<ReturnType<typeof init>['setOption']>[0];

/** A chart of so many pixels, as SVG. */
export function drawChart(option: ChartOption, width: number, height: number): string {
  const chart = init(null, null, { renderer: 'svg', ssr: true, width, height });
  chart.setOption({ animation: false, ...(option as object) });
  const svg = chart.renderToSVGString();
  chart.dispose();
  return svg;
}

/** Of any axis. */
export const axisStyle = { axisLine: { lineStyle: { color: gray } }, axisLabel: { color: gray }, nameTextStyle: { color: gray } };
/** Of an axis whose lines cross the chart. */
export const gridLines = { splitLine: { lineStyle: { color: gray, opacity: 0.25 } } };
/** Of an axis from left to right: its name below, in the middle, and no lines. */
export const fromLeft = (name: string) => ({
  name,
  nameLocation: 'middle' as const,
  nameGap: 27,
  ...axisStyle,
  splitLine: { show: false },
});

/** The scale of an axis of numbers, which need not begin at 0; logarithmic on request. */
export const numbers = (isLogarithmic = false) =>
  isLogarithmic
    ? // powers of ten are not whole to the last bit
      { type: 'log' as const, scale: true, axisLabel: { color: gray, formatter: (value: number) => String(Number(value.toPrecision(6))) } }
    : { type: 'value' as const, scale: true };
