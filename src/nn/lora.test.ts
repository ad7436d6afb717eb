import { describe, expect, test } from 'vitest';
import { float32, int32, type Value } from '../engine/engine.ts';
import { createOrtEngine } from '../engine/ort.ts';
import { createReferenceEngine } from '../engine/reference.ts';
import { grad } from '../graph/grad.ts';
import { mul, reduceSum } from '../graph/primitives.ts';
import { input } from '../graph/tensor.ts';
import { createRandom } from '../random.ts';
import { linear } from './layers.ts';
import { downName, dropoutMask, loraScale, mergedWeight, oddNumber, upName, weightName } from './lora.ts';
import { Parameters } from './parameters.ts';

const engines = [createOrtEngine({ threads: 1 }), createReferenceEngine()];

function normals(seed: number, ...dims: number[]): Value {
  const random = createRandom(seed);
  return float32(
    Float32Array.from({ length: dims.reduce((a, b) => a * b) }, () => random.normal()),
    dims,
  );
}

test('the scale is that of peft, with and without rank stabilization', () => {
  expect(loraScale(16, 32, false)).toBe(2);
  expect(loraScale(16, 32, true)).toBe(8);
});

test.each(engines)('an adapter does what the merged weight does, on $name', async (engine) => {
  const p = new Parameters({ adapters: (module) => (module === 'a' ? { rank: 2, scale: 0.7 } : undefined) });
  const x = input('x', 'float32', ['batch', 'tokens', 5]);
  const outputs = { adapted: linear(p, 'a', x, 4, { bias: true }), plain: linear(p, 'b', x, 4, { bias: true }) };
  expect(p.list().map(({ name }) => name)).toEqual(['a.weight', 'a.bias', downName('a'), upName('a'), 'b.weight', 'b.bias']);
  const weight = input('w', 'float32', [4, 5]);
  const merged = mergedWeight(weight, input('down', 'float32', [2, 5]), input('up', 'float32', [4, 2]), 0.7);
  const [w, bias, down, up] = [normals(1, 4, 5), normals(2, 4), normals(3, 2, 5), normals(4, 4, 2)];
  const merger = await engine.compile({ merged });
  const ownWeight = (await merger.run({ w, down, up })).merged;
  const program = await engine.compile(outputs);
  const { adapted, plain } = await program.run({
    x: normals(5, 2, 3, 5),
    [weightName('a')]: w,
    'a.bias': bias,
    [downName('a')]: down,
    [upName('a')]: up,
    [weightName('b')]: ownWeight,
    'b.bias': bias,
  });
  (adapted.data as Float32Array).forEach((value, i) => {
    expect(value).toBeCloseTo(plain.data[i] as number, 5);
  });
  await merger.dispose();
  await program.dispose();
});

test('a fresh adapter changes nothing: B is zero, and A is as peft draws it', () => {
  const p = new Parameters({ adapters: () => ({ rank: 2, scale: 1 }) });
  linear(p, 'a', input('x', 'float32', [1, 16]), 4);
  const [, down, up] = p.list();
  expect(up.initializer).toEqual({ kind: 'zeros' });
  expect(down.initializer).toEqual({ kind: 'uniform', bound: 1 / 4 });
});

describe('dropout', () => {
  const [rowCount, columns, rate] = [400, 300, 0.2];
  const random = createRandom(3);
  const rows = int32(
    Int32Array.from({ length: rowCount }, () => oddNumber(random)),
    [rowCount, 1],
  );
  const x = input('x', 'float32', [rowCount, columns]);
  const mask = (name: string) => dropoutMask(x, input('rows', 'int32', [rowCount, 1]), rate, name);
  const ones = float32(new Float32Array(rowCount * columns).fill(1), [rowCount, columns]);

  test('is the same on every engine, and another for every layer and every row', async () => {
    const results: Value[] = [];
    for (const engine of engines) {
      const program = await engine.compile({ a: mask('a'), b: mask('b') });
      const { a, b } = await program.run({ rows });
      expect(a.data).not.toEqual(b.data);
      results.push(a);
      await program.dispose();
    }
    expect([...results[1].data]).toEqual([...results[0].data]);
    const row = (i: number) => [...(results[0].data as Float32Array).subarray(i * columns, (i + 1) * columns)].join();
    expect(new Set(Array.from({ length: rowCount }, (_, i) => row(i))).size).toBe(rowCount);
  });

  test('leaves out a share of the rate in every row and column, in no pattern', async () => {
    const program = await engines[0].compile({ a: mask('a') });
    const data = (await program.run({ rows })).a.data as Float32Array;
    expect(new Set(data)).toEqual(new Set([0, 1]));
    const isLeftOut = (row: number, column: number) => Number(data[row * columns + column] === 0);
    // within five standard deviations of independent draws
    const near = (count: number, of: number, share: number) =>
      expect(Math.abs(count / of - share)).toBeLessThan(5 * Math.sqrt((share * (1 - share)) / of));
    const sum = (length: number, at: (i: number) => number) => Array.from({ length }, (_, i) => at(i)).reduce((a, b) => a + b, 0);
    const total = sum(rowCount, (row) => sum(columns, (column) => isLeftOut(row, column)));
    near(total, rowCount * columns, rate);
    for (let row = 0; row < rowCount; row += 7)
      near(
        sum(columns, (column) => isLeftOut(row, column)),
        columns,
        rate,
      );
    for (let column = 0; column < columns; column += 7)
      near(
        sum(rowCount, (row) => isLeftOut(row, column)),
        rowCount,
        rate,
      );
    // two neighbors are left out together as often as chance has it
    const pairs = sum(rowCount, (row) => sum(columns - 1, (column) => isLeftOut(row, column) * isLeftOut(row, column + 1)));
    near(pairs, rowCount * (columns - 1), rate * rate);
    await program.dispose();
  });

  test('feeds an adapter what it keeps, as much larger as the rest is missing, and its gradient is that', async () => {
    const adapter = { rank: 1, scale: 1, dropout: { rate, mask: () => mask('a') } };
    const p = new Parameters({ adapters: () => adapter });
    const y = linear(p, 'a', x, 1);
    const [gradient] = grad(reduceSum(mul(y, input('dy', 'float32', [rowCount, 1])), [0, 1]), [x]);
    const program = await engines[0].compile({ y, gradient, kept: mask('a') });
    const dy = normals(9, rowCount, 1);
    const [down, up] = [normals(10, 1, columns), float32([2], [1, 1])];
    const values = { rows, dy, x: ones, [weightName('a')]: float32(new Float32Array(columns), [1, columns]) };
    const result = await program.run({ ...values, [downName('a')]: down, [upName('a')]: up });
    const factor = (row: number, column: number) =>
      ((result.kept.data[row * columns + column] as number) * (down.data[column] as number) * 2) / (1 - rate);
    for (let row = 0; row < rowCount; row += 13) {
      const sum = Array.from({ length: columns }, (_, column) => factor(row, column)).reduce((a, b) => a + b);
      expect(result.y.data[row]).toBeCloseTo(sum, 3);
      for (let column = 0; column < columns; column += 7)
        expect(result.gradient.data[row * columns + column]).toBeCloseTo((dy.data[row] as number) * factor(row, column), 5);
    }
    await program.dispose();
  });
});
