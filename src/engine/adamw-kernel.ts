// The inner loop of AdamW as WebAssembly SIMD, four weights at a time in float32 as PyTorch computes it: a
// third of the time of the same loop in JavaScript, which has only double division and square root. Arrays
// pass through a small memory in chunks that stay in the cache, so they remain ordinary arrays. Moments of 8
// bits become float32 there, for the same loop, and codes again.

import { CODE_BLOCK, codeBlocks, signedCode, unsignedCode } from '../dynamic-code.ts';
import {
  assembleModule,
  type Code,
  constant,
  F32,
  f32x4,
  get,
  I32,
  load,
  loopWhileBelow,
  plus,
  set,
  store,
  V128,
  type WasmFunction,
} from '../wasm.ts';
import { CODE_TABLE, dequantize, quantize, writeCodeTable } from './code-kernel.ts';

/** Weights a chunk; the four arrays of a chunk fill one page of memory. */
const CHUNK = 4096;
const PAGE = 65536;
const OFFSETS = { values: 0, mean: PAGE / 4, square: PAGE / 2, gradient: (PAGE / 4) * 3 };
/** Where a pass leaves the sum of the squares of what it has changed: four partial sums. */
const CHANGE = PAGE;
/** The codes and largest magnitudes of a chunk's moments, and the tables of their codes. */
const CODES = { mean: PAGE + PAGE / 8, square: PAGE + PAGE / 4 };
const ABSMAX = { mean: PAGE + 256, square: PAGE + 512 };
const TABLES = { mean: 2 * PAGE, square: 2 * PAGE + CODE_TABLE };
const PAGES = 2 + Math.ceil((2 * CODE_TABLE) / PAGE);

/** Scalars of an update, in the order of the kernel's parameters. */
const SCALARS = ['clip', 'beta1', 'share1', 'beta2', 'share2', 'keep', 'rate', 'rootScale', 'eps'] as const;
export type AdamWScalars = Readonly<Record<(typeof SCALARS)[number], number>>;

/**
 * update(bytes, ...scalars): one pass over the first `bytes` of each array, a multiple of 16. Leaves the sum
 * of (new value - old value)^2 at CHANGE.
 */
function update(): WasmFunction {
  const { splat, sqrt, add, sub, mul, div } = f32x4;
  const end = 0;
  const firstSplat = 1 + SCALARS.length;
  const [gradient, mean, square, value, change, at] = [0, 1, 2, 3, 4, 5].map((i) => firstSplat + SCALARS.length + i);
  const s = Object.fromEntries(SCALARS.map((name, i) => [name, get(firstSplat + i)])) as Record<(typeof SCALARS)[number], Code>;
  const step = div(mul(s.rate, get(mean)), add(mul(sqrt(get(square)), s.rootScale), s.eps));
  const four = [
    set(gradient, mul(load(get(at), OFFSETS.gradient), s.clip)),
    set(mean, add(mul(s.beta1, load(get(at), OFFSETS.mean)), mul(s.share1, get(gradient)))),
    set(square, add(mul(s.beta2, load(get(at), OFFSETS.square)), mul(mul(s.share2, get(gradient)), get(gradient)))),
    store(get(at), OFFSETS.mean, get(mean)),
    store(get(at), OFFSETS.square, get(square)),
    set(value, sub(mul(load(get(at), OFFSETS.values), s.keep), step)),
    set(mean, sub(get(value), load(get(at), OFFSETS.values))),
    set(change, add(get(change), mul(get(mean), get(mean)))),
    store(get(at), OFFSETS.values, get(value)),
    set(at, plus(get(at), constant(16))),
  ];
  return {
    parameters: [I32, ...SCALARS.map(() => F32)],
    locals: [...new Array(SCALARS.length + 5).fill(V128), I32],
    body: [
      ...SCALARS.map((_, i) => set(firstSplat + i, splat(get(1 + i)))),
      loopWhileBelow(get(at), get(end), four),
      store(constant(0), CHANGE, get(change)),
    ],
  };
}

interface Kernel {
  memory: WebAssembly.Memory;
  update(bytes: number, ...scalars: number[]): void;
  dequantize(table: number, codes: number, absmax: number, to: number, end: number): void;
  quantize(table: number, codes: number, absmax: number, from: number, end: number): void;
}

const functions = { update: update(), dequantize: dequantize(), quantize: quantize() };
const kernel = new WebAssembly.Instance(assembleModule(functions, PAGES)).exports as unknown as Kernel;
const { buffer } = kernel.memory;
const chunkOf = (offset: number) => new Float32Array(buffer, offset, CHUNK);
const chunk = {
  values: chunkOf(OFFSETS.values),
  mean: chunkOf(OFFSETS.mean),
  square: chunkOf(OFFSETS.square),
  gradient: chunkOf(OFFSETS.gradient),
};

