import { expect, test } from 'vitest';
import { assembleModule, constant, get, I32, i32x4, ifBelow, loopWhileBelow, plus, set, storeLane32 } from './wasm.ts';

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
