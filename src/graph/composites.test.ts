import { describe, expect, test } from 'vitest';
import type { Value } from '../engine/engine.ts';
import { FUSED_KERNELS } from '../engine/onnx/rule.ts';
import { createOrtEngine } from '../engine/ort.ts';
import { evaluateReference, type ReferenceValue } from '../engine/reference-ops.ts';
import { createRandom } from '../random.ts';
import {
  attention,
  classGradient,
  classMean,
  compositeRules,
  crossEntropyOfMany,
  geluErf,
  geluTanh,
  layerNorm,
  linearCrossEntropy,
  linearLogSumExp,
  maskBias,
  quickGelu,
  rmsNorm,
} from './composites.ts';
import type { Dims } from './dims.ts';
import { definitionGradient, grad, ruleGradient } from './grad.ts';
import { expandComposites } from './passes.ts';
import { add, mul, reduceSum, softmax } from './primitives.ts';
import { type Composite, constant, input, isIn, type Tensor, type TensorOf, topologicalOrder, typedData, withInputs } from './tensor.ts';

const f = (name: string, ...dims: number[]) => input(name, 'float32', dims);
const random = createRandom(11);

/** Composites with representative arguments: grouped and multi-query attention, with and without a mask. */
const examples = [
  rmsNorm(f('x', 2, 3, 8), f('weight', 8), 1e-6),
  layerNorm(f('x', 2, 3, 8), f('weight', 8), f('bias', 8), 1e-5),
  geluTanh(f('x', 5, 7)),
  geluErf(f('x', 5, 7)),
  quickGelu(f('x', 5, 7)),
  attention(f('q', 2, 4, 3, 6), f('k', 2, 2, 5, 6), f('v', 2, 2, 5, 4), { scale: 0.4 }),
  attention(f('q', 2, 4, 3, 6), f('k', 2, 1, 3, 6), f('v', 2, 1, 3, 6), {
    scale: 0.4,
    bias: maskBias(input('keep', 'bool', [2, 1, 3, 3])),
  }),
  attention(f('q', 1, 2, 3, 4), f('k', 1, 2, 3, 4), f('v', 1, 2, 3, 4), { scale: 1, bias: f('mask', 3, 3) }),
  linearCrossEntropy(f('hidden', 6, 5), f('weight', 9, 5), input('labels', 'int32', [6]), { scale: 0.5 }),
  // caps below the largest products, so that they bend; constants are float32, and these are exact in it
  attention(f('q', 2, 4, 3, 6), f('k', 2, 2, 3, 6), f('v', 2, 2, 3, 4), {
    scale: 0.4,
    softcap: 0.75,
    bias: maskBias(input('keep', 'bool', [2, 1, 3, 3])),
  }),
  linearCrossEntropy(f('hidden', 6, 5), f('weight', 9, 5), input('labels', 'int32', [6]), { scale: 0.5, softcap: 0.875 }),
  linearLogSumExp(f('hidden', 6, 5), f('weight', 9, 5), { scale: 0.5 }),
  linearLogSumExp(f('hidden', 6, 5), f('weight', 9, 5), { scale: 0.5, softcap: 0.875 }),
  classMean(f('hidden', 6, 5), f('weight', 9, 5), { scale: 0.5, softcap: 0.875 }),
  classGradient(f('hidden', 6, 5), f('weight', 9, 5), { logSumExp: f('sums', 6), factors: f('factors', 6) }, { scale: 0.5 }),
].map((y): TensorOf<Composite> => {
  if (!isIn(compositeRules, y)) throw new Error(`${y.op} is no composite`);
  return y;
});

function valuesFor(tensors: readonly Tensor[]): Record<string, Value> {
  const values: Record<string, Value> = {};
  const visit = (t: Tensor) => {
    t.inputs.forEach(visit);
    if (t.op !== 'input') return;
    const dims = t.dims as number[];
    const size = dims.reduce((a, b) => a * b, 1);
    const make = {
      float32: () => Float32Array.from({ length: size }, () => random.normal()),
      int32: () => Int32Array.from({ length: size }, () => random.integer(9)),
      // the diagonal is kept, as in a causal mask: a row without any key has no softmax
      bool: () => Uint8Array.from({ length: size }, (_, i) => (i % 4 === 0 ? 1 : random.integer(2))),
    }[t.dtype as 'float32'];
    values[t.attributes.name] = { dtype: t.dtype, dims, data: make() };
  };
  tensors.forEach(visit);
  return values;
}

