import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterAll, expect, test } from 'vitest';
import { UserError } from '../errors.ts';
import { resolvePath } from '../paths.ts';
import { openSafetensors, type StoredTensor, writeSafetensors } from '../weights/safetensors.ts';
import { openCheckpoint, saveCheckpoint } from './checkpoint.ts';

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

test('config fields that transformers takes as floats alone stay floats', async () => {
  const dir = join(root, 'floats');
  const vision_config = { layerscale_value: 1, initializer_factor: 1, num_hidden_layers: 1 };
  const text_config = { final_logit_softcapping: 30, attn_logit_softcapping: null, rms_norm_eps: 1e-6, note: '"layerscale_value": 1,' };
  await saveCheckpoint(dir, { config: { vision_config, text_config }, tensors: tensors(), dtype: 'F32' });
  const text = readFileSync(join(dir, 'config.json'), 'utf8');
  expect(text.match(/"(layerscale_value|initializer_factor|num_hidden_layers|final_logit_softcapping)": .+/g)).toEqual([
    '"layerscale_value": 1.0,',
    '"initializer_factor": 1.0,',
    '"num_hidden_layers": 1',
    '"final_logit_softcapping": 30.0,',
  ]);
  expect(JSON.parse(text)).toEqual({ vision_config, text_config });
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

test('weights go into shards by size, one tensor never divided, and read back the same', async () => {
  const dir = join(root, 'written-in-shards');
  const data = (length: number) => Float32Array.from({ length }, (_, i) => i / 7);
  const four = new Map([
    ['a', { shape: [10], data: data(10) }],
    ['b', { shape: [10], data: () => [data(10).subarray(0, 3), data(10).subarray(3)] }],
    ['large', { shape: [5, 20], data: data(100) }],
    ['c', { shape: [], data: data(1) }],
  ]);
  for (const [dtype, bytes] of [
    ['F32', 4],
    ['F16', 2],
    ['BF16', 2],
  ] as const) {
    await saveCheckpoint(dir, { config, tensors: four, dtype, maxShardSize: 20 * bytes });
    const index = JSON.parse(readFileSync(join(dir, 'model.safetensors.index.json'), 'utf8'));
    const shard = (n: number) => `model-0000${n}-of-00003.safetensors`;
    expect(index).toEqual({
      metadata: { total_size: 121 * bytes },
      weight_map: { a: shard(1), b: shard(1), large: shard(2), c: shard(3) },
    });
    expect(readdirSync(dir).sort()).toEqual(['config.json', shard(1), shard(2), shard(3), 'model.safetensors.index.json']);
    const whole = join(root, 'written-whole');
    await saveCheckpoint(whole, { config, tensors: four, dtype, maxShardSize: 121 * bytes });
    expect(readdirSync(whole).sort()).toEqual(['config.json', 'model.safetensors']);
    const [inShards, inOne] = [await openCheckpoint(dir), await openCheckpoint(whole)];
    expect(inShards.files.length).toBe(3);
    for (const name of four.keys()) {
      const values = await inShards.float32(name);
      expect(values).toEqual(await inOne.float32(name));
      const pieces: number[] = [];
      for await (const piece of inShards.float32Pieces(name)) pieces.push(...piece);
      expect(Float32Array.from(pieces)).toEqual(values);
      if (dtype === 'F32') expect(values).toEqual(data(values.length));
    }
    await inShards.close();
    await inOne.close();
  }
});

test('a checkpoint that is being written does not look like one', async () => {
  const dir = join(root, 'half-way');
  const seen: string[][] = [];
  const look = () => {
    expect(existsSync(dir)).toBe(false);
    seen.push(readdirSync(`${dir}.incomplete`).filter((name) => !name.includes('incomplete')));
    return [Float32Array.of(1)];
  };
  const looking = new Map(['a', 'b', 'c'].map((name) => [name, { shape: [1], data: look }]));
  await saveCheckpoint(dir, { config, tensors: looking, dtype: 'F32', maxShardSize: 4, files: { 'tokenizer.json': '{}' } });
  const shards = ['model-00001-of-00003.safetensors', 'model-00002-of-00003.safetensors'];
  expect(seen).toEqual([[], shards.slice(0, 1), shards]);
});

test('an output head that equals the embedding is known but not a tensor of its own', async () => {
  const dir = join(root, 'tied');
  const embedding = { shape: [2, 2], data: Float32Array.of(1, -0, 3, 4) };
  const save = (head: { shape: number[]; data: Float32Array }) =>
    saveCheckpoint(dir, {
      config,
      tensors: new Map([
        ['model.embed_tokens.weight', embedding],
        ['lm_head.weight', head],
      ]),
      dtype: 'BF16',
    });
  await save(embedding);
  const tied = await openCheckpoint(dir);
  expect(tied.names).toEqual(['model.embed_tokens.weight']);
  expect(tied.head).toEqual({ stored: 'lm_head.weight', embedding: 'model.embed_tokens.weight' });
  await tied.checkHead();
  await tied.close();
  for (const head of [
    { shape: [2, 2], data: Float32Array.of(1, -0, 3, 5) },
    { shape: [1, 2], data: Float32Array.of(1, -0) },
    { shape: [4], data: embedding.data },
  ]) {
    await save(head);
    const untied = await openCheckpoint(dir);
    await expect(untied.checkHead()).rejects.toThrow(`${dir}: lm_head.weight differs from model.embed_tokens.weight`);
    await untied.close();
  }
});

test('an index of any JSON is refused in a sentence, or names what is there', async () => {
  const dir = join(root, 'fuzzed');
  await saveCheckpoint(dir, { config, tensors: tensors(), dtype: 'F32', maxShardSize: 8 });
  const [shard] = readdirSync(dir).filter((name) => name.startsWith('model-00001'));
  const index = join(dir, 'model.safetensors.index.json');
  const fileName = fc.oneof(fc.constantFrom(shard, `./${shard}`, '..', '', 'config.json', '/etc/passwd', '..\\x'), fc.jsonValue());
  const name = fc.constantFrom('model.norm.weight', 'lm_head.weight', '__proto__', 'x');
  const map = fc.array(fc.tuple(name, fileName)).map((pairs) => ({ weight_map: Object.fromEntries(pairs) }));
  await fc.assert(
    fc.asyncProperty(fc.oneof(map, fc.jsonValue()), fc.nat(400), async (json, length) => {
      writeFileSync(index, JSON.stringify(json).slice(0, length));
      try {
        const checkpoint = await openCheckpoint(dir);
        for (const name of checkpoint.names) await checkpoint.float32(name);
        await checkpoint.close();
      } catch (error) {
        expect(error).toBeInstanceOf(UserError);
        expect((error as Error).message).not.toContain('\n');
      }
    }),
    { numRuns: 200 },
  );
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
  await expect(openCheckpoint(dir)).rejects.toThrow(/has pytorch_model\.bin, which is not read/);
  writeFileSync(join(dir, 'model.safetensors'), 'garbage');
  await expect(openCheckpoint(dir)).rejects.toThrow(/model\.safetensors: 7 bytes are too few/);
});

test('config.json may have a byte order mark; other encodings are named, and no message has two lines', async () => {
  const dir = join(root, 'encodings');
  await saveCheckpoint(dir, { config, tensors: tensors(), dtype: 'F32' });
  const file = join(dir, 'config.json');
  writeFileSync(file, `\ufeff${JSON.stringify(config)}`);
  const checkpoint = await openCheckpoint(dir);
  expect(checkpoint.config).toEqual(config);
  await checkpoint.close();
  const fault = async (content: string | Uint8Array) => {
    writeFileSync(file, content);
    return ((await openCheckpoint(dir).catch((error) => error)) as Error).message;
  };
  expect(await fault(Buffer.from('\ufeff{}', 'utf16le'))).toMatch(/config\.json: is in UTF-16/);
  expect(await fault(Buffer.from('{"a": "é"}', 'latin1'))).toMatch(/config\.json: line 1 is not UTF-8/);
  expect(await fault('x{\n\n"a": 1}')).toMatch(/^.*config\.json: not valid JSON: .*$/);
});

test.skipIf(process.platform === 'win32')('links that lead nowhere are told', async () => {
  const dir = join(root, 'links');
  await saveCheckpoint(dir, { config, tensors: tensors(), dtype: 'F32', maxShardSize: 8 });
  const shard = readdirSync(dir).find((name) => name.startsWith('model-00001'))!;
  for (const name of [shard, 'model.safetensors.index.json', 'config.json']) {
    rmSync(join(dir, name));
    symlinkSync(join(root, 'blob'), join(dir, name));
    await expect(openCheckpoint(dir)).rejects.toThrow(`${join(dir, name)}: it is a link to ${join(root, 'blob')}, where nothing is`);
  }
  symlinkSync('loop', join(root, 'loop'));
  expect(() => resolvePath(join(root, 'loop'), '--model')).toThrow(/^--model: .*loop: its links lead in a circle$/);
  symlinkSync('/no/where', join(root, 'dead'));
  expect(() => resolvePath(join(root, 'dead'), '--model')).toThrow(/dead: it is a link to \/no\/where, where nothing is$/);
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
