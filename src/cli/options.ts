// Readers of option values: what commander hands over is text.
import { InvalidArgumentError } from 'commander';

/** A whole number above 0. */
export function parseCount(text: string): number {
  const value = Number(text);
  if (!Number.isSafeInteger(value) || value < 1 || text.trim() === '') throw new InvalidArgumentError('It must be a whole number above 0.');
  return value;
}

/** A whole number, 0 or above. */
export function parseSeed(text: string): number {
  const value = Number(text);
  if (!Number.isSafeInteger(value) || value < 0 || text.trim() === '')
    throw new InvalidArgumentError('It must be a whole number, 0 or above.');
  return value;
}

/** A number, 0 or above. */
export function parseNonNegative(text: string): number {
  const value = Number(text);
  if (!Number.isFinite(value) || value < 0 || text.trim() === '') throw new InvalidArgumentError('It must be a number, 0 or above.');
  return value;
}

/** For options that may be given several times. */
export function collect(value: string, previous: string[]): string[] {
  return [...previous, value];
}