const widen = (values: Record<string, Value>) =>
  Object.fromEntries(
    Object.entries(values).map(([name, { dims, data }]): [string, ReferenceValue] => [
      name,
      { dims: [...dims], data: Float64Array.from(data as Float32Array) },
    ]),
  );

const dyLike = (dims: Dims) => input('dy', 'float32', dims);

describe('soft caps', () => {
  const value = (dims: number[], ...data: number[]): ReferenceValue => ({ dims, data: Float64Array.from(data) });

  test('of attention bend the scores, not the mask', () => {
    // one query and three keys of products 1, 2 and, hidden, 100; the values pick the probabilities out
    const attended = attention(f('q', 1, 1, 1, 1), f('k', 1, 1, 3, 1), f('v', 1, 1, 3, 3), { scale: 0.5, softcap: 3, bias: f('bias', 3) });
    const { y } = evaluateReference(
      { y: attended },
      {
        q: value([1, 1, 1, 1], 2),
        k: value([1, 1, 3, 1], 1, 2, 100),
        v: value([1, 1, 3, 3], 1, 0, 0, 0, 1, 0, 0, 0, 1),
        bias: value([3], 0, 0, -1e9),
      },
    );
    const [a, b] = [1, 2].map((score) => Math.exp(3 * Math.tanh(score / 3)));
    [a / (a + b), b / (a + b), 0].forEach((probability, i) => {
      expect(y.data[i]).toBeCloseTo(probability, 12);
    });
  });

  test('of a loss bend the logits', () => {
    const losses = linearCrossEntropy(f('hidden', 1, 1), f('weight', 2, 1), input('labels', 'int32', [1]), { softcap: 3 });
    const { y } = evaluateReference({ y: losses }, { hidden: value([1, 1], 1), weight: value([2, 1], 1, 5), labels: value([1], 0) });
    const [a, b] = [1, 5].map((logit) => Math.exp(3 * Math.tanh(logit / 3)));
    expect(y.data[0]).toBeCloseTo(-Math.log(a / (a + b)), 12);
  });
});

describe('masks', () => {
  test.each(['float32', 'float16', 'bfloat16'] as const)('of %s hide a key, and a row that sees none stays a number', (dtype) => {
    const keep = constant(Uint8Array.of(1, 0, 1, 0, 0, 0), [2, 3], 'bool');
    const scores = constant(typedData([20, 30, 20, -20, -20, -20], dtype), [2, 3], dtype);
    const y = softmax(add(scores, maskBias(keep, dtype)));
    expect(y.dtype).toBe(dtype);
    const { data } = evaluateReference({ y }, {}).y;
    expect([...data.subarray(0, 3)]).toEqual([0.5, 0, 0.5]);
    expect(data.subarray(3).every((probability) => Math.abs(probability - 1 / 3) < 2e-3)).toBe(true);
  });
});

describe('a loss of very many classes', () => {
  const hidden = f('hidden', 6, 5);
  const labels = input('labels', 'int32', [6]);

  // numbers beside tensors are float32, and these are exact in it
  test.each([{}, { scale: 0.5 }, { scale: 0.4375, softcap: 0.875 }])('is that of few, and so are its gradients: %o', (options) => {
    const weight = f('weight', 9, 5);
    const [few, many] = [linearCrossEntropy, crossEntropyOfMany].map((loss) => {
      const losses = loss(hidden, weight, labels, options);
      return [losses, ...grad(reduceSum(mul(losses, f('dy', 6)), [0]), [hidden, weight])];
    });
    const outputs = Object.fromEntries([...few.map((x, i) => [`few${i}`, x]), ...many.map((x, i) => [`many${i}`, x])]);
    const results = evaluateReference(outputs, widen(valuesFor(Object.values(outputs))));
    for (const i of few.keys())
      for (const [j, expected] of results[`few${i}`].data.entries()) expect(results[`many${i}`].data[j]).toBeCloseTo(expected, 11);
  });

  test('has neither logits nor a whole softmax in its graph', () => {
    const words = 256_000;
    const large = f('large', words, 768);
    const losses = linearCrossEntropy(input('rows', 'float32', ['rows', 768]), large, input('words', 'int32', ['rows']));
    const [gradient] = grad(reduceSum(losses, [0]), [large]);
    const graph = topologicalOrder(Object.values(expandComposites({ losses, gradient }, (op) => op !== 'linearCrossEntropy')));
    expect(graph.filter(({ op }) => op === 'classGradient')).toHaveLength(1);
    expect(graph.filter(({ op, dims }) => op !== 'classGradient' && dims.length === 2 && dims[1] === words)).toEqual([]);
  });
});

