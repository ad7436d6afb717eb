import { describe, expect, test } from 'vitest';
import { add, concat, reduceSum } from '../graph/primitives.ts';
import { input } from '../graph/tensor.ts';
import { type Engine, float32, type SlotState } from './engine.ts';
import { createOrtEngine } from './ort.ts';
import { createReferenceEngine } from './reference.ts';

const engines: [string, Engine][] = [
  ['ONNX Runtime', createOrtEngine({ threads: 1 })],
  ['the reference', createReferenceEngine()],
];
const held = (slots: SlotState, slot: number) => Array.from(slots.read(slot, slots.length(slot)).data as Float32Array);

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
    expect([held(slots, 0), held(slots, 1)]).toEqual([
      [2, 3, 4, 5],
      [6, 7],
    ]);
    expect(await run(1, [1, 0], [1, 1, 0, 0], 1)).toEqual([15, 0]);
    expect([slots.length(1), slots.length(2)]).toEqual([2, 0]);
    expect(held(slots, 1)).toEqual([6, 2, 7, 2]);
    expect(held(slots, 0)).toEqual([2, 3, 4, 5]);
  });

  test('are copied, cut and emptied', async () => {
    const { slots, run } = await setUp();
    await run(0, [3], [1, 2, 3, 4, 5, 6], 3);
    slots.append(2, slots.read(0, 2));
    expect(held(slots, 2)).toEqual([2, 3, 5, 6]);
    slots.truncate(0, 1);
    expect(held(slots, 0)).toEqual([2, 5]);
    // what was cut away is zero for whoever reads the padding
    expect(await run(0, [0], [0, 0], 1)).toEqual([7]);
    slots.truncate(0, 0);
    expect(() => slots.truncate(0, 1)).toThrow(/cannot be cut/);
    expect(() => slots.read(2, 3)).toThrow(/has no 3/);
    expect(await run(2, [1], [1, 1], 1)).toEqual([18]);
  });

  test('keep what they hold when there is more room, and less', async () => {
    const { slots, run } = await setUp();
    await run(0, [1, 2], [1, 0, 2, 0, 3, 4, 5, 6], 2);
    const before = [held(slots, 0), held(slots, 1)];
    for (const [positions, capacity] of [
      [1000, 1024],
      [600, 1024],
      [300, 320],
      [1, 64],
    ]) {
      slots.reserve(positions);
      expect(slots.capacity).toBe(capacity);
      expect([held(slots, 0), held(slots, 1)]).toEqual(before);
    }
    await expect(run(0, [1], [1, 2, 3, 4], 1)).rejects.toThrow();
  });
});
