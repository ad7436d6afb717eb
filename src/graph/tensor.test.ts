import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { attention, linearCrossEntropy, rmsNorm } from './composites.ts';
import { type Dim, type Dims, formatDims, ShapeError, withPath } from './dims.ts';
import {
  add,
  concat,
  gather,
  maskedScatter,
  matmul,
  neg,
  reduceSum,
  reshape,
  rotary,
  scatterAdd,
  slice,
  transpose,
  where,
} from './primitives.ts';
import { constant, input, numbersOf, type Tensor, topologicalOrder } from './tensor.ts';

const x = (...dims: Dim[]) => input('x', 'float32', dims);
const ids = (...dims: Dim[]) => input('ids', 'int32', dims);
const mask = (...dims: Dim[]) => input('mask', 'bool', dims);

describe('shape errors', () => {
  const table: [name: string, build: () => Tensor, message: string][] = [
    ['add', () => add(x(2, 3), x(2, 4)), 'add: dimension 3 does not broadcast with 4 (shapes [2, 3], [2, 4])'],
    [
      'add, names',
      () => add(x('batch', 3), x('tokens', 3)),
      'add: dimension batch does not broadcast with tokens (shapes [batch, 3], [tokens, 3])',
    ],
    ['add, dtypes', () => add(x(2), ids(2)), 'add: dtypes float32 and int32 differ (shapes [2], [2])'],
    ['neg', () => neg(ids(2)), 'neg: needs a float tensor, got int32 (shapes [2])'],
    ['where', () => where(x(2), 1, 0), 'where: condition must be bool, got float32 (shapes [2])'],
    ['matmul', () => matmul(x(2, 3), x(4, 5)), 'matmul: inner dimensions 3 and 4 differ (shapes [2, 3], [4, 5])'],
    [
      'matmul, transB',
      () => matmul(x('batch', 3), x(5, 4), { transB: true }),
      'matmul: inner dimensions 3 and 4 differ (shapes [batch, 3], [5, 4])',
    ],
    ['matmul, rank', () => matmul(x(3), x(3, 4)), 'matmul: both operands need rank 2 or more (shapes [3], [3, 4])'],
    ['reshape', () => reshape(x('batch', 4), ['batch', 3]), 'reshape: [batch, 3] holds another number of elements (shapes [batch, 4])'],
    ['transpose', () => transpose(x(2, 3), [0, 0]), 'transpose: [0,0] is not a permutation of the axes (shapes [2, 3])'],
    ['concat', () => concat([x(2, 3), x(2, 4)], 0), 'concat: dtypes or shapes differ outside axis 0 (shapes [2, 3], [2, 4])'],
    ['slice', () => slice(x(2, 3), 1, 1, 5), 'slice: [1, 5) is outside axis 1 (shapes [2, 3])'],
    ['axis', () => reduceSum(x(2, 3), [2]), 'reduceSum: axis 2 is outside the shape (shapes [2, 3])'],
    ['gather', () => gather(x(5, 3), x(2)), 'gather: indices must be integers, got float32 (shapes [5, 3], [2])'],
    [
      'scatterAdd',
      () => scatterAdd(ids(2), x(3, 4), [5, 4]),
      'scatterAdd: needs integer indices and one update row each for [5, 4] (shapes [2], [3, 4])',
    ],
    [
      'maskedScatter',
      () => maskedScatter(x(2, 3), mask(2), x(1, 4)),
      'maskedScatter: needs x [.., n], mask [..] and rows [count, n] (shapes [2, 3], [2], [1, 4])',
    ],
    [
      'rotary',
      () => rotary(x(1, 2, 3, 5), ids(1, 3), x(9, 2), x(9, 2)),
      'rotary: needs x [batch, heads, tokens, even head size] (shapes [1, 2, 3, 5])',
    ],
    ['rmsNorm', () => rmsNorm(x(2, 3), x(4), 1e-6), 'rmsNorm: the weight must have the size of the last dimension (shapes [2, 3], [4])'],
    [
      'attention',
      () => attention(x(1, 3, 2, 4), x(1, 2, 2, 4), x(1, 2, 2, 4), { scale: 1 }),
      'attention: the heads of q must be a multiple of those of k and v (shapes [1, 3, 2, 4], [1, 2, 2, 4], [1, 2, 2, 4])',
    ],
    [
      'attention bias',
      () => attention(x(1, 2, 2, 4), x(1, 2, 3, 4), x(1, 2, 3, 4), { scale: 1, bias: x(4, 1, 1, 1) }),
      'attention: the bias does not broadcast to the scores (shapes [1, 2, 2, 3], [4, 1, 1, 1])',
    ],
    [
      'linearCrossEntropy',
      () => linearCrossEntropy(x('rows', 4), x(9, 5), ids('rows')),
      'linearCrossEntropy: needs hidden [rows, n], weight [classes, n], labels [rows] (shapes [rows, 4], [9, 5], [rows])',
    ],
    ['constant', () => constant(new Float32Array(3), [2, 2]), 'constant: 3 values do not fill the shape (shapes [2, 2])'],
  ];
  test.each(table)('%s names the op and the shapes', (_, build, message) => {
    expect(build).toThrow(ShapeError);
    expect(build).toThrow(message);
  });

  test('nested modules make the path, outermost first', () => {
    const build = () => withPath('model', () => withPath('layers.0', () => withPath('q_proj', () => matmul(x(2, 3), x(4, 5)))));
    expect(build).toThrow('matmul in model.layers.0.q_proj: inner dimensions 3 and 4 differ (shapes [2, 3], [4, 5])');
  });

  test('other errors pass through withPath untouched', () => {
    const error = new Error('disk full');
    expect(() =>
      withPath('model', () => {
        throw error;
      }),
    ).toThrow(error);
    expect(error.message).toBe('disk full');
  });

  test('formatDims', () => expect(formatDims(['batch', 3] as Dims)).toBe('[batch, 3]'));
});

