import { describe, expect, test } from 'vitest';
import { evaluateReference, type ReferenceValue } from '../engine/reference-ops.ts';
import { linearCrossEntropy } from './composites.ts';
import { grad } from './grad.ts';
import { expandComposites, mergeCommon, simplify } from './passes.ts';
import { add, cast, concat, exp, greater, matmul, mul, reduceMax, reduceMean, reduceSum, stopGradient, sub, tanh } from './primitives.ts';
import { constant, input, type Tensor, topologicalOrder } from './tensor.ts';

const values = (dims: number[], ...data: number[]): ReferenceValue => ({ dims, data: Float64Array.from(data) });
const total = (x: Tensor) =>
  reduceSum(
    x,
    x.dims.map((_, i) => i),
  );
const countOps = (tensors: Tensor[], op: string) => {
  const outputs = mergeCommon(simplify(mergeCommon(expandComposites(Object.fromEntries(tensors.map((t, i) => [`y${i}`, t]))))));
  return topologicalOrder(Object.values(outputs)).filter((node) => node.op === op).length;
};

describe('grad', () => {
  const x = input('x', 'float32', [3]);
  const at = { x: values([3], 0.5, -1, 2) };

  test('gradients of all uses of a tensor add up', () => {
    const [dx] = grad(total(mul(mul(x, x), add(x, x))), [x]);
    expect([...evaluateReference({ dx }, at).dx.data]).toEqual([1.5, 6, 24]);
  });

  test('a tensor in the middle of the graph can be asked for', () => {
    const square = mul(x, x);
    const [dx, dsquare] = grad(total(mul(square, 3)), [x, square]);
    const results = evaluateReference({ dx, dsquare }, at);
    expect([...results.dx.data]).toEqual([3, -6, 12]);
    expect([...results.dsquare.data]).toEqual([3, 3, 3]);
  });

  test('a gradient can be differentiated again', () => {
    const [first] = grad(total(mul(exp(x), x)), [x]);
    const [second] = grad(total(first), [x]);
    // (x e^x)'' = (x + 2) e^x
    const result = evaluateReference({ second }, at).second.data;
    at.x.data.forEach((v, i) => {
      expect(result[i]).toBeCloseTo((v + 2) * Math.exp(v), 12);
    });
  });

  test('stopGradient cuts: what lies before it counts as fixed', () => {
    const [dx] = grad(total(mul(x, stopGradient(x))), [x]);
    expect([...evaluateReference({ dx }, at).dx.data]).toEqual([0.5, -1, 2]);
    expect(() => grad(total(stopGradient(mul(x, x))), [x])).toThrow('the loss does not depend on x');
  });

  test('asking for a tensor that the loss does not reach names it', () => {
    const unused = input('layers.3.bias', 'float32', [3]);
    expect(() => grad(total(x), [x, unused])).toThrow('grad: the loss does not depend on layers.3.bias');
    expect(() => grad(total(x), [tanh(unused)])).toThrow('grad: the loss does not depend on a tanh');
  });

  test('comparisons, masks and maxima pass no gradient', () => {
    expect(() => grad(total(cast(greater(x, 0), 'float32')), [x])).toThrow('does not depend on x');
    const [dx] = grad(total(sub(x, reduceMax(x, [0], true))), [x]);
    expect([...evaluateReference({ dx }, at).dx.data]).toEqual([1, 1, 1]);
  });

  test('the loss must be a scalar', () => {
    expect(() => grad(x, [x])).toThrow('grad: the loss must be a scalar (shapes [3])');
  });

  test('what needs a size that is only known at run time says so', () => {
    const rows = input('rows', 'float32', ['batch', 2]);
    expect(() => grad(total(reduceMean(rows, [0])), [rows])).toThrow('reduceMean: has a gradient only over axes of known size');
    expect(() => grad(total(concat([rows, constant(new Float32Array(2), [1, 2])], 0)), [rows])).toThrow(
      'concat: has a gradient only along',
    );
  });
});

describe('frozen weights', () => {
  const data = input('x', 'float32', ['batch', 4]);
  const w1 = input('w1', 'float32', [5, 4]);
  const w2 = input('w2', 'float32', [3, 5]);
  const loss = total(matmul(tanh(matmul(data, w1, { transB: true })), w2, { transB: true }));
  const products = (wrt: Tensor[]) => countOps([loss, ...grad(loss, wrt)], 'matmul');

  test('cost no gradient products', () => {
    expect(countOps([loss], 'matmul')).toBe(2);
    expect(products([w2])).toBe(3);
    expect(products([w1])).toBe(4);
    expect(products([w1, w2])).toBe(5);
  });

  test('nor does a frozen head', () => {
    const head = input('head', 'float32', [7, 5]);
    const labels = input('labels', 'int32', ['batch']);
    const hidden = matmul(data, w1, { transB: true });
    const crossEntropy = total(linearCrossEntropy(hidden, head, labels));
    const frozen = [crossEntropy, ...grad(crossEntropy, [w1])];
    expect(countOps(frozen, 'matmul')).toBe(4);
    expect(countOps(frozen, 'softmax')).toBe(1);
    const trained = [crossEntropy, ...grad(crossEntropy, [w1, head])];
    expect(countOps(trained, 'matmul')).toBe(5);
    expect(countOps(trained, 'softmax')).toBe(1);
  });
});
