import { describe, expect, test } from 'vitest';
import { classMean, crossEntropyOfMany, linearCrossEntropy, linearLogSumExp } from '../../graph/composites.ts';
import { grad } from '../../graph/grad.ts';
import { expandComposites } from '../../graph/passes.ts';
import { concat, gather, matmul, reduceSum, transpose } from '../../graph/primitives.ts';
import { input, type Tensor, topologicalOrder } from '../../graph/tensor.ts';
import { createRandom } from '../../random.ts';
import { evaluateReference, type ReferenceValue } from '../reference-ops.ts';
import { readParts } from './parts.ts';

const [ROWS, WIDTH] = [11, 6];
const SIZES = [4, 4, 3];

const random = createRandom(5);
const noise = (...dims: number[]): ReferenceValue => ({
  dims,
  data: Float64Array.from({ length: dims.reduce((a, b) => a * b) }, () => random.normal()),
});
const numbers = (data: number[], dims: number[]): ReferenceValue => ({ dims, data: Float64Array.from(data) });
const hidden = input('hidden', 'float32', [5, WIDTH]);
const ids = input('ids', 'int32', [2, 'n']);
const labels = input('labels', 'int32', [5]);
const wide = input('wide', 'float32', [2, 5, ROWS]);
const table = concat(
  SIZES.map((rows, i) => input(`table ${i}`, 'float32', [rows, WIDTH])),
  0,
);

const values = {
  hidden: noise(5, WIDTH),
  wide: noise(2, 5, ROWS),
  // the first and the last row of each part
  ids: numbers([0, 3, 4, 7, 8, 10], [2, 3]),
  labels: numbers([0, 3, 4, 8, 10], [5]),
  ...Object.fromEntries(SIZES.map((rows, i) => [`table ${i}`, noise(rows, WIDTH)])),
};

const capped = { scale: 0.7, softcap: 2 };
const lossGradient = (loss: Tensor) => grad(reduceSum(loss, [0]), [hidden])[0];

describe('a table in parts', () => {
  const outputs: Record<string, Tensor> = {
    rows: gather(table, ids),
    logits: matmul(hidden, table, { transB: true, alpha: 0.5 }),
    'logits of a batch': matmul(gather(table, ids), table, { transB: true }),
    'gradient of logits': matmul(wide, table, { alpha: 0.5 }),
    'of transposed ones': matmul(transpose(wide, [0, 2, 1]), table, { transA: true }),
    loss: linearCrossEntropy(hidden, table, labels, capped),
    'gradient of a loss': lossGradient(linearCrossEntropy(hidden, table, labels, capped)),
    'log sum exp': linearLogSumExp(hidden, table, capped),
    'mean of classes': classMean(hidden, table, capped),
    'gradient of a loss of many': lossGradient(crossEntropyOfMany(hidden, table, labels)),
  };

  test.each(Object.keys(outputs))('gives the same %s, and is never joined', (name) => {
    const whole = expandComposites({ [name]: outputs[name] }, (op) => op === 'linearLogSumExp' || op === 'classMean');
    const inParts = readParts(whole);
    const [actual, wanted] = [inParts, whole].map((graph) => evaluateReference(graph, values)[name]);
    expect(actual.dims).toEqual(wanted.dims);
    for (const [i, number] of wanted.data.entries()) expect(actual.data[i]).toBeCloseTo(number, 12);
    const reads = topologicalOrder(Object.values(inParts)).filter(({ inputs }) => inputs.some((x) => x === table));
    expect(reads.map(({ op }) => op)).toEqual([]);
  });

  test('that something else reads is joined', () => {
    const turned = { turned: transpose(table, [1, 0]) };
    expect(readParts(turned)).toEqual(turned);
  });
});