test.each(['float16', 'bfloat16'] as const)('a loss in %s is finite where a probability is 0', (dtype) => {
  const hidden = constant(typedData([100], dtype), [1, 1], dtype);
  const weight = constant(typedData([1, -1], dtype), [2, 1], dtype);
  const y = linearCrossEntropy(hidden, weight, constant(Int32Array.of(1), [1], 'int32'));
  const [loss] = evaluateReference({ y }, {}).y.data;
  expect(loss).toBeGreaterThan(16);
  expect(loss).toBeLessThan(100);
});

describe('composites', () => {
  test('every composite has an example', () => {
    const composites = Object.keys(compositeRules);
    // updates have no gradient rule of their own; tests/ops.test.ts and the engines' tests run them
    const updates = ['squaredNorm', 'adamW', 'adamW8bit'];
    expect(composites.filter((op) => !updates.includes(op) && !examples.some((example) => example.op === op))).toEqual([]);
    expect(FUSED_KERNELS.filter((op) => !composites.includes(op))).toEqual([]);
  });

  test.each(examples.map((y) => [`${y.op} ${y.inputs.map((x) => `[${x.dims}]`).join(' ')}`, y] as const))(
    '%s: the gradient rule equals the gradient of the definition',
    (_, y) => {
      const dy = dyLike(y.dims);
      const explicit = ruleGradient(y, dy);
      if (!explicit) return;
      const derived = definitionGradient(y, dy);
      const outputs: Record<string, Tensor> = {};
      explicit.forEach((gradient, i) => {
        if (!gradient) return;
        outputs[`rule${i}`] = gradient;
        outputs[`definition${i}`] = derived[i]!;
      });
      expect(Object.keys(outputs).length).toBeGreaterThan(0);
      const results = evaluateReference(outputs, widen(valuesFor(Object.values(outputs))));
      explicit.forEach((gradient, i) => {
        if (!gradient) return;
        const [a, b] = [results[`rule${i}`], results[`definition${i}`]];
        expect(a.dims).toEqual(b.dims);
        const scale = b.data.reduce((max, v) => Math.max(max, Math.abs(v)), 0);
        a.data.forEach((v, j) => {
          expect(Math.abs(v - b.data[j]) / scale).toBeLessThan(1e-12);
        });
      });
    },
  );

  test("ONNX Runtime's fused kernels equal the definitions, for large activations too", async () => {
    const outputs = Object.fromEntries(examples.map((y, i) => [`y${i}`, renameInputs(y, i)]));
    const values = valuesFor(Object.values(outputs));
    const wide = values['2.x'].data as Float32Array;
    wide.set([-1e4, -100, -20, 20, 100, 1e4]);
    (values['4.x'].data as Float32Array).set([-1e4, -100, -20, 20, 100, 1e4]);
    const fused = await createOrtEngine({ threads: 1 }).compile(outputs);
    const plain = await createOrtEngine({ threads: 1, fuse: [] }).compile(outputs);
    const [a, b] = [await fused.run(values), await plain.run(values)];
    for (const name of Object.keys(outputs))
      (b[name].data as Float32Array).forEach((v, i) => {
        const actual = a[name].data[i] as number;
        expect(Math.abs(actual - v), `${name}[${i}] ${actual} ${v}`).toBeLessThan(2e-6 * Math.max(1, Math.abs(v)));
      });
    await fused.dispose();
    await plain.dispose();
  });
});

/** The same graph with inputs named apart, so that all examples fit in one program. */
function renameInputs(tensor: Tensor, id: number): Tensor {
  if (tensor.op === 'input') return input(`${id}.${tensor.attributes.name}`, tensor.dtype, tensor.dims);
  return withInputs(
    tensor,
    tensor.inputs.map((x) => renameInputs(x, id)),
  );
}