const partialSums = new Float32Array(buffer, CHANGE, 4);

/** The arrays of an update in float32: of one length. */
export interface AdamWArrays {
  values: Float32Array;
  mean: Float32Array;
  square: Float32Array;
  gradient: Float32Array;
}

/**
 * Moves a part of an array into the chunk. What fills it to `whole` stays zero, and does not count as a
 * change.
 */
function putIn(name: keyof AdamWArrays, array: Float32Array, start: number, count: number, whole: number): void {
  chunk[name].set(array.subarray(start, start + count));
  chunk[name].fill(0, count, whole);
}

/** Runs the loop over the first `whole` weights of the chunk; the sum of the squares of their changes. */
function updateChunk(whole: number, operands: readonly number[]): number {
  kernel.update(whole * 4, ...operands);
  let change = 0;
  for (const sum of partialSums) change += sum;
  return change;
}

/**
 * With g = clip * gradient: mean = beta1 mean + share1 g, square = beta2 square + share2 g^2, and
 * values = keep * values - rate * mean / (sqrt(square) * rootScale + eps). The gradient is not changed.
 * Returns the sum of the squares by which values have changed.
 */
export function adamWUpdate(arrays: AdamWArrays, scalars: AdamWScalars): number {
  const operands = SCALARS.map((name) => scalars[name]);
  const { length } = arrays.values;
  let change = 0;
  for (let start = 0; start < length; start += CHUNK) {
    const count = Math.min(CHUNK, length - start);
    const whole = Math.ceil(count / 4) * 4;
    for (const name of ['values', 'mean', 'square', 'gradient'] as const) putIn(name, arrays[name], start, count, whole);
    change += updateChunk(whole, operands);
    for (const name of ['values', 'mean', 'square'] as const) arrays[name].set(chunk[name].subarray(0, count), start);
  }
  return change;
}

/** A moment in blocks of dynamic 8-bit codes, one for each weight. */
export interface CodedMoment {
  codes: Uint8Array;
  /** The largest magnitude of each block. */
  absmax: Float32Array;
}

const codedChunk = (name: 'mean' | 'square'): CodedMoment => ({
  codes: new Uint8Array(buffer, CODES[name], CHUNK),
  absmax: new Float32Array(buffer, ABSMAX[name], CHUNK / CODE_BLOCK),
});
const coded = { mean: codedChunk('mean'), square: codedChunk('square') };
const codeOf = { mean: signedCode, square: unsignedCode };
for (const name of ['mean', 'square'] as const) writeCodeTable(buffer, TABLES[name], codeOf[name]);
const zeroCode = { mean: signedCode.values.indexOf(0), square: unsignedCode.values.indexOf(0) };

/**
 * The same with both moments in codes, signed ones for the mean: dequantized, updated in float32, which is
 * what moves the values, and quantized anew.
 */
export function adamWUpdate8bit(
  arrays: { values: Float32Array; mean: CodedMoment; square: CodedMoment; gradient: Float32Array },
  scalars: AdamWScalars,
): number {
  const operands = SCALARS.map((name) => scalars[name]);
  const { length } = arrays.values;
  let change = 0;
  for (let start = 0; start < length; start += CHUNK) {
    const count = Math.min(CHUNK, length - start);
    const [firstBlock, blocks] = [start / CODE_BLOCK, codeBlocks(count)];
    const whole = blocks * CODE_BLOCK;
    for (const name of ['values', 'gradient'] as const) putIn(name, arrays[name], start, count, whole);
    for (const name of ['mean', 'square'] as const) {
      coded[name].codes.set(arrays[name].codes.subarray(start, start + count));
      coded[name].codes.fill(zeroCode[name], count, whole);
      coded[name].absmax.set(arrays[name].absmax.subarray(firstBlock, firstBlock + blocks));
      kernel.dequantize(TABLES[name], CODES[name], ABSMAX[name], OFFSETS[name], OFFSETS[name] + whole * 4);
    }
    change += updateChunk(whole, operands);
    arrays.values.set(chunk.values.subarray(0, count), start);
    for (const name of ['mean', 'square'] as const) {
      kernel.quantize(TABLES[name], CODES[name], ABSMAX[name], OFFSETS[name], OFFSETS[name] + whole * 4);
      arrays[name].codes.set(coded[name].codes.subarray(0, count), start);
      arrays[name].absmax.set(coded[name].absmax.subarray(0, blocks), firstBlock);
    }
  }
  return change;
}
