// An assembler for kernels of WebAssembly SIMD that are made when they are needed: no file to build, none to
// ship. It has the instructions that our kernels use.
// Encodings: webassembly.github.io/spec/core/binary

/** Bytes of code; an operand leaves its value on the stack. */
export type Code = readonly number[];

export const I32 = 0x7f;
export const F32 = 0x7d;
export const V128 = 0x7b;

// === The format ===

/** Unsigned LEB128, the format's sizes and indices. */
function leb(value: number): Code {
  const bytes: number[] = [];
  for (let rest = value; ; rest >>>= 7) {
    if (rest < 128) return [...bytes, rest];
    bytes.push((rest & 127) | 128);
  }
}

/** Signed LEB128, the format's constants. */
function signedLeb(value: number): Code {
  const bytes: number[] = [];
  for (let rest = value; ; rest >>= 7) {
    if (rest >= -64 && rest < 64) return [...bytes, rest & 127];
    bytes.push((rest & 127) | 128);
  }
}

const vector = (items: readonly Code[]): Code => [...leb(items.length), ...items.flat()];
const sized = (code: Code): Code => [...leb(code.length), ...code];
const section = (id: number, items: readonly Code[]): Code => [id, ...sized(vector(items))];
const text = (value: string): Code => sized([...new TextEncoder().encode(value)]);

/** A function without results; its locals are numbered behind its parameters. */
export interface WasmFunction {
  parameters: readonly number[];
  locals: readonly number[];
  body: readonly Code[];
}

/** A module that exports these functions by name, and its `memory` of at least `pages` pages of 64 KB. */
export function assembleModule(functions: Readonly<Record<string, WasmFunction>>, pages: number): WebAssembly.Module {
  const all = Object.entries(functions);
  const bodies = all.map(([, { locals, body }]) => sized([...vector(locals.map((type) => [1, type])), ...body.flat(), 0x0b]));
  return new WebAssembly.Module(
    Uint8Array.from([
      ...[0x00, 0x61, 0x73, 0x6d, 1, 0, 0, 0], // magic, version
      ...section(
        1,
        all.map(([, { parameters }]) => [0x60, ...vector(parameters.map((type) => [type])), 0]),
      ),
      ...section(
        3,
        all.map((_, i) => leb(i)),
      ),
      ...section(5, [[0, ...leb(pages)]]),
      ...section(7, [...all.map(([name], i) => [...text(name), 0, ...leb(i)]), [...text('memory'), 2, 0]]),
      ...section(10, bodies),
    ]),
  );
}

// === Instructions ===

export const get = (local: number): Code => [0x20, ...leb(local)];
export const set = (local: number, value: Code): Code => [...value, 0x21, ...leb(local)];
export const constant = (value: number): Code => [0x41, ...signedLeb(value)];
export const plus = (a: Code, b: Code): Code => [...a, ...b, 0x6a];
const isBelow = (a: Code, b: Code): Code => [...a, ...b, 0x49];
export const shiftLeft = (a: Code, bits: number): Code => [...a, ...constant(bits), 0x74];
/** `a` where `condition` is not 0, else `b`. */
export const select = (condition: Code, a: Code, b: Code): Code => [...a, ...b, ...condition, 0x1b];

export const load32 = (address: Code, offset: number): Code => [...address, 0x28, 2, ...leb(offset)];
/** A byte, and two bytes, without sign. */
export const load8 = (address: Code, offset: number): Code => [...address, 0x2d, 0, ...leb(offset)];
export const load16 = (address: Code, offset: number): Code => [...address, 0x2f, 1, ...leb(offset)];
export const store8 = (address: Code, offset: number, value: Code): Code => [...address, ...value, 0x3a, 0, ...leb(offset)];

export const f32 = {
  constant: (value: number): Code => [0x43, ...new Uint8Array(Float32Array.of(value).buffer)],
  load: (address: Code, offset: number): Code => [...address, 0x2a, 2, ...leb(offset)],
  store: (address: Code, offset: number, value: Code): Code => [...address, ...value, 0x38, 2, ...leb(offset)],
  mul: (a: Code, b: Code): Code => [...a, ...b, 0x94],
  max: (a: Code, b: Code): Code => [...a, ...b, 0x97],
  /** 1 or 0. */
  greater: (a: Code, b: Code): Code => [...a, ...b, 0x5e],
};

