import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { float32, int32 } from '../engine/engine.ts';
import { createOrtEngine } from '../engine/ort.ts';
import { createReferenceEngine } from '../engine/reference.ts';
import { evaluateReference } from '../engine/reference-ops.ts';
import { createRandom } from '../random.ts';
import { attention, compositeRules, geluTanh, layerNorm, quickGelu, rmsNorm } from './composites.ts';
import { grad } from './grad.ts';
import { expandComposites, mergeCommon, type Outputs, shareAxis, simplify } from './passes.ts';
import { add, div, matmul, mul, neg, reduceSum, reshape, slice, softmax, stopGradient, sub, takeAlong } from './primitives.ts';
import { constant, input, type Tensor, topologicalOrder } from './tensor.ts';

const ops = (outputs: Outputs) => topologicalOrder(Object.values(outputs)).map((node) => node.op);
const countOf = (outputs: Outputs, op: string) => ops(outputs).filter((name) => name === op).length;
const total = (x: Tensor) =>
  reduceSum(
    x,
    x.dims.map((_, i) => i),
  );

const x = input('x', 'float32', [2, 4]);
const weight = input('weight', 'float32', [4]);
const random = createRandom(3);
const at = Object.fromEntries(
  [x, weight].map((t) => [
    t.attributes.name,
    { dims: t.dims as number[], data: Float64Array.from({ length: t === x ? 8 : 4 }, () => random.normal()) },
  ]),
);

function expectSame(before: Outputs, after: Outputs) {
  const expected = evaluateReference(before, at);
  const actual = evaluateReference(after, at);
  expect(Object.keys(actual)).toEqual(Object.keys(expected));
  for (const name of Object.keys(expected)) {
    expect(actual[name].dims).toEqual(expected[name].dims);
    expect(after[name].dims).toEqual(before[name].dims);
    expected[name].data.forEach((v, i) => {
      expect(actual[name].data[i]).toBeCloseTo(v, 10);
    });
  }
}

describe('every pass keeps results', () => {
  // a random program: each step applies one op to earlier tensors
  const steps: ((a: Tensor, b: Tensor) => Tensor)[] = [
    (a, b) => add(a, b),
    (a, b) => sub(a, b),
    (a, b) => mul(a, b),
    (a) => neg(a),
    (a) => neg(neg(a)),
    (a) => mul(a, 1),
    (a) => add(0, a),
    (a) => sub(a, 0),
    (a) => sub(0, a),
    (a) => div(a, 1),
    (a) => stopGradient(a),
    (a) => softmax(a),
    (a) => rmsNorm(a, weight, 1e-2),
    (a) => layerNorm(a, weight, weight, 1e-2),
    (a) => geluTanh(a),
    (a) => quickGelu(a),
  ];
  const program = fc.array(fc.tuple(fc.nat(steps.length - 1), fc.nat(), fc.nat()), { minLength: 1, maxLength: 10 }).map((list) => {
    const tensors: Tensor[] = [x];
    for (const [step, a, b] of list) tensors.push(halved(steps[step](tensors[a % tensors.length], tensors[b % tensors.length])));
    return { last: tensors.at(-1)!, other: tensors[tensors.length >> 1] };
  });
  // halved, so that a chain of products stays in range
  function halved(t: Tensor) {
    return t.dims.length === 2 ? sub(t, mul(t, 0.5)) : t;
  }
  const passes = { expandComposites, mergeCommon, simplify };
  test.each(Object.entries(passes))('%s', (_, pass) => {
    fc.assert(
      fc.property(program, (outputs: Outputs) => {
        const after = pass(outputs);
        expectSame(outputs, after);
        if (pass !== expandComposites) expect(ops(after).length).toBeLessThanOrEqual(ops(outputs).length);
      }),
      { seed: 1, numRuns: 60 },
    );
  });
});

describe('expandComposites', () => {
  test('leaves only primitives, except what an engine keeps', () => {
    const outputs = { y: geluTanh(rmsNorm(stopGradient(x), weight, 1e-6)) };
    const primitives = ops(expandComposites(outputs));
    expect(primitives.filter((op) => op in compositeRules || op === 'stopGradient')).toEqual([]);
    const kept = expandComposites(outputs, (op) => op === 'rmsNorm');
    expect(countOf(kept, 'rmsNorm')).toBe(1);
    expect(countOf(kept, 'geluTanh')).toBe(0);
    expectSame(outputs, kept);
  });
});

