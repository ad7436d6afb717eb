import { stripVTControlCharacters } from 'node:util';
import { expect, it, vi } from 'vitest';
import { formatScores, showsColor } from './table.ts';

const score = {
  accuracy: 0.87,
  ciLow: 0.83,
  ciHigh: 0.9,
  n: 400,
  correct: 348,
  majority: 0.5,
  majorityFrom: 'training',
  random: 0.5,
} as const;
const scores = {
  'unseen-artist': {
    existence: { ...score, blind: 0.52, blindCiLow: 0.47, blindCiHigh: 0.57, f1: 0.861, yesRate: 0.49 },
    'a task with a long name': { ...score, n: 20, majorityFrom: 'evaluation' as const },
  },
};

it('prints one aligned row a task', () => {
  const lines = formatScores(scores, false).split('\n');
  expect(lines).toHaveLength(5);
  expect(lines[1]).toBe('unseen-artist');
  expect(lines[2]).toBe('  existence                   0.870  0.830 - 0.900  0.520    0.500    0.500  0.861     0.490  400');
  expect(lines[3]).toBe('  a task with a long name     0.870  0.830 - 0.900      -    0.500*   0.500      -         -   20');
  expect(lines[4]).toContain('of the evaluation itself');
});

it('is equally aligned with colors', () => {
  const colored = formatScores(scores, true);
  expect(colored).toContain('\x1b[32m0.870');
  expect(stripVTControlCharacters(colored)).toBe(formatScores(scores, false));
});

it('has colors on a terminal, unless NO_COLOR says otherwise', () => {
  const { isTTY } = process.stdout;
  try {
    process.stdout.isTTY = true;
    vi.stubEnv('NO_COLOR', '');
    expect(showsColor()).toBe(true);
    vi.stubEnv('NO_COLOR', '1');
    expect(showsColor()).toBe(false);
    process.stdout.isTTY = false;
    vi.stubEnv('NO_COLOR', '');
    expect(showsColor()).toBe(false);
  } finally {
    process.stdout.isTTY = isTTY;
    vi.unstubAllEnvs();
  }
});