/** Runs `body`, and again as long as `a` is below `b`, without signs. */
export const loopWhileBelow = (a: Code, b: Code, body: readonly Code[]): Code => [
  ...[0x03, 0x40],
  ...body.flat(),
  ...isBelow(a, b),
  ...[0x0d, 0, 0x0b],
];

/** Runs `body` if `a` is below `b`, without signs. */
export const ifBelow = (a: Code, b: Code, body: readonly Code[]): Code => [...isBelow(a, b), 0x04, 0x40, ...body.flat(), 0x0b];

const simd = (op: number, ...operands: Code[]): Code => [...operands.flat(), 0xfd, ...leb(op)];
/** How addresses are aligned, as far as the engine may count on it: not at all. */
const UNALIGNED = 0;
const access = (op: number, offset: number, ...operands: Code[]): Code => [...simd(op, ...operands), UNALIGNED, ...leb(offset)];

/** 16 bytes. */
export const load = (address: Code, offset: number): Code => access(0x00, offset, address);
export const store = (address: Code, offset: number, value: Code): Code => access(0x0b, offset, address, value);
/** Four bytes, in each of the four lanes. */
export const loadSplat32 = (address: Code, offset: number): Code => access(0x09, offset, address);
/** The first lane of four bytes. */
export const storeLane32 = (address: Code, offset: number, value: Code): Code => [...access(0x5a, offset, address, value), 0];
export const constantBytes = (bytes: readonly number[]): Code => [...simd(0x0c), ...bytes];
/** Bytes of `a` by their places in `places`, 0 where a place is 128. */
export const swizzle = (a: Code, places: readonly number[]): Code => simd(0x0e, a, constantBytes(places));
/** Bytes of `a` (0 to 15) and `b` (16 to 31). */
export const shuffle = (a: Code, b: Code, places: readonly number[]): Code => [...simd(0x0d, a, b), ...places];

export const i32x4 = {
  splat: (a: Code) => simd(0x11, a),
  add: (a: Code, b: Code) => simd(0xae, a, b),
  mul: (a: Code, b: Code) => simd(0xb5, a, b),
  shiftLeft: (a: Code, bits: number) => simd(0xab, a, constant(bits)),
  /** With the sign. */
  shiftRight: (a: Code, bits: number) => simd(0xac, a, constant(bits)),
  /** Products of signed numbers of 16 bits, added up by twos. */
  dot16: (a: Code, b: Code) => simd(0xba, a, b),
  /** The first, or the last, four of eight numbers of 16 bits without sign. */
  lowOf16: (a: Code) => simd(0xa9, a),
  highOf16: (a: Code) => simd(0xaa, a),
};

export const i16x8 = {
  /** The first, or the last, eight of sixteen bytes. */
  lowOf8: (a: Code) => simd(0x89, a),
  highOf8: (a: Code) => simd(0x8a, a),
  /** Numbers of 32 bits, the nearest of 16 bits in place of those that are beyond. */
  narrow: (a: Code, b: Code) => simd(0x85, a, b),
};

/** Numbers of 16 bits as bytes, the nearest of 0 to 255 in place of those that are beyond. */
export const narrowToBytes = (a: Code, b: Code) => simd(0x66, a, b);

export const f32x4 = {
  splat: (a: Code) => simd(0x13, a),
  sqrt: (a: Code) => simd(0xe3, a),
  add: (a: Code, b: Code) => simd(0xe4, a, b),
  sub: (a: Code, b: Code) => simd(0xe5, a, b),
  mul: (a: Code, b: Code) => simd(0xe6, a, b),
  div: (a: Code, b: Code) => simd(0xe7, a, b),
  abs: (a: Code) => simd(0xe0, a),
  /** The larger one, lane by lane, of numbers that are none of them NaN. */
  max: (a: Code, b: Code) => simd(0xeb, a, b),
  lane: (a: Code, lane: number): Code => [...simd(0x1f, a), lane],
};