describe('mergeCommon', () => {
  test('equal nodes become one; different attributes, inputs or values do not', () => {
    expect(countOf(mergeCommon({ a: neg(mul(x, 2)), b: mul(x, 2) }), 'mul')).toBe(1);
    expect(countOf(mergeCommon({ a: mul(x, 2), b: mul(x, 3) }), 'mul')).toBe(2);
    expect(countOf(mergeCommon({ a: reduceSum(x, [0]), b: reduceSum(x, [1]) }), 'reduceSum')).toBe(2);
    expect(countOf(mergeCommon({ a: sub(x, weight), b: sub(weight, x) }), 'sub')).toBe(2);
    expect(countOf(mergeCommon({ a: input('x', 'float32', [2, 4]), b: x }), 'input')).toBe(1);
    const [long, other] = [Float32Array.from({ length: 20 }, (_, i) => i), new Float32Array(20)];
    expect(countOf(mergeCommon({ a: constant(long, [20]), b: constant(long, [20]), c: constant(other, [20]) }), 'constant')).toBe(2);
    expect(countOf(mergeCommon({ a: constant(1), b: constant(1, [], 'int32') }), 'constant')).toBe(2);
  });

  test("the attention gradient uses the forward's softmax", () => {
    const q = input('q', 'float32', ['batch', 4, 'tokens', 8]);
    const k = input('k', 'float32', ['batch', 2, 'tokens', 8]);
    const v = input('v', 'float32', ['batch', 2, 'tokens', 8]);
    const bias = input('bias', 'float32', ['batch', 1, 'tokens', 'tokens']);
    const loss = total(attention(q, k, v, { scale: 0.3, bias }));
    const expanded = expandComposites({ loss, ...Object.fromEntries(grad(loss, [q, k, v]).map((g, i) => [`g${i}`, g])) });
    const merged = mergeCommon(expanded);
    expect(countOf(merged, 'softmax')).toBe(1);
    // scores, values, dV, dP, dQ, dK
    expect(countOf(merged, 'matmul')).toBe(6);
    expect(ops(merged).length).toBeLessThan(ops(expanded).length);
  });
});

describe('simplify', () => {
  test.each<[string, Tensor]>([
    ['x * 1', mul(x, 1)],
    ['1 * x', mul(1, x)],
    ['x / 1', div(x, 1)],
    ['x + 0', add(x, 0)],
    ['0 + x', add(0, x)],
    ['x - 0', sub(x, 0)],
    ['-(-x)', neg(neg(x))],
  ])('%s is x', (_, y) => {
    expect(simplify({ y }).y).toBe(x);
  });

  test('a sum with a negative is a difference', () => {
    const outputs = { a: add(x, neg(weight)), b: sub(x, neg(weight)) };
    const after = simplify(outputs);
    expect(ops(after)).not.toContain('neg');
    expectSame(outputs, after);
  });

  test('0 - x is not x', () => {
    expectSame({ y: sub(0, x) }, simplify({ y: sub(0, x) }));
  });

  test('products with the weights of a loss keep their shape', () => {
    const outputs = { loss: total(matmul(x, x, { transB: true })) };
    expectSame(outputs, simplify(outputs));
  });
});

describe('shareAxis', () => {
  test('what is the same for all is computed once, and gives the same numbers', async () => {
    const x = input('x', 'float32', ['batch', 'tokens', 4]);
    const weight = input('weight', 'float32', [4, 4]);
    const query = input('query', 'float32', ['batch', 1, 'tokens']);
    const target = input('target', 'int32', ['batch']);
    const hidden = geluTanh(matmul(x, weight, { transB: true }));
    const attended = matmul(softmax(matmul(hidden, x, { transB: true })), hidden);
    // a flattened batch does not broadcast: it must be repeated
    const flat = reshape(mul(reshape(attended, ['batch*tokens', 4]), reshape(hidden, ['batch*tokens', 4])), x.dims);
    const read = takeAlong(reshape(matmul(query, flat), ['batch', 4]), target);
    const [gradient] = grad(reduceSum(read, [0]), [hidden]);
    const apart = { read, gradient, flat: slice(flat, 2, 0, 2) };
    const shared = shareAxis(apart, 'batch', new Set(['query', 'target']));
    const engine = createReferenceEngine();
    const numbers = (count: number, seed: number) => Array.from({ length: count }, (_, i) => Math.sin(i * 7.1 + seed));
    const once = numbers(12, 1);
    const feeds = {
      weight: float32(numbers(16, 2), [4, 4]),
      query: float32([1, 0, 0, 0, 0, 1], [2, 1, 3]),
      target: int32([2, 1], [2]),
    };
    const expected = await (await engine.compile(apart)).run({ ...feeds, x: float32([...once, ...once], [2, 3, 4]) });
    for (const each of [engine, createOrtEngine({ threads: 1 })]) {
      const actual = await (await each.compile(shared)).run({ ...feeds, x: float32(once, [1, 3, 4]) });
      for (const name of ['read', 'gradient'] as const) {
        expect(actual[name].dims).toEqual(expected[name].dims);
        expect([...(actual[name].data as Float32Array)]).toEqual(
          [...(expected[name].data as Float32Array)].map((value) => expect.closeTo(value, 5)),
        );
      }
      expect(actual.flat.dims).toEqual([1, 3, 2]);
    }
  });
});
