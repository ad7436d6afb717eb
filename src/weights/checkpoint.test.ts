import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, expect, test } from 'vitest';
import { UserError } from '../errors.ts';
import { openCheckpoint, saveCheckpoint } from './checkpoint.ts';
import { openSafetensors, type StoredTensor, writeSafetensors } from './safetensors.ts';

const root = mkdtempSync(join(tmpdir(), 'checkpoint-'));
afterAll(() => rmSync(root, { recursive: true }));

const config = { model_type: 'llava', text_config: { hidden_size: 2 } };
const tensors = () =>
  new Map([
    ['model.norm.weight', { shape: [2], data: Float32Array.of(0.1, -2) }],
    ['lm_head.weight', { shape: [2, 2], data: Float32Array.of(1, 2, 3, 65504) }],
  ]);

test.each(['F32', 'F16', 'BF16'] as const)('a folder saved as %s is read back as float32', async (dtype) => {
  const dir = join(root, `saved-${dtype}`);
  await saveCheckpoint(dir, { config, tensors: tensors(), dtype, files: { 'tokenizer.json': '{}', 'state.bin': Uint8Array.of(1, 2) } });
  expect(readdirSync(dir).sort()).toEqual(['config.json', 'model.safetensors', 'state.bin', 'tokenizer.json']);
  const checkpoint = await openCheckpoint(dir);
  expect(checkpoint.config).toEqual(config);
  expect(checkpoint.names.sort()).toEqual(['lm_head.weight', 'model.norm.weight']);
  expect(checkpoint.shape('lm_head.weight')).toEqual([2, 2]);
  const values = await checkpoint.float32('model.norm.weight');
  expect(values[1]).toBe(-2);
  expect(values[0]).toBeCloseTo(0.1, dtype === 'F32' ? 8 : 3);
  expect(checkpoint.has('no')).toBe(false);
  expect(() => checkpoint.shape('no')).toThrow(/has no tensor "no"/);
  await checkpoint.close();
  const file = await openSafetensors(join(dir, 'model.safetensors'));
  expect(file.metadata).toEqual({ format: 'pt' });
  expect(file.info('model.norm.weight').dtype).toBe(dtype);
  await file.close();
});

test('saving again replaces the folder; the same weights give the same bytes', async () => {
  const dir = join(root, 'again');
  await saveCheckpoint(dir, { config, tensors: tensors(), dtype: 'BF16', files: { old: 'x' } });
  const first = readFileSync(join(dir, 'model.safetensors'));
  await saveCheckpoint(dir, { config, tensors: new Map([...tensors()].reverse()), dtype: 'BF16' });
  expect(readdirSync(dir).sort()).toEqual(['config.json', 'model.safetensors']);
  expect(readFileSync(join(dir, 'model.safetensors')).equals(first)).toBe(true);
  expect(readdirSync(root).filter((name) => name.startsWith('again'))).toEqual(['again']);
});

test('what a killed run left behind is not taken for a checkpoint and is cleared by the next save', async () => {
  const dir = join(root, 'killed');
  mkdirSync(`${dir}.incomplete`);
  writeFileSync(join(`${dir}.incomplete`, 'config.json'), '{}');
  expect(existsSync(dir)).toBe(false);
  await saveCheckpoint(dir, { config, tensors: tensors(), dtype: 'F32' });
  expect(existsSync(`${dir}.incomplete`)).toBe(false);
});

test('a save that fails leaves neither the folder nor its half, and an older folder stays', async () => {
  const bad = new Map([['w', { shape: [3], data: Float32Array.of(1) }]]);
  const fresh = join(root, 'failed');
  await expect(saveCheckpoint(fresh, { config, tensors: bad, dtype: 'F32' })).rejects.toThrow(/tensor "w"/);
  expect(readdirSync(root).filter((name) => name.startsWith('failed'))).toEqual([]);
  await saveCheckpoint(fresh, { config, tensors: tensors(), dtype: 'F32' });
  await expect(saveCheckpoint(fresh, { config, tensors: bad, dtype: 'F32' })).rejects.toThrow(UserError);
  await (await openCheckpoint(fresh)).close();
  await expect(saveCheckpoint(fresh, { config, tensors: tensors(), dtype: 'F32', files: { '../x': '' } })).rejects.toThrow(
    /cannot be saved/,
  );
});

test('shards are found by the index, other files in the folder are not looked at', async () => {
  const dir = join(root, 'sharded');
  mkdirSync(dir);
  const tensor = (value: number): StoredTensor => ({ dtype: 'F32', shape: [1], data: new Uint8Array(Float32Array.of(value).buffer) });
  await writeSafetensors(join(dir, 'model-00001-of-00002.safetensors'), new Map([['a', tensor(1)]]));
  await writeSafetensors(join(dir, 'model-00002-of-00002.safetensors'), new Map([['b', tensor(2)]]));
  writeFileSync(join(dir, 'model-00001-of-00003.safetensors'), 'another set, half downloaded');
  writeFileSync(join(dir, 'config.json'), '{}');
  const index = join(dir, 'model.safetensors.index.json');
  const weightMap = (map: unknown) => writeFileSync(index, JSON.stringify({ weight_map: map }));
  weightMap({ a: 'model-00001-of-00002.safetensors', b: 'model-00002-of-00002.safetensors' });
  const checkpoint = await openCheckpoint(dir);
  expect(checkpoint.names).toEqual(['a', 'b']);
  expect((await checkpoint.float32('b'))[0]).toBe(2);
  await checkpoint.close();

  weightMap({ c: 'model-00001-of-00002.safetensors' });
  await expect(openCheckpoint(dir)).rejects.toThrow(/00001-of-00002\.safetensors: it has no tensor "c"/);
  weightMap({ a: '../model.safetensors' });
  await expect(openCheckpoint(dir)).rejects.toThrow(/which is not a file name/);
  weightMap(3);
  await expect(openCheckpoint(dir)).rejects.toThrow(/no "weight_map" object/);
});

test('missing and broken parts are named', async () => {
  await expect(openCheckpoint(join(root, 'nowhere'))).rejects.toThrow(/nowhere: no such folder/);
  const dir = join(root, 'broken');
  mkdirSync(dir);
  await expect(openCheckpoint(dir)).rejects.toThrow(/config\.json: no such file/);
  writeFileSync(join(dir, 'config.json'), '{');
  await expect(openCheckpoint(dir)).rejects.toThrow(/config\.json: not valid JSON/);
  writeFileSync(join(dir, 'config.json'), '{}');
  writeFileSync(join(dir, 'pytorch_model.bin'), '');
  await expect(openCheckpoint(dir)).rejects.toThrow(/neither model\.safetensors nor .*pytorch_model\.bin is not read/);
  writeFileSync(join(dir, 'model.safetensors'), 'garbage');
  await expect(openCheckpoint(dir)).rejects.toThrow(/model\.safetensors: 7 bytes are too few/);
});

test('integers are not weights', async () => {
  const dir = join(root, 'integers');
  mkdirSync(dir);
  writeFileSync(join(dir, 'config.json'), '{}');
  await writeSafetensors(
    join(dir, 'model.safetensors'),
    new Map([['position_ids', { dtype: 'I64', shape: [1], data: new Uint8Array(8) }]]),
  );
  const checkpoint = await openCheckpoint(dir);
  await expect(checkpoint.float32('position_ids')).rejects.toThrow(/tensor "position_ids": expected a float tensor, found I64/);
  await checkpoint.close();
});
