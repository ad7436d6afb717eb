import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { afterAll, describe, expect, test } from 'vitest';
import { attention, maskBias } from '../graph/composites.ts';
import { type Dim, dimProduct } from '../graph/dims.ts';
import { grad } from '../graph/grad.ts';
import { add, cast, concat, lessOrEqual, matmul, mul, reduceSum, reshape, scatterAdd, tanh, transpose } from '../graph/primitives.ts';
import { input, type Tensor } from '../graph/tensor.ts';
import { createRandom } from '../random.ts';
import { type Constant, float32, int32, type Value } from './engine.ts';
import { createOrtEngine } from './ort.ts';
import { createReferenceEngine } from './reference.ts';

const random = createRandom(5);
const noise = (...dims: number[]) =>
  float32(
    Float32Array.from({ length: dims.reduce((a, b) => a * b, 1) }, () => random.normal()),
    dims,
  );
const ort = createOrtEngine({ threads: 2 });

function expectClose(actual: Record<string, Value>, expected: Record<string, Value>) {
  expect(Object.keys(actual).sort()).toEqual(Object.keys(expected).sort());
  for (const [name, { dims, data }] of Object.entries(expected)) {
    expect([...actual[name].dims], name).toEqual([...dims]);
    const scale = (data as Float32Array).reduce((max, v) => Math.max(max, Math.abs(v)), 1);
    (data as Float32Array).forEach((v, i) => {
      const error = Math.abs((actual[name].data[i] as number) - v);
      if (!(error <= 1e-5 * scale)) expect.fail(`${name}[${i}] is ${actual[name].data[i]}, expected ${v}`);
    });
  }
}

test('gradients of wide weights, whose operands are transposed before the product', async () => {
  const x = input('x', 'float32', ['rows', 512]);
  const weights = { up: input('up', 'float32', [640, 512]), down: input('down', 'float32', [512, 640]) };
  const hidden = tanh(matmul(x, weights.up, { transB: true }));
  const y = matmul(hidden, weights.down, { transB: true });
  const [up, down] = grad(reduceSum(mul(y, y), [0, 1]), [weights.up, weights.down]);
  const values = { x: noise(3, 512), up: noise(640, 512), down: noise(512, 640) };
  const outputs = { dup: up, ddown: down };
  const reference = await createReferenceEngine().compile(outputs);
  expectClose(await (await ort.compile(outputs)).run(values), await reference.run(values));
});

/** One attention layer over a cache with its gradient: named dims in products and sums. */
function cachedAttention() {
  const x = input('x', 'float32', ['batch', 'tokens', 8]);
  const pastKeys = input('past_keys', 'float32', ['batch', 2, 'past', 4]);
  const weight = input('weight', 'float32', [8, 8]);
  const heads = (t: Tensor, dims: Dim[]) => transpose(reshape(t, dims), [0, 2, 1, 3]);
  const q = heads(matmul(x, weight, { transB: true }), ['batch', 'tokens', 2, 4]);
  const keys = concat([pastKeys, q], 2);
  const y = reshape(transpose(attention(q, keys, keys, { scale: 0.5 }), [0, 2, 1, 3]), [dimProduct(['batch', 'tokens']), 8]);
  return { y, keys: reshape(keys, ['batch', 2, dimProduct([keys.dims[2], 2]), 2]) };
}

describe('named dims', () => {
  test('one program serves every size', async () => {
    const x = input('x', 'float32', ['batch', 'tokens', 6]);
    const weight = input('weight', 'float32', [6, 6]);
    const order = input('positions', 'int32', ['tokens']);
    const split = (t: Tensor) => transpose(reshape(t, ['batch', 'tokens', 2, 3]), [0, 2, 1, 3]);
    const causal = lessOrEqual(reshape(order, [1, 'tokens']), reshape(order, ['tokens', 1]));
    const q = split(matmul(x, weight, { transB: true }));
    const y = attention(q, q, q, { scale: 0.6, bias: maskBias(causal) });
    const loss = reduceSum(mul(y, y), [0, 1, 2, 3]);
    const [dx, dweight] = grad(loss, [x, weight]);
    const outputs = { y, flat: reshape(y, [dimProduct(['batch', 2, 'tokens', 3])]), dx, dweight };
    const program = await ort.compile(outputs);
    const oracle = await createReferenceEngine().compile(outputs);
    for (const [batch, tokens] of [
      [2, 3],
      [1, 5],
      [3, 1],
      [2, 3],
    ]) {
      const values = { x: noise(batch, tokens, 6), weight: noise(6, 6), positions: int32([...Array(tokens).keys()], [tokens]) };
      expectClose(await program.run(values), await oracle.run(values));
    }
    await program.dispose();
  });

  test('sums of names, as in a key-value cache', async () => {
    const outputs = cachedAttention();
    expect(outputs.keys.dims).toEqual(['batch', 2, '2*past+2*tokens', 2]);
    const program = await ort.compile(outputs);
    const oracle = await createReferenceEngine().compile(outputs);
    for (const [batch, past, tokens] of [
      [2, 3, 4],
      [3, 7, 1],
    ]) {
      const values = { x: noise(batch, tokens, 8), past_keys: noise(batch, 2, past, 4), weight: noise(8, 8) };
      expectClose(await program.run(values), await oracle.run(values));
    }
    await program.dispose();
  });
});

