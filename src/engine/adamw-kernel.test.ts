import { describe, expect, test } from 'vitest';
import { CODE_BLOCK, codeBlocks, type DynamicCode, signedCode, unsignedCode } from '../dynamic-code.ts';
import { createRandom } from '../random.ts';
import { adamWUpdate, adamWUpdate8bit, type CodedMoment } from './adamw-kernel.ts';

const scalars = { clip: 0.5, beta1: 0.9, share1: 0.1, beta2: 0.99, share2: 0.01, keep: 0.999, rate: 1e-2, rootScale: 1.5, eps: 1e-8 };

function arraysOf(length: number) {
  const random = createRandom(length);
  const noise = () => Float32Array.from({ length }, () => random.normal());
  return { values: noise(), mean: noise(), square: noise().map((v) => v * v), gradient: noise() };
}

describe('the kernel', () => {
  // around a vector, around a chunk, several chunks
  test.each([0, 1, 3, 4, 5, 4095, 4096, 4097, 10001])('equals the update in double precision for %i weights', (length) => {
    const arrays = arraysOf(length);
    const before = structuredClone(arrays);
    const change = adamWUpdate(arrays, scalars);
    const moved = arrays.values.reduce((sum, value, i) => sum + Math.fround(value - before.values[i]) ** 2, 0);
    expect(Math.abs(change - moved)).toBeLessThanOrEqual(1e-5 * moved);
    const s = scalars;
    let worst = 0;
    for (let i = 0; i < length; i++) {
      const g = before.gradient[i] * s.clip;
      const mean = s.beta1 * before.mean[i] + s.share1 * g;
      const square = s.beta2 * before.square[i] + s.share2 * g * g;
      const value = s.keep * before.values[i] - (s.rate * mean) / (Math.sqrt(square) * s.rootScale + s.eps);
      worst = Math.max(worst, Math.abs(arrays.mean[i] - mean), Math.abs(arrays.square[i] - square) / (1 + square));
      // a large quotient of a tiny square carries its relative error
      worst = Math.max(worst, Math.abs(arrays.values[i] - value) / (1 + Math.abs(value)));
    }
    expect(worst).toBeLessThan(4e-7);
    expect(arrays.gradient).toEqual(before.gradient);
  });

  test('what an earlier, longer call left in its memory does not matter', () => {
    const [first, second] = [arraysOf(6), arraysOf(6)];
    adamWUpdate(first, scalars);
    const poison = arraysOf(100);
    poison.gradient.fill(Number.NaN);
    adamWUpdate(poison, scalars);
    adamWUpdate(second, scalars);
    expect(second).toEqual(first);
  });
});

// === Moments in 8 bits ===

const zeroMoment = (length: number): CodedMoment => ({ codes: new Uint8Array(length), absmax: new Float32Array(codeBlocks(length)) });

/** Sizes as moments have them: over ten powers of ten, with blocks of zeros. */
function codedArraysOf(length: number) {
  const random = createRandom(length, 'codes');
  const noise = () => Float32Array.from({ length }, (_, i) => (i >> 8 === 1 ? 0 : random.normal() * 10 ** (random.uniform() * 10 - 8)));
  return { values: noise(), mean: zeroMoment(length), square: zeroMoment(length), gradient: noise() };
}

/** The update of one weight, each operation rounded to float32 as the kernel rounds it. */
function plainUpdate(value: number, mean: number, square: number, gradient: number) {
  const f = Math.fround;
  const s = Object.fromEntries(Object.entries(scalars).map(([name, scalar]) => [name, f(scalar)])) as typeof scalars;
  const g = f(gradient * s.clip);
  const m = f(f(s.beta1 * mean) + f(s.share1 * g));
  const v = f(f(s.beta2 * square) + f(f(s.share2 * g) * g));
  const step = f(f(s.rate * m) / f(f(f(Math.sqrt(v)) * s.rootScale) + s.eps));
  return [f(f(value * s.keep) - step), m, v];
}

const plainlyDequantized = ({ codes, absmax }: CodedMoment, { values }: DynamicCode) =>
  Float32Array.from(codes, (code, i) => values[code] * absmax[Math.floor(i / CODE_BLOCK)]);

function plainlyQuantized(numbers: Float32Array, { bounds }: DynamicCode): CodedMoment {
  const moment = zeroMoment(numbers.length);
  for (const block of moment.absmax.keys()) {
    const part = numbers.subarray(block * CODE_BLOCK, (block + 1) * CODE_BLOCK);
    const absmax = part.reduce((most, number) => Math.max(most, Math.abs(number)), 0);
    moment.absmax[block] = absmax;
    const codeOf = (number: number) => bounds.filter((bound) => bound < Math.fround(number / (absmax || 1))).length;
    moment.codes.set(Array.from(part, codeOf), block * CODE_BLOCK);
  }
  return moment;
}

