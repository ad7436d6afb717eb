// Slots of a batch on every engine: what they hold, copies of it, and what other engines' are refused.

import { describe, expect, test } from 'vitest';
import { type Engine, float32, type SavedSlot, type SlotState } from '../src/engine/engine.ts';
import { createOrtEngine } from '../src/engine/ort.ts';
import { createReferenceEngine } from '../src/engine/reference.ts';
import { add, concat, reduceSum } from '../src/graph/primitives.ts';
import { input } from '../src/graph/tensor.ts';
import { webgpu } from './webgpu.ts';

const engines: [string, Engine][] = [
  ['ONNX Runtime', createOrtEngine({ threads: 1 })],
  ['the reference', createReferenceEngine()],
  ...(webgpu ? [['WebGPU', webgpu] satisfies [string, Engine]] : []),
];

/** What a slot holds, run by run; what is not filled is zero. */
async function held(slots: SlotState, slot: number): Promise<number[]> {
  const { dims, data } = await slots.range(slot, [0]).read();
  const length = slots.length(slot);
  const runs = Array.from({ length: 2 }, (_, run) => Array.from((data as Float32Array).subarray(run * dims[2], (run + 1) * dims[2])));
  for (const run of runs) expect(run.slice(length).every((number) => number === 0)).toBe(true);
  return runs.flatMap((run) => run.slice(0, length));
}

describe.each(engines)('slots of %s', (_, engine) => {
  /** Adds up what is there, and appends x + 1: [slots, 2 runs, positions, 1]. */
  async function setUp() {
    const x = input('x', 'float32', ['rows', 2, 'tokens', 1]);
    const past = input('past', 'float32', ['rows', 2, 'past', 1]);
    const program = await engine.compile(
      { sum: reduceSum(concat([past, x], 2), [1, 2, 3]) },
      { writes: { past: { mode: 'append', tensor: add(x, 1) } } },
    );
    const slots = engine.slots('float32', [4, 2, 0, 1], 2);
    const run = async (first: number, kept: readonly number[], values: number[], tokens: number) =>
      Array.from(
        (await program.run({ x: float32(values, [kept.length, 2, tokens, 1]) }, { state: { past: slots.range(first, kept) } })).sum
          .data as Float32Array,
      );
    return { slots, run };
  }

  test('grow each by itself, and what is not kept is not there', async () => {
    const { slots, run } = await setUp();
    expect([slots.count, slots.length(0), slots.capacity]).toEqual([4, 0, 0]);
    // the second row has one token, and one of padding
    expect(await run(0, [2, 1], [1, 2, 3, 4, 5, 99, 6, 99], 2)).toEqual([10, 209]);
    expect([await held(slots, 0), await held(slots, 1)]).toEqual([
      [2, 3, 4, 5],
      [6, 7],
    ]);
    expect(await run(1, [1, 0], [1, 1, 0, 0], 1)).toEqual([15, 0]);
    expect([slots.length(1), slots.length(2)]).toEqual([2, 0]);
    expect(await held(slots, 1)).toEqual([6, 2, 7, 2]);
    expect(await held(slots, 0)).toEqual([2, 3, 4, 5]);
  });

  test('are copied, cut and emptied', async () => {
    const { slots, run } = await setUp();
    await run(0, [3], [1, 2, 3, 4, 5, 6], 3);
    await slots.begin(2, 0, 2);
    expect(await held(slots, 2)).toEqual([2, 3, 5, 6]);
    slots.truncate(0, 1);
    expect(await held(slots, 0)).toEqual([2, 5]);
    // what was cut away is zero for whoever reads the padding
    expect(await run(0, [0], [0, 0], 1)).toEqual([7]);
    slots.truncate(0, 0);
    expect(() => slots.truncate(0, 1)).toThrow(/has no 1/);
    await expect(slots.save(2, 3)).rejects.toThrow(/has no 3/);
    expect(await run(2, [1], [1, 1], 1)).toEqual([18]);
  });

  test('are saved, and begun with what was', async () => {
    const { slots, run } = await setUp();
    await run(0, [3], [1, 2, 3, 4, 5, 6], 3);
    const saved = await slots.save(0, 3);
    const empty = await slots.save(1, 0);
    expect([saved.bytes, empty.bytes]).toEqual([24, 0]);
    // a copy, whatever becomes of the slot
    slots.truncate(0, 0);
    await run(0, [1], [7, 7], 1);
    await slots.begin(3, saved, 2);
    expect([await held(slots, 0), await held(slots, 3)]).toEqual([
      [8, 8],
      [2, 3, 5, 6],
    ]);
    await expect(slots.begin(3, saved, 2)).rejects.toThrow(/has no 2/);
    await expect(slots.begin(2, saved, 4)).rejects.toThrow(/of 3 positions has no 4/);
    await expect(slots.begin(2, 1, 1)).rejects.toThrow(/of 0 positions has no 1/);
    await slots.begin(2, empty, 0);
    await slots.begin(2, saved, 3);
    expect(await run(2, [1, 1], [1, 2, 3, 4], 1)).toEqual([30, 23]);
    saved.dispose();
    expect(await held(slots, 2)).toEqual([2, 3, 4, 2, 5, 6, 7, 3]);
    await expect(slots.begin(0, { bytes: 0, dispose() {} } satisfies SavedSlot, 0)).rejects.toThrow();
  });

  test('take values from outside', async () => {
    const { slots } = await setUp();
    const range = slots.range(1, [2, 1]);
    await range.write(float32([1, 2, 3, 4, 5, 6, 7, 8], [2, 2, 2, 1]));
    expect([await held(slots, 1), await held(slots, 2)]).toEqual([
      [1, 2, 3, 4],
      [5, 7],
    ]);
    await expect(range.write(float32([1], [1, 1, 1, 1]))).rejects.toThrow(/cannot take/);
    range.clear();
    expect([slots.length(1), slots.length(2)]).toEqual([0, 0]);
  });

  test('keep what they hold when there is more room, and less', async () => {
    const { slots, run } = await setUp();
    await run(0, [1, 2], [1, 0, 2, 0, 3, 4, 5, 6], 2);
    const before = [await held(slots, 0), await held(slots, 1)];
    for (const [positions, capacity] of [
      [1000, 1024],
      [600, 1024],
      [300, 320],
      [1, 64],
    ]) {
      slots.reserve(positions);
      expect(slots.capacity).toBe(capacity);
      expect([await held(slots, 0), await held(slots, 1)]).toEqual(before);
    }
    await expect(run(0, [1], [1, 2, 3, 4], 1)).rejects.toThrow();
  });
});
