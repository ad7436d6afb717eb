// The two passes of a resize in fixed point as WebAssembly SIMD: exact sums, so that the bytes are those of a
// plain loop. Rows pass through a small memory that stays in the cache: one row of the picture, and as many
// finished ones as an output row is made of.

import {
  assembleModule,
  type Code,
  constant,
  constantBytes,
  get,
  I32,
  i16x8,
  i32x4,
  ifBelow,
  load,
  load32,
  loadSplat32,
  loopWhileBelow,
  narrowToBytes,
  plus,
  set,
  shuffle,
  store,
  storeLane32,
  swizzle,
  V128,
  type WasmFunction,
} from '../wasm.ts';

/**
 * Fraction bits of a weight: 32, minus 8 for the pixel, minus 2 so that the sums over the lobes cannot
 * overflow.
 */
export const PRECISION_BITS = 22;
const HALF = 1 << (PRECISION_BITS - 1);

/** What one axis of a picture becomes. */
export interface Kernel {
  /** First source pixel and number of source pixels under each output pixel; both only ever grow or stay. */
  starts: Int32Array;
  lengths: Int32Array;
  /** `stride` fixed-point weights for each output pixel. */
  weights: Int32Array;
  stride: number;
  /** Sum of the weights that fall outside the source, on the border. */
  outside: Int32Array;
}

// === Code ===

// A product of a byte and a weight of 24 bits is made of two with 16: dot16 takes signed numbers of 16 bits.
// What is added up wraps around at 32 bits, and so does their sum, which is therefore exact.
const LOW_BITS = 15;
const LOW = (1 << LOW_BITS) - 1;

/** Sums of products with the low and the high parts of weights, as bytes are. */
const rounded = (low: Code, high: Code) => i32x4.shiftRight(i32x4.add(low, i32x4.shiftLeft(high, LOW_BITS)), PRECISION_BITS);
const zeros = constantBytes(new Array(16).fill(0));
const addDot = (sum: number, values: number, weights: Code) => set(sum, i32x4.add(get(sum), i32x4.dot16(get(values), weights)));

/** Bytes before the weights of an output pixel: where its source begins, bytes of weights, its first sums. */
const HEADER = 32;
/** Source pixels that are taken at once, and the bytes of their weights: low and high parts of two, twice. */
const GROUP = 4;
const GROUP_BYTES = 16;

/**
 * across(program, end, source, target): one row. The program is a stream of output pixels, `HEADER` and
 * weights of each, made by `acrossProgram`.
 */
function across(channels: number): WasmFunction {
  const [program, end, source, target, at, last, low, high, pixels, pair] = Array.from({ length: 10 }, (_, i) => i);
  const none = 128;
  /** The channels of pixel `first` and of the one behind it side by side, 16 bits each. */
  const pairOf = (first: number) =>
    Array.from({ length: 4 }, (_, channel) =>
      channel < channels ? [first * channels + channel, none, (first + 1) * channels + channel, none] : [none, none, none, none],
    ).flat();
  const addPair = (first: number): Code => [
    ...set(pair, swizzle(get(pixels), pairOf(first))),
    ...addDot(low, pair, loadSplat32(get(program), first * 4)),
    ...addDot(high, pair, loadSplat32(get(program), first * 4 + 4)),
  ];
  const group = [
    set(pixels, load(get(at), 0)),
    addPair(0),
    addPair(2),
    set(at, plus(get(at), constant(GROUP * channels))),
    set(program, plus(get(program), constant(GROUP_BYTES))),
  ];
  const bytes = i16x8.narrow(rounded(get(low), get(high)), zeros);
  const pixel = [
    set(at, plus(get(source), load32(get(program), 0))),
    set(last, plus(plus(get(program), load32(get(program), 4)), constant(HEADER))),
    set(low, load(get(program), 16)),
    set(high, zeros),
    set(program, plus(get(program), constant(HEADER))),
    ifBelow(get(program), get(last), [loopWhileBelow(get(program), get(last), group)]),
    storeLane32(get(target), 0, narrowToBytes(bytes, zeros)),
    set(target, plus(get(target), constant(channels))),
  ];
  return {
    parameters: [I32, I32, I32, I32],
    locals: [I32, I32, V128, V128, V128, V128],
    body: [loopWhileBelow(get(program), get(end), pixel)],
  };
}

/**
 * down(program, last, source, line, border, outside, target, bytes): an output row out of rows that lie
 * `line` bytes apart. The program has the weights of two rows after the other: low parts, high parts.
 */
