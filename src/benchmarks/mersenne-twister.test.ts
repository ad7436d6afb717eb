import { expect, it } from 'vitest';
import { pythonRandom } from './mersenne-twister.ts';

it("draws what Python's random draws", () => {
  const random = pythonRandom(42);
  const drawn = (letters: string, times: number) => Array.from({ length: times }, () => random.choice([...letters])).join('');
  expect(drawn('ABCD', 20)).toBe('AACBBBAADAAABBABDBDC');
  expect(drawn('ABCDE', 12)).toBe('ABDCCBBCAADA');
  expect(Array.from({ length: 700 }, () => random.bits(32)).at(-1)).toBe(1418198351);
  const other = pythonRandom(0);
  expect(Array.from({ length: 10 }, () => other.choice([0, 1, 2, 3, 4, 5, 6]))).toEqual([6, 3, 6, 3, 0, 2, 4, 3, 3, 6]);
});
