import { expect, test } from 'vitest';
import { curvePoints } from './loss-curve.ts';

test('a line of more steps than a call could have arguments', () => {
  const losses = new Array<number>(200_000).fill(1);
  expect(curvePoints(losses, losses.length, 100, 40).startsWith('0.0,0.0 0.0,0.0')).toBe(true);
});

test('a line from the first step to the last one so far', () => {
  expect(curvePoints([4, 2, 1], 5, 100, 40)).toBe('0.0,0.0 25.0,20.0 50.0,30.0');
  expect(curvePoints([3], 1, 100, 40)).toBe('0.0,0.0');
  expect(curvePoints([0, 0], 2, 100, 40)).toBe('0.0,40.0 100.0,40.0');
  expect(curvePoints([], 2, 100, 40)).toBe('');
});
