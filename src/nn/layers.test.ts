import { expect, test } from 'vitest';
import { evaluateReference } from '../engine/reference-ops.ts';
import { input, numbersOf } from '../graph/tensor.ts';
import { gemmaRmsNorm, layerNorm, linear, mergeHeads, splitHeads } from './layers.ts';
import { Parameters } from './parameters.ts';
import { applyRope, ropeTables } from './rope.ts';

const value = (dims: number[], data: number[]) => ({ dims, data: Float64Array.from(data) });

test('linear multiplies with the transposed weight and adds the bias', () => {
  const p = new Parameters();
  const y = linear(p, 'fc', input('x', 'float32', ['rows', 2]), 3, { bias: true });
  expect(y.dims).toEqual(['rows', 3]);
  const inputs = { x: value([1, 2], [2, 5]), 'fc.weight': value([3, 2], [1, 0, 0, 1, 1, 1]), 'fc.bias': value([3], [0.5, 0, -1]) };
  expect([...evaluateReference({ y }, inputs).y.data]).toEqual([2.5, 5, 6]);
  expect(() => linear(p, 'other', input('x', 'float32', ['rows', 'width']), 3)).toThrow(
    'linear in other: the last dimension must have a known size',
  );
});

test('heads are consecutive slices of the width, and merge back', () => {
  const x = input('x', 'float32', ['batch', 'tokens', 4]);
  const split = splitHeads(x, 2);
  expect(split.dims).toEqual(['batch', 2, 'tokens', 2]);
  const inputs = { x: value([1, 3, 4], [...Array(12).keys()]) };
  const results = evaluateReference({ split, merged: mergeHeads(split) }, inputs);
  expect([...results.split.data]).toEqual([0, 1, 4, 5, 8, 9, 2, 3, 6, 7, 10, 11]);
  expect([...results.merged.data]).toEqual([...inputs.x.data]);
});

test("Gemma's norm stores an offset from one, LayerNorm the factor itself", () => {
  const p = new Parameters();
  const x = input('x', 'float32', ['rows', 2]);
  const outputs = { rms: gemmaRmsNorm(p, 'rms', x, 0), layer: layerNorm(p, 'layer', x, 0) };
  const inputs = {
    x: value([1, 2], [1, 7]),
    'rms.weight': value([2], [0, 1]),
    'layer.weight': value([2], [1, 2]),
    'layer.bias': value([2], [0, 10]),
  };
  const { rms, layer } = evaluateReference(outputs, inputs);
  // root mean square 5; mean 4, deviation 3
  expect(rms.data[0]).toBeCloseTo(0.2, 12);
  expect(rms.data[1]).toBeCloseTo(2 * 1.4, 12);
  expect([...layer.data]).toEqual([-1, 12]);
  // fresh weights do nothing
  expect(p.list().map(({ name, initializer }) => [name, initializer.kind])).toEqual([
    ['rms.weight', 'zeros'],
    ['layer.weight', 'ones'],
    ['layer.bias', 'zeros'],
  ]);
});

test('rope with a factor turns as much slower', () => {
  const [plain, scaled] = [ropeTables(3, 8, 100), ropeTables(9, 8, 100, 4)].map(({ cos, sin }) =>
    [cos, sin].map((table) => [...(table.op === 'constant' ? numbersOf(table.attributes.data, table.dtype) : [])]),
  );
  const half = 4;
  for (const position of [0, 1, 2])
    plain.forEach((table, i) => {
      expect(scaled[i].slice(4 * position * half, (4 * position + 1) * half)).toEqual(
        table.slice(position * half, (position + 1) * half).map((v) => expect.closeTo(v, 6)),
      );
    });
});

test('rope turns pairs half a head apart by position times frequency', () => {
  const tables = ropeTables(5, 4, 100);
  const y = applyRope(input('x', 'float32', [1, 1, 'tokens', 4]), input('positions', 'int32', [1, 'tokens']), tables);
  const inputs = { x: value([1, 1, 2, 4], [1, 2, 3, 4, 1, 2, 3, 4]), positions: value([1, 2], [0, 3]) };
  const { data } = evaluateReference({ y }, inputs).y;
  expect([...data.slice(0, 4)]).toEqual([1, 2, 3, 4]);
  // frequencies 1 and 100^(-1/2) = 0.1: angles 3 and 0.3
  const turned = [
    Math.cos(3) - 3 * Math.sin(3),
    2 * Math.cos(0.3) - 4 * Math.sin(0.3),
    3 * Math.cos(3) + Math.sin(3),
    4 * Math.cos(0.3) + 2 * Math.sin(0.3),
  ];
  turned.forEach((expected, i) => {
    expect(data[4 + i]).toBeCloseTo(expected, 6);
  });
});