function down(): WasmFunction {
  const [program, last, source, line, border, outside, target, bytes] = Array.from({ length: 8 }, (_, i) => i);
  const [x, weights, at, upper, lower, values] = Array.from({ length: 6 }, (_, i) => 8 + i);
  const lows = [14, 15, 16, 17];
  const highs = [18, 19, 20, 21];
  const interleaved = (first: number) => Array.from({ length: 16 }, (_, i) => first + (i >> 1) + (i % 2) * 16);
  const halves = [i16x8.lowOf8, i16x8.highOf8];
  const quarters = (of: (half: number) => Code) => lows.map((_, i) => halves[i % 2](of(i >> 1)));
  const borders = [0, 1].flatMap((half) => {
    const eight = halves[half](load(plus(get(border), get(x)), 0));
    return [i32x4.lowOf16(eight), i32x4.highOf16(eight)];
  });
  const rowPair = [
    set(upper, load(get(at), 0)),
    set(lower, load(plus(get(at), get(line)), 0)),
    ...quarters((half) => shuffle(get(upper), get(lower), interleaved(8 * half))).flatMap((quarter, i) => [
      set(values, quarter),
      addDot(lows[i], values, loadSplat32(get(weights), 0)),
      addDot(highs[i], values, loadSplat32(get(weights), 4)),
    ]),
    set(at, plus(plus(get(at), get(line)), get(line))),
    set(weights, plus(get(weights), constant(8))),
  ];
  const [a, b, c, d] = lows.map((low, i) => rounded(get(low), get(highs[i])));
  const block = [
    set(weights, get(program)),
    set(at, plus(get(source), get(x))),
    ...lows.map((low, i) => set(low, i32x4.add(i32x4.splat(constant(HALF)), i32x4.mul(borders[i], i32x4.splat(get(outside)))))),
    ...highs.map((high) => set(high, zeros)),
    ifBelow(get(weights), get(last), [loopWhileBelow(get(weights), get(last), rowPair)]),
    store(plus(get(target), get(x)), 0, narrowToBytes(i16x8.narrow(a, b), i16x8.narrow(c, d))),
    set(x, plus(get(x), constant(16))),
  ];
  return {
    parameters: new Array(8).fill(I32),
    locals: [I32, I32, I32, V128, V128, V128, ...lows.map(() => V128), ...highs.map(() => V128)],
    body: [loopWhileBelow(get(x), get(bytes), block)],
  };
}

// === Use ===

interface Exports {
  memory: WebAssembly.Memory;
  across3(program: number, end: number, source: number, target: number): void;
  across4(program: number, end: number, source: number, target: number): void;
  down(program: number, last: number, source: number, line: number, border: number, outside: number, target: number, bytes: number): void;
}

let made: Exports | undefined;

/** Compiled where the first picture is resized. */
function kernels(): Exports {
  made ??= new WebAssembly.Instance(assembleModule({ across3: across(3), across4: across(4), down: down() }, 1))
    .exports as unknown as Exports;
  return made;
}

const PAGE = 65536;
/** What is read or written behind the end of a row. */
const SLACK = 16;

/** Places for blocks of so many bytes each, with slack behind them, in the memory of the kernels. */
function reserve<const T extends Record<string, number>>(sizes: T): { [K in keyof T]: number } {
  const { memory } = kernels();
  let end = 0;
  const places = Object.entries(sizes).map(([name, size]) => {
    const place = end;
    end += (size + SLACK + 15) & ~15;
    return [name, place];
  });
  const missing = end - memory.buffer.byteLength;
  if (missing > 0) memory.grow(Math.ceil(missing / PAGE));
  return Object.fromEntries(places) as { [K in keyof T]: number };
}

/** The low or the high parts of two weights as one number of 32 bits. */
const lowParts = (a: number, b: number) => (a & LOW) | ((b & LOW) << 16);
const highParts = (a: number, b: number) => ((a >> LOW_BITS) & 0xffff) | ((b >> LOW_BITS) << 16);

/** The kernel `across` of a row whose first pixel is `first`, between borders of one color. */
function acrossProgram({ starts, lengths, weights, stride, outside }: Kernel, first: number, channels: number, border: ArrayLike<number>) {
  const groups = (length: number) => Math.ceil(length / GROUP);
  let size = 0;
  for (const length of lengths) size += HEADER + groups(length) * GROUP_BYTES;
  const program = new Int32Array(size / 4);
  let at = 0;
  for (let out = 0; out < starts.length; out++) {
    const own = weights.subarray(out * stride, out * stride + lengths[out]);
    const taken = groups(own.length) * GROUP;
    program[at] = own.length > 0 ? (starts[out] - first) * channels : 0;
    program[at + 1] = taken * 4;
    for (let channel = 0; channel < channels; channel++) program[at + 4 + channel] = HALF + outside[out] * border[channel];
    at += HEADER / 4;
    for (let i = 0; i < taken; i += 2, at += 2) {
      program[at] = lowParts(own[i], own[i + 1]);
      program[at + 1] = highParts(own[i], own[i + 1]);
    }
  }
  return program;
}

