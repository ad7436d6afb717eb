// Blocks of dynamic 8-bit codes (dynamic-code.ts) to float32 and back as WebAssembly, to be built into a
// kernel that computes between the two. No search: the upper half of a float's bits, sign, exponent and seven
// bits of the fraction, names an interval that holds one bound of the code at most. A table has the code at
// its lower end, and one comparison decides.

import { CODE_BLOCK, type DynamicCode } from '../dynamic-code.ts';
import {
  type Code,
  constant,
  F32,
  f32,
  f32x4,
  get,
  I32,
  load,
  load8,
  load16,
  loopWhileBelow,
  plus,
  select,
  set,
  shiftLeft,
  store,
  store8,
  V128,
  type WasmFunction,
} from '../wasm.ts';

// What the memory behind the address of a code holds.
const VALUES = 0;
const BOUNDS = 1024;
const LOOKUP = 2048;
/** Bytes of it. */
export const CODE_TABLE = LOOKUP + 65536;

/** Lays the tables of a code at `address`. */
export function writeCodeTable(memory: ArrayBuffer, address: number, { values, bounds }: DynamicCode): void {
  new Float32Array(memory, address + VALUES, 256).set(values);
  // nothing is above the last
  new Float32Array(memory, address + BOUNDS, 256).set([...bounds, Number.POSITIVE_INFINITY]);
  const bits = new Uint32Array(1);
  const [number] = [new Float32Array(bits.buffer)];
  const lookup = new Uint8Array(memory, address + LOOKUP, 65536);
  // numbers from -1 to 1 come here, entered upwards; a negative interval begins at its largest magnitude
  let code = 0;
  const enter = (half: number, end: number) => {
    bits[0] = ((half << 16) | end) >>> 0;
    while (bounds[code] < number[0]) code++;
    lookup[half] = code;
  };
  for (let half = 0x3f80; half >= 0; half--) enter(0x8000 | half, 0xffff);
  for (let half = 0; half <= 0x3f80; half++) enter(half, 0);
}

const BLOCK_BYTES = 4 * CODE_BLOCK;
/** Numbers of a turn of the loops. */
const TURN = 8;
const turn = (of: (i: number) => Code): Code[] => Array.from({ length: TURN }, (_, i) => of(i));

/**
 * dequantize(table, codes, absmax, to, end): whole blocks of codes as float32, from the address `to` up to
 * `end`.
 */
export function dequantize(): WasmFunction {
  const [table, codes, absmax, to, end, blockEnd, scale] = [0, 1, 2, 3, 4, 5, 6];
  const value = (i: number) => f32.load(plus(get(table), shiftLeft(load8(get(codes), i), 2)), VALUES);
  return {
    parameters: [I32, I32, I32, I32, I32],
    locals: [I32, F32],
    body: [
      loopWhileBelow(get(to), get(end), [
        set(scale, f32.load(get(absmax), 0)),
        set(blockEnd, plus(get(to), constant(BLOCK_BYTES))),
        loopWhileBelow(get(to), get(blockEnd), [
          ...turn((i) => f32.store(get(to), 4 * i, f32.mul(value(i), get(scale)))),
          set(to, plus(get(to), constant(4 * TURN))),
          set(codes, plus(get(codes), constant(TURN))),
        ]),
        set(absmax, plus(get(absmax), constant(4))),
      ]),
    ],
  };
}

/**
 * quantize(table, codes, absmax, from, end): the reverse. The float32 numbers are lost; none may be NaN or
 * infinite.
 */
export function quantize(): WasmFunction {
  const [table, codes, absmax, from, end, at, blockEnd, code, scale, most] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9];
  const { abs, max, lane, div, splat } = f32x4;
  const vectors = (of: (offset: number) => Code): Code[] => [
    set(at, get(from)),
    loopWhileBelow(get(at), get(blockEnd), [...turn((i) => of(16 * i)), set(at, plus(get(at), constant(16 * TURN)))]),
  ];
  const [first, second, third, fourth] = [0, 1, 2, 3].map((i) => lane(get(most), i));
  return {
    parameters: [I32, I32, I32, I32, I32],
    locals: [I32, I32, I32, F32, V128],
    body: [
      loopWhileBelow(get(from), get(end), [
        set(blockEnd, plus(get(from), constant(BLOCK_BYTES))),
        set(most, splat(f32.constant(0))),
        ...vectors((offset) => set(most, max(get(most), abs(load(get(at), offset))))),
        set(scale, f32.max(f32.max(first, second), f32.max(third, fourth))),
        f32.store(get(absmax), 0, get(scale)),
        // a block of zeros: any divisor will do
        set(most, splat(select(f32.greater(get(scale), f32.constant(0)), get(scale), f32.constant(1)))),
        ...vectors((offset) => store(get(at), offset, div(load(get(at), offset), get(most)))),
        loopWhileBelow(get(from), get(blockEnd), [
          ...turn((i) => [
            ...set(code, load8(plus(get(table), load16(get(from), 4 * i + 2)), LOOKUP)),
            ...store8(
              get(codes),
              i,
              plus(get(code), f32.greater(f32.load(get(from), 4 * i), f32.load(plus(get(table), shiftLeft(get(code), 2)), BOUNDS))),
            ),
          ]),
          set(from, plus(get(from), constant(4 * TURN))),
          set(codes, plus(get(codes), constant(TURN))),
        ]),
        set(absmax, plus(get(absmax), constant(4))),
      ]),
    ],
  };
}
