import { describe, expect, test } from 'vitest';
import { codeBlocks, signedCode, unsignedCode } from './dynamic-code.ts';

describe.each([
  ['signed', signedCode, 1],
  ['unsigned', unsignedCode, 2],
] as const)('the %s code', (name, { values, bounds }, first) => {
  test('has 256 values in order, 0 and 1 among them', () => {
    expect(values.length).toBe(256);
    expect(values.every((value, i) => i === 0 || value > values[i - 1])).toBe(true);
    expect(values).toContain(0);
    expect(values[255]).toBe(1);
    expect(values[0]).toBe(name === 'signed' ? Math.fround(-0.99296875) : 0);
  });

  test('has twice as many values in each power of ten, at equal distances', () => {
    for (let power = -6; power <= 0; power++) {
      const within = values.filter((value) => value > 10 ** (power - 1) && value <= 0.9999 * 10 ** power);
      expect(within.length, `1e${power}`).toBe(first * 2 ** (power + 6));
      const distance = (0.9 * 10 ** power) / within.length;
      within.forEach((value, i) => {
        expect(Math.abs(value / (0.1 * 10 ** power + distance * (i + 0.5)) - 1)).toBeLessThan(1e-7);
      });
    }
    if (name === 'signed') for (const value of values.subarray(1, 255)) expect(value === 0 || values.includes(-value)).toBe(true);
  });

  test('is divided in the middles', () => {
    expect(bounds.length).toBe(255);
    for (const [i, bound] of bounds.entries()) expect(bound).toBe(Math.fround((values[i] + values[i + 1]) / 2));
  });
});

test('the last block may be short', () => {
  expect([0, 1, 256, 257, 4096].map(codeBlocks)).toEqual([0, 1, 1, 2, 16]);
});