describe('constant', () => {
  test.each([
    ['float32', 1.5, Float32Array.of(1.5)],
    ['float16', 1.5, Uint16Array.of(0x3e00)],
    ['bfloat16', 1.5, Uint16Array.of(0x3fc0)],
    ['int64', 3, BigInt64Array.of(3n)],
    ['int32', 3, Int32Array.of(3)],
    ['int8', -3, Int8Array.of(-3)],
    ['uint8', 3, Uint8Array.of(3)],
    ['bool', 3, Uint8Array.of(1)],
  ] as const)('of %s holds the bits of a number', (dtype, value, data) => {
    const tensor = constant(value, [], dtype);
    expect(tensor.attributes.data).toEqual(data);
    expect([...numbersOf(tensor.attributes.data, dtype)]).toEqual([dtype === 'bool' ? 1 : value]);
  });

  test('takes arrays of the type that holds its dtype', () => {
    const build = () => constant(Float32Array.of(1.5), [1], 'float16');
    expect(build).toThrow('constant: float16 comes as Uint16Array, not as Float32Array (shapes [1])');
  });
});

describe('topologicalOrder', () => {
  test('every tensor once, inputs before users', () => {
    fc.assert(
      fc.property(fc.array(fc.tuple(fc.nat(), fc.nat()), { minLength: 1, maxLength: 40 }), (edges) => {
        const nodes: Tensor[] = [x(2)];
        for (const [a, b] of edges) nodes.push(add(nodes[a % nodes.length], nodes[b % nodes.length]));
        const order = topologicalOrder([nodes.at(-1)!, nodes[nodes.length >> 1]]);
        expect(new Set(order).size).toBe(order.length);
        order.forEach((node, i) => {
          for (const inputNode of node.inputs) expect(order.indexOf(inputNode)).toBeLessThan(i);
        });
        expect(order.indexOf(nodes.at(-1)!)).toBeGreaterThanOrEqual(0);
      }),
    );
  });

  test('a chain far deeper than the call stack', () => {
    let y: Tensor = x(2);
    for (let i = 0; i < 50_000; i++) y = neg(y);
    expect(topologicalOrder([y])).toHaveLength(50_001);
  });
});