describe('fixed inputs', () => {
  const x = input('x', 'float32', ['batch', 5]);
  const w1 = input('w1', 'float32', [7, 5]);
  const w2 = input('w2', 'float32', [3, 7]);
  const rows = input('rows', 'int32', [2]);
  const outputs = { y: matmul(tanh(matmul(x, w1, { transB: true })), w2, { transB: true }), doubled: mul(cast(rows, 'float32'), 2) };
  const weights = { w1: noise(7, 5), w2: noise(3, 7), rows: int32([3, 4], [2]) };

  test('give the same as inputs', async () => {
    const values = { x: noise(4, 5) };
    const free = await ort.compile(outputs);
    const bound = await ort.compile(outputs, { constants: new Map(Object.entries(weights)) });
    expect([...free.inputNames].sort()).toEqual(['rows', 'w1', 'w2', 'x']);
    expect(bound.inputNames).toEqual(['x']);
    expectClose(await bound.run(values), await free.run({ ...values, ...weights }));
    await free.dispose();
    await bound.dispose();
  });

  test('are checked and named', async () => {
    const compile = (constants: Record<string, Value>) => ort.compile(outputs, { constants: new Map(Object.entries(constants)) });
    await expect(compile({ ...weights, w1: noise(5, 7) })).rejects.toThrow('input w1 is float32 [5,7], expected float32 [7, 5]');
  });
});

test('only the outputs that are asked for are returned', async () => {
  const x = input('x', 'float32', ['batch', 3]);
  const program = await ort.compile({ sum: add(x, 1), product: mul(x, 2) });
  expect(program.outputNames).toEqual(['sum', 'product']);
  const values = { x: noise(2, 3) };
  expect(Object.keys(await program.run(values, { outputs: ['product'] }))).toEqual(['product']);
  expectClose(await program.run(values, { outputs: ['sum'] }), { sum: (await program.run(values)).sum });
  await program.dispose();
});

describe('fixed inputs in files', () => {
  const folder = mkdtempSync(join(tmpdir(), 'ort-files-'));
  afterAll(() => rmSync(folder, { recursive: true, force: true }));
  const x = input('x', 'float32', ['batch', 4]);
  const [w, v] = ['w', 'v'].map((name) => input(name, 'float32', [3, 4]));
  const outputs = { y: matmul(x, w, { transB: true }), z: matmul(x, v, { transB: true }) };
  const values = { x: noise(2, 4) };
  const weights = { w: noise(3, 4), v: noise(3, 4) };
  const stored = (name: 'w' | 'v', path: string, offset: number) => {
    const { data } = weights[name];
    mkdirSync(dirname(path), { recursive: true });
    writeFileSync(path, Buffer.concat([Buffer.alloc(offset), Buffer.from(data.buffer, data.byteOffset, data.byteLength)]));
    return { dtype: 'float32' as const, dims: [3, 4], path, offset };
  };

  test('give the same as in memory, from several folders and through a link', async () => {
    const linked = join(folder, 'link.bin');
    const real = stored('v', join(folder, 'b', 'c', 'v.bin'), 20);
    symlinkSync(real.path, linked);
    const constants = new Map([
      ['w', stored('w', join(folder, 'a', 'w.bin'), 8)],
      ['v', { ...real, path: linked }],
    ]);
    const program = await ort.compile(outputs, { constants });
    const inMemory = await ort.compile(outputs, { constants: new Map(Object.entries(weights)) });
    expectClose(await program.run(values), await inMemory.run(values));
    await program.dispose();
    await inMemory.dispose();
  });

  test('mix with those in memory, small and large', async () => {
    const rows = 300_000;
    const wide = input('wide', 'float32', [rows, 1]);
    const mixed = { ...outputs, sum: add(reduceSum(mul(wide, wide), [0, 1]), reduceSum(x, [0, 1])) };
    const column = float32(new Float32Array(rows).fill(2), [rows, 1]);
    const constants = new Map<string, Constant>([
      ['w', stored('w', join(folder, 'w.bin'), 0)],
      ['v', weights.v],
      ['wide', column],
    ]);
    const program = await ort.compile(mixed, { constants });
    expect(program.inputNames).toEqual(['x']);
    const inMemory = await ort.compile(mixed, { constants: new Map([...Object.entries(weights), ['wide', column]]) });
    expectClose(await program.run(values), await inMemory.run(values));
    await program.dispose();
    await inMemory.dispose();
  });

  test('a file that is too short is refused', async () => {
    const short = new Map([
      ['w', stored('w', join(folder, 'w.bin'), 0)],
      ['v', { ...stored('v', join(folder, 'short.bin'), 0), offset: 4 }],
    ]);
    await expect(ort.compile(outputs, { constants: short })).rejects.toThrow();
  });
});

