import { expect, test } from 'vitest';
import {
  assembleModule,
  constant,
  f32,
  f32x4,
  get,
  I32,
  i32x4,
  ifBelow,
  load,
  load8,
  load16,
  loopWhileBelow,
  plus,
  select,
  set,
  shiftLeft,
  store8,
  storeLane32,
} from './wasm.ts';

interface Exports {
  memory: WebAssembly.Memory;
  [name: string]: unknown;
}

const start = (functions: Parameters<typeof assembleModule>[0]) =>
  new WebAssembly.Instance(assembleModule(functions, 1)).exports as unknown as Exports;

const numbers = [0, 1, -1, 63, 64, -64, -65, 127, 128, 8191, 8192, -8192, -8193, 2 ** 31 - 1, -(2 ** 31)];

test.each(numbers)('the constant %i is that number', (number) => {
  const { memory, write } = start({
    write: { parameters: [], locals: [], body: [storeLane32(constant(8), 4, i32x4.splat(constant(number)))] },
  });
  (write as () => void)();
  expect(new Int32Array(memory.buffer)[3]).toBe(number);
});

test('functions are called by their names, and count in loops and branches', () => {
  const [end, at] = [0, 1];
  const mark = (value: number) => [storeLane32(get(at), 0, i32x4.splat(constant(value))), set(at, plus(get(at), constant(4)))];
  const { memory, always, ifAny } = start({
    always: { parameters: [I32], locals: [I32], body: [loopWhileBelow(get(at), get(end), mark(7))] },
    ifAny: { parameters: [I32], locals: [I32], body: [ifBelow(get(at), get(end), [loopWhileBelow(get(at), get(end), mark(9))])] },
  });
  const words = new Int32Array(memory.buffer);
  (ifAny as (end: number) => void)(0);
  expect([...words.subarray(0, 4)]).toEqual([0, 0, 0, 0]);
  (always as (end: number) => void)(8);
  expect([...words.subarray(0, 4)]).toEqual([7, 7, 0, 0]);
  (ifAny as (end: number) => void)(12);
  expect([...words.subarray(0, 4)]).toEqual([9, 9, 9, 0]);
});

test('single bytes and floats are loaded, computed with and stored', () => {
  const at = constant(0);
  const largest = f32x4.max(f32x4.abs(load(at, 16)), f32x4.splat(f32.constant(2.5)));
  const { memory, run } = start({
    run: {
      parameters: [],
      locals: [],
      body: [
        store8(at, 64, plus(load8(at, 1), constant(1))),
        store8(at, 65, shiftLeft(load16(at, 2), 1)),
        f32.store(at, 68, f32.mul(f32.load(at, 16), f32.constant(-0.5))),
        f32.store(at, 72, f32.max(f32x4.lane(largest, 0), f32x4.lane(largest, 3))),
        store8(at, 76, f32.greater(f32.load(at, 16), f32.load(at, 20))),
        f32.store(at, 80, select(f32.greater(f32.load(at, 20), f32.load(at, 16)), f32.constant(1), f32.constant(7))),
      ],
    },
  });
  const [bytes, floats] = [new Uint8Array(memory.buffer), new Float32Array(memory.buffer)];
  bytes.set([0, 200, 0x12, 0x00]);
  floats.set([3, -8, 0, -5], 4);
  (run as () => void)();
  expect([bytes[64], bytes[65], bytes[76]]).toEqual([201, 0x24, 1]);
  expect([floats[17], floats[18], floats[20]]).toEqual([-1.5, 5, 7]);
});