describe('the kernel of moments in 8 bits', () => {
  // around a vector, a block and a chunk
  test.each([0, 1, 5, 255, 256, 257, 1000, 4096, 4100])('equals plain loops to the bit for %i weights, step by step', (length) => {
    const arrays = codedArraysOf(length);
    const expected = structuredClone(arrays);
    const { gradient } = structuredClone(arrays);
    for (let step = 0; step < 3; step++) {
      const [mean, square] = [plainlyDequantized(expected.mean, signedCode), plainlyDequantized(expected.square, unsignedCode)];
      let moved = 0;
      for (let i = 0; i < length; i++) {
        const before = expected.values[i];
        [expected.values[i], mean[i], square[i]] = plainUpdate(before, mean[i], square[i], gradient[i]);
        moved += Math.fround(expected.values[i] - before) ** 2;
      }
      expected.mean = plainlyQuantized(mean, signedCode);
      expected.square = plainlyQuantized(square, unsignedCode);
      const change = adamWUpdate8bit(arrays, scalars);
      expect(arrays).toEqual(expected);
      expect(Math.abs(change - moved)).toBeLessThanOrEqual(1e-5 * moved);
    }
    expect(arrays.gradient).toEqual(gradient);
  });

  /** What becomes of numbers that are the moments after a step. */
  function roundTrip(numbers: Float32Array, name: 'mean' | 'square', code: DynamicCode) {
    const { length } = numbers;
    const [mean, square] = [zeroMoment(length), zeroMoment(length)];
    const gradient = name === 'mean' ? numbers : numbers.map(Math.sqrt);
    const exact = { ...scalars, clip: 1, share1: 1, share2: 1, rate: 0 };
    adamWUpdate8bit({ values: new Float32Array(length), mean, square, gradient }, exact);
    const given = name === 'mean' ? numbers : gradient.map((root) => root * root);
    const moment = name === 'mean' ? mean : square;
    return { given, moment, back: plainlyDequantized(moment, code) };
  }

  test.each([
    ['mean', signedCode],
    ['square', unsignedCode],
  ] as const)('gives the code of every value of the %s, and of its neighbors at every bound', (name, code) => {
    const bits = new Int32Array(1);
    const [float] = [new Float32Array(bits.buffer)];
    const beside = (number: number, steps: number) => {
      float[0] = number;
      bits[0] += steps;
      return float[0];
    };
    // the largest magnitude of each block is 1: a number is its own share
    const near = [...code.values, ...code.bounds].flatMap((number) =>
      number === 0 ? [0] : [-1, 0, 1].map((steps) => beside(number, steps)),
    );
    const all = near.filter((number) => Math.abs(number) <= 1 && (name === 'mean' || number >= 0));
    const numbers = Float32Array.from(all.flatMap((number, i) => (i % (CODE_BLOCK - 1) === 0 ? [1, number] : [number])));
    const { given, moment } = roundTrip(numbers, name, code);
    const nearest = Array.from(given, (number) => code.bounds.filter((bound) => bound < number).length);
    expect(moment.absmax.every((absmax) => absmax === 1)).toBe(true);
    expect(Array.from(moment.codes)).toEqual(nearest);
  });

  test.each([
    ['mean', signedCode, 0.9 / 64],
    ['square', unsignedCode, 0.9 / 128],
  ] as const)('errs in the %s by half a step of its power of ten at most', (name, code, step) => {
    const random = createRandom(3, name);
    const numbers = Float32Array.from({ length: 8 * CODE_BLOCK }, () => {
      const number = random.normal() * 10 ** (-6 * random.uniform());
      return name === 'mean' ? number : number ** 2;
    });
    const { given, moment, back } = roundTrip(numbers, name, code);
    for (const [i, number] of given.entries()) {
      const absmax = moment.absmax[Math.floor(i / CODE_BLOCK)];
      const share = Math.abs(number) / absmax;
      // steps grow by 5 with each power of ten: a tenth of the range in half as many parts
      const power = Math.min(0, Math.max(-6, Math.ceil(Math.log10(share))));
      expect(Math.abs(back[i] - number) / absmax).toBeLessThanOrEqual(1.001 * (step / 2) * 5 ** power + (share < 1e-6 ? 1e-6 : 0));
    }
  });

  test('what an earlier, longer call left in its memory does not matter', () => {
    const [first, second] = [codedArraysOf(6), codedArraysOf(6)];
    adamWUpdate8bit(first, scalars);
    const poison = arraysOf(700);
    poison.gradient.fill(Number.NaN);
    adamWUpdate(poison, scalars);
    adamWUpdate8bit({ ...codedArraysOf(5000) }, scalars);
    adamWUpdate8bit(second, scalars);
    expect(second).toEqual(first);
  });
});
