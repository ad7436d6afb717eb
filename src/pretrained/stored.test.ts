import { mkdtempSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { openCheckpoint, saveCheckpoint } from '../checkpoint/checkpoint.ts';
import type { Constant } from '../engine/engine.ts';
import { createOrtEngine } from '../engine/ort.ts';
import { add } from '../graph/primitives.ts';
import { input } from '../graph/tensor.ts';
import { constantSource, float32Of, readStored } from './stored.ts';

const dims = [2, 3];
const name = 'language_model.model.norm.weight';

test('weights that stay in their file are not those of another file in its place', async () => {
  const folder = join(mkdtempSync(join(tmpdir(), 'stored-')), 'model');
  const save = (value: number) =>
    saveCheckpoint(folder, {
      config: {},
      dtype: 'F32',
      tensors: new Map([[name, { shape: dims, data: new Float32Array(6).fill(value) }]]),
    });
  const read = async () => {
    const checkpoint = await openCheckpoint(folder);
    const [{ constants }] = await readStored(checkpoint, [{ name, dims }], { inFiles: true });
    await checkpoint.close();
    return constants.get(name)!;
  };
  const engine = createOrtEngine({ threads: 1 });
  const sum = async (constant: Constant) => {
    const program = await engine.compile({ y: add(input(name, 'float32', dims), 1) }, { constants: new Map([[name, constant]]) });
    const { y } = await program.run({});
    await program.dispose();
    return y.data[0];
  };
  await save(1);
  const first = await read();
  expect('path' in first).toBe(true);
  expect([(await float32Of(first)).data[0], await sum(first)]).toEqual([1, 2]);

  // a run that goes on saves its checkpoint anew, of the same layout
  await save(5);
  const changed = /model\.safetensors: has changed since it was read; start again$/;
  await expect(float32Of(first)).rejects.toThrow(changed);
  await expect(sum(first)).rejects.toThrow(changed);
  const pieces = constantSource(first).data as () => AsyncIterable<Uint8Array>;
  await expect(pieces()[Symbol.asyncIterator]().next()).rejects.toThrow(changed);
  const second = await read();
  expect([(await float32Of(second)).data[0], await sum(second)]).toEqual([5, 6]);
});
