// The inner loop of AdamW as WebAssembly SIMD, four weights at a time in float32 as PyTorch computes it: a
// third of the time of the same loop in JavaScript, which has only double division and square root. Arrays
// pass through a small memory in chunks that stay in the cache, so they remain ordinary Float32Arrays.

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

/** Weights a chunk; the four arrays of a chunk fill one page of memory. */
const CHUNK = 4096;
const PAGE = 65536;
const OFFSETS = { values: 0, mean: PAGE / 4, square: PAGE / 2, gradient: (PAGE / 4) * 3 };
/** Where a pass leaves the sum of the squares of what it has changed: four partial sums. */
const CHANGE = PAGE;

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
}

const kernel = new WebAssembly.Instance(assembleModule({ update: update() }, 2)).exports as unknown as Kernel;
const chunkOf = (offset: number) => new Float32Array(kernel.memory.buffer, offset, CHUNK);
const chunk = {
  values: chunkOf(OFFSETS.values),
  mean: chunkOf(OFFSETS.mean),
  square: chunkOf(OFFSETS.square),
  gradient: chunkOf(OFFSETS.gradient),
};

const partialSums = new Float32Array(kernel.memory.buffer, CHANGE, 4);

/**
 * With g = clip * gradient: mean = beta1 mean + share1 g, square = beta2 square + share2 g^2, and
 * values = keep * values - rate * mean / (sqrt(square) * rootScale + eps). All arrays have one length; the
 * gradient is not changed. Returns the sum of the squares by which values have changed.
 */
export function adamWUpdate(
  arrays: { values: Float32Array; mean: Float32Array; square: Float32Array; gradient: Float32Array },
  scalars: AdamWScalars,
): number {
  const operands = SCALARS.map((name) => scalars[name]);
  const { length } = arrays.values;
  let change = 0;
  for (let start = 0; start < length; start += CHUNK) {
    const count = Math.min(CHUNK, length - start);
    const whole = Math.ceil(count / 4) * 4;
    for (const name of ['values', 'mean', 'square', 'gradient'] as const) {
      chunk[name].set(arrays[name].subarray(start, start + count));
      // what fills a last vector stays zero, and does not count as a change
      chunk[name].fill(0, count, whole);
    }
    kernel.update(whole * 4, ...operands);
    for (const name of ['values', 'mean', 'square'] as const) arrays[name].set(chunk[name].subarray(0, count), start);
    for (const sum of partialSums) change += sum;
  }
  return change;
}
