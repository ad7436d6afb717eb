// Readers of option values: what commander hands over is text.
import { InvalidArgumentError, Option } from 'commander';
import { DEVICES } from '../engine/engine.ts';
import { UserError } from '../errors.ts';
import { type FloatType, storedFloats } from '../weights/dtype.ts';

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

/** A number above 0. */
export function parsePositive(text: string): number {
  const value = parseNonNegative(text);
  if (value === 0) throw new InvalidArgumentError('It must be a number above 0.');
  return value;
}

/** A number from 0 to 1. */
export function parseShare(text: string): number {
  const value = parseNonNegative(text);
  if (value > 1) throw new InvalidArgumentError('It must be a number from 0 to 1.');
  return value;
}

/** For options that may be given several times. */
export function collect(value: string, previous: string[]): string[] {
  return [...previous, value];
}

const SIZE_UNITS: Record<string, number> = { '': 1, k: 1e3, m: 1e6, g: 1e9, t: 1e12, ki: 2 ** 10, mi: 2 ** 20, gi: 2 ** 30, ti: 2 ** 40 };

/** Bytes, as Hugging Face writes them: 5GB is 5,000,000,000, 5GiB is 5 x 2^30. */
export function parseSize(text: string): number {
  const [, number, unit] = /^\s*(\d+(?:\.\d+)?)\s*([kmgt]?i?)b?\s*$/i.exec(text) ?? [];
  const bytes = Math.floor(Number(number) * SIZE_UNITS[unit?.toLowerCase()]);
  if (!Number.isSafeInteger(bytes) || bytes < 1) throw new InvalidArgumentError('It must be a size such as 5GB or 500MB.');
  return bytes;
}

/** Of every command that writes weights. */
export const maxShardSizeOption = () =>
  new Option('--max-shard-size <size>', 'weights beyond this size go into several files: 5GB, 500MB, ...')
    .argParser(parseSize)
    .default(parseSize('5GB'), '5GB');

/** Of every command that runs a model, or writes one to be run. */
export const quantizeOption = (description = 'pack the matrices to 4 or 8 bits while loading: less memory, faster answers') =>
  new Option('-q, --quantize <type>', description).choices(['int4', 'int8']);

/** Of every command that runs a model. */
export const deviceOption = (
  description = 'what the model runs on: cpu, webgpu, or auto: webgpu where there is the adapter of a GPU (default: cpu)',
) => new Option('--device <name>', description).choices(DEVICES);

/** The float type that `--dtype` names. */
export function floatTypeOf(dtype: string): FloatType {
  if (!Object.hasOwn(storedFloats, dtype)) throw new UserError(`--dtype ${dtype}: must be float32, float16 or bfloat16`);
  return dtype as FloatType;
}

/** Of commands that score free-form answers. */
export const judgeOptions = () => [
  new Option('--judge <who>', 'who reads free-form answers: rules, local:FOLDER, or the address of an OpenAI-compatible endpoint'),
  new Option('--judge-model <name>', 'which model of the endpoint (its key: the environment variable OPENAI_API_KEY)'),
  new Option('--judge-runs <n>', 'judge each answer so many times').argParser(parseCount),
  new Option('--judge-cache <folder>', 'where judgements are kept, so that nothing is asked twice (default: .cache/replies)'),
];