describe('wrong inputs are named', () => {
  const a = input('pixel_values', 'float32', ['batch', 3]);
  const b = input('input_ids', 'int32', ['batch']);
  const y = add(a, reshape(cast(b, 'float32'), ['batch', 1]));
  const good = { pixel_values: noise(2, 3), input_ids: int32([1, 2], [2]) };
  const cases: [string, Record<string, Value>, string][] = [
    ['missing', { pixel_values: good.pixel_values }, 'input input_ids is missing'],
    ['size', { ...good, pixel_values: noise(2, 4) }, 'input pixel_values is float32 [2,4], expected float32 [batch, 3]'],
    ['rank', { ...good, pixel_values: noise(6) }, 'input pixel_values is float32 [6], expected float32 [batch, 3]'],
    ['dtype', { ...good, input_ids: noise(2) }, 'input input_ids is float32 [2], expected int32 [batch]'],
    ['elements', { ...good, input_ids: int32([1], [2]) }, 'input input_ids: 1 elements do not fill [2]'],
    [
      'names',
      { ...good, input_ids: int32([1, 2, 3], [3]) },
      'input input_ids is int32 [3], expected int32 [batch], and batch is 2 in pixel_values',
    ],
  ];
  test.each(cases)('%s', async (_, values, message) => {
    const program = await ort.compile({ y });
    await expect(program.run(values)).rejects.toThrow(message);
    await program.dispose();
  });
});

describe('names', () => {
  test('an output may be an input, or the same tensor as another output', async () => {
    const x = input('x', 'float32', [2]);
    const y = mul(x, 2);
    const program = await ort.compile({ a: x, b: y, c: y });
    const { a, b, c } = await program.run({ x: float32([1, 2], [2]) });
    expect([a, b, c].map((value) => [...(value.data as Float32Array)])).toEqual([
      [1, 2],
      [2, 4],
      [2, 4],
    ]);
    await program.dispose();
  });

  test('an output that is named like an input is refused', async () => {
    const x = input('x', 'float32', [2]);
    await expect(ort.compile({ x: mul(x, 2) })).rejects.toThrow('output x has the name of an input');
  });
});

describe('determinism', () => {
  test('scatterAdd with many duplicate rows gives the same bits every time', async () => {
    const indices = input('indices', 'int32', ['rows']);
    const updates = input('updates', 'float32', ['rows', 64]);
    const program = await ort.compile({ y: scatterAdd(indices, updates, [8, 64]) });
    const values = {
      indices: int32(
        Int32Array.from({ length: 4096 }, () => random.integer(8)),
        [4096],
      ),
      updates: noise(4096, 64),
    };
    const first = (await program.run(values)).y.data as Float32Array;
    for (let i = 0; i < 20; i++)
      expect(Buffer.compare(bytes((await program.run(values)).y), bytes({ ...float32(first, [8, 64]) }))).toBe(0);
    await program.dispose();
  });

  test('a training step gives the same bits every time', async () => {
    const x = input('x', 'float32', ['rows', 128]);
    const weight = input('weight', 'float32', [128, 128]);
    const y = tanh(matmul(x, weight, { transB: true }));
    const [dweight] = grad(reduceSum(mul(y, y), [0, 1]), [weight]);
    const program = await ort.compile({ dweight });
    const values = { x: noise(512, 128), weight: noise(128, 128) };
    const first = bytes((await program.run(values)).dweight);
    for (let i = 0; i < 20; i++) expect(Buffer.compare(bytes((await program.run(values)).dweight), first)).toBe(0);
    await program.dispose();
  });
});

function bytes({ data }: Value): Uint8Array {
  return new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
}
