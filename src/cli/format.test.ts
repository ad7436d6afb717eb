import { expect, test } from 'vitest';
import { formatBytes } from './format.ts';

test('sizes are told in the unit that they have when they are rounded', () => {
  expect([0, 999, 1000, 5010, 999_400, 999_600, 1_000_000, 5_630_000_000].map(formatBytes)).toEqual([
    '0 bytes',
    '999 bytes',
    '1 kB',
    '5.01 kB',
    '999 kB',
    '1 MB',
    '1 MB',
    '5.63 GB',
  ]);
});
