import { expect, test } from 'vitest';
import { axisStyle, drawChart, fromLeft, gridLines, numbers } from './chart.ts';

test('a logarithmic axis is labelled with powers of ten, not with what they are in floating point', () => {
  const svg = drawChart(
    {
      xAxis: { ...fromLeft('rate'), ...numbers(true) },
      yAxis: { name: 'loss', ...axisStyle, ...numbers(), ...gridLines },
      series: [
        {
          type: 'line',
          data: [
            [1e-4, 2],
            [0.05, 1],
          ],
        },
      ],
    },
    400,
    200,
  );
  const labels = [...svg.matchAll(/>([\d.e-]+)<\/text>/g)].map(([, label]) => label);
  expect(labels).toEqual(expect.arrayContaining(['0.0001', '0.001', '0.01', '0.1']));
  expect(labels.filter((label) => label.length > 6)).toEqual([]);
});
