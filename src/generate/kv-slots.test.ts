import { expect, it } from 'vitest';
import { type Engine, float32 } from '../engine/engine.ts';
import { createReferenceEngine } from '../engine/reference.ts';
import type { LanguageConfig } from '../models/language.ts';
import { KvSlots } from './kv-slots.ts';

const config = { num_hidden_layers: 2, num_key_value_heads: 1, head_dim: 1 } as LanguageConfig;
const positions = 200;

it('begins a slot whole or not at all, with the same room for all layers', async () => {
  const engine = createReferenceEngine();
  let [states, isFull] = [0, false];
  const failing: Engine = {
    ...engine,
    slots(...how) {
      const state = engine.slots(...how);
      if (++states !== 3) return state;
      const begin = state.begin.bind(state);
      state.begin = (...how) => (isFull ? Promise.reject(new Error('no memory')) : begin(...how));
      return state;
    },
  };
  const slots = new KvSlots(failing, config, 2);
  const values = Float32Array.from({ length: positions }, (_, i) => i);
  for (const state of Object.values(slots.range(0, [positions]))) await state.write(float32(values, [1, 1, positions, 1]));
  const saved = await slots.save(0, positions);
  expect(saved.bytes).toBe(4 * positions * 4);
  slots.truncate(0, 0);
  slots.reserve(1);
  isFull = true;
  await expect(slots.begin(1, saved, positions)).rejects.toThrow('no memory');
  expect(slots.length(1)).toBe(0);
  for (const state of Object.values(slots.range(0, [0, 0]))) expect(state.dims).toEqual([2, 1, 0, 1]);
  isFull = false;
  await slots.begin(1, saved, 130);
  const dims = Object.values(slots.range(0, [0, 0])).map((state) => state.dims);
  expect(dims).toEqual(new Array(4).fill([2, 1, slots.capacity, 1]));
});
