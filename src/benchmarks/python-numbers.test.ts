import { expect, it } from 'vitest';
import { pythonFloat, pythonRound } from './python-numbers.ts';

it.each([
  [0.125, 0.12],
  [0.375, 0.38],
  [2.675, 2.67],
  [1.005, 1],
  [-0.125, -0.12],
  [12.345, 12.35],
  [1e22, 1e22],
  [Number.POSITIVE_INFINITY, Number.POSITIVE_INFINITY],
])('rounds %d to two digits as Python does', (value, rounded) => {
  expect(pythonRound(value, 2)).toBe(rounded);
});

it('takes halves to the even digit, before the point too', () => {
  expect([pythonRound(0.0625, 3), pythonRound(0.5625, 3), pythonRound(2.5, 0), pythonRound(3.5, 0)]).toEqual([0.062, 0.562, 2, 4]);
});

it.each([
  ['3', 3],
  [' -3.50 ', -3.5],
  ['.5', 0.5],
  ['5.', 5],
  ['1e3', 1000],
  ['1_000', 1000],
  ['inf', Number.POSITIVE_INFINITY],
  ['-Infinity', Number.NEGATIVE_INFINITY],
  ['1,000', undefined],
  ['0x10', undefined],
  ['1__0', undefined],
  ['', undefined],
  ['.', undefined],
  ['1 2', undefined],
])('reads %j as float() does', (text, value) => {
  expect(pythonFloat(text)).toBe(value);
});