/** The weights of an output row for the kernel `down`. */
function downProgram({ lengths, weights, stride }: Kernel, out: number): Int32Array {
  const own = weights.subarray(out * stride, out * stride + lengths[out]);
  const program = new Int32Array(2 * Math.ceil(own.length / 2));
  for (let i = 0; i < program.length; i += 2) {
    program[i] = lowParts(own[i], own[i + 1]);
    program[i + 1] = highParts(own[i], own[i + 1]);
  }
  return program;
}

const clipped = (sum: number) => Math.max(0, Math.min(255, sum >> PRECISION_BITS));

/** A row without a pixel of the picture. */
function borderRow({ starts, lengths, weights, stride, outside }: Kernel, channels: number, color: ArrayLike<number>): Uint8Array {
  const row = new Uint8Array(starts.length * channels);
  for (let out = 0; out < starts.length; out++) {
    let weight = outside[out];
    for (let i = 0; i < lengths[out]; i++) weight += weights[out * stride + i];
    for (let channel = 0; channel < channels; channel++) row[out * channels + channel] = clipped(HALF + weight * color[channel]);
  }
  return row;
}

/** First pixel under a kernel, and the one behind the last. */
function extent({ starts, lengths }: Kernel): { first: number; last: number } {
  let [first, last] = [Number.POSITIVE_INFINITY, 0];
  for (let out = 0; out < starts.length; out++) {
    if (lengths[out] === 0) continue;
    first = Math.min(first, starts[out]);
    last = Math.max(last, starts[out] + lengths[out]);
  }
  return last === 0 ? { first: 0, last: 0 } : { first, last };
}

/**
 * Filters the rows of a picture, `lineBytes` apart, by `columns` and the result by `rows`; around the picture
 * all is of one color. `channels` is 3 or 4. Bytes [outputs of rows, outputs of columns, channels].
 */
export function filterBothWays(
  source: Uint8Array,
  lineBytes: number,
  channels: 3 | 4,
  rows: Kernel,
  columns: Kernel,
  color: ArrayLike<number>,
): Uint8Array {
  const [width, height] = [columns.starts.length, rows.starts.length];
  const line = width * channels;
  const { first, last } = extent(columns);
  const program = acrossProgram(columns, first, channels, color);
  // rows that are held: twice those of an output row, so that they need not be moved each time
  const capacity = 2 * (rows.lengths.reduce((most, length) => Math.max(most, length), 0) + 1);
  const place = reserve({
    columns: program.byteLength,
    source: (last - first) * channels + GROUP * channels,
    held: (capacity + 1) * line,
    rows: 8 * rows.stride,
    border: line,
    target: line,
  });
  const { memory, across3, across4, down: downward } = kernels();
  const acrossRow = channels === 3 ? across3 : across4;
  const bytes = new Uint8Array(memory.buffer);
  const words = new Int32Array(memory.buffer);
  words.set(program, place.columns / 4);
  bytes.set(borderRow(columns, channels, color), place.border);
  const result = new Uint8Array(height * line);
  // source rows `base` to `next` lie filtered in the memory
  let [base, next] = [0, 0];
  const hold = (from: number, to: number) => {
    if (to - base > capacity) {
      if (next > from) bytes.copyWithin(place.held, place.held + (from - base) * line, place.held + (next - base) * line);
      base = from;
    }
    for (next = Math.max(next, from); next < to; next++) {
      bytes.set(source.subarray(next * lineBytes + first * channels, next * lineBytes + last * channels), place.source);
      acrossRow(place.columns, place.columns + program.byteLength, place.source, place.held + (next - base) * line);
    }
  };
  for (let out = 0; out < height; out++) {
    const [start, length] = [rows.starts[out], rows.lengths[out]];
    if (length > 0) hold(start, start + length);
    const weights = downProgram(rows, out);
    words.set(weights, place.rows / 4);
    const end = place.rows + weights.byteLength;
    const from = length > 0 ? place.held + (start - base) * line : place.held;
    downward(place.rows, end, from, line, place.border, rows.outside[out], place.target, line);
    result.set(bytes.subarray(place.target, place.target + line), out * line);
  }
  return result;
}
