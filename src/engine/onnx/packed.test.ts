import { mkdtempSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import fc from 'fast-check';
import { InferenceSession, Tensor as OrtTensor } from 'onnxruntime-node';
import { describe, expect, test } from 'vitest';
import { readOnnxModel } from '../../../tests/onnx-reader.ts';
import { crossEntropyOfMany, linearCrossEntropy } from '../../graph/composites.ts';
import { grad } from '../../graph/grad.ts';
import type { Outputs } from '../../graph/passes.ts';
import { add, cast, dequantize, gather, matmul, mul, reduceSum, tanh } from '../../graph/primitives.ts';
import { type DType, input, numbersOf, type Tensor, type TypedData, typedData } from '../../graph/tensor.ts';
import { createRandom, type Random } from '../../random.ts';
import type { Value } from '../engine.ts';
import { evaluateReference } from '../reference-ops.ts';
import { type LowerOptions, lower, RECAST_EXTRA } from './lower.ts';
import { EXTERNAL_DATA_PATH, type ExternalData } from './packed.ts';

const count = (dims: readonly number[]) => dims.reduce((a, b) => a * b, 1);
const noise = (random: Random, dims: readonly number[], scale = 1) =>
  Float32Array.from({ length: count(dims) }, () => scale * random.normal());

/** Runs outputs on ONNX Runtime with fixed weights laid out as external data. */
async function run(outputs: Outputs, weights: Record<string, Value>, values: Record<string, Value>, options: LowerOptions) {
  const externalInputs = new Map<string, ExternalData>();
  const parts: Buffer[] = [];
  let offset = 0;
  for (const [name, { data }] of Object.entries(weights)) {
    externalInputs.set(name, { offset, length: data.byteLength });
    const padded = Buffer.alloc(Math.ceil(data.byteLength / 64) * 64);
    padded.set(new Uint8Array(data.buffer, data.byteOffset, data.byteLength));
    parts.push(padded);
    offset += padded.length;
  }
  const session = await InferenceSession.create(lower(outputs, { ...options, externalInputs }), {
    intraOpNumThreads: 1,
    externalData: [{ path: EXTERNAL_DATA_PATH, data: Buffer.concat(parts) }],
    extra: RECAST_EXTRA,
  });
  const feeds = Object.entries(values).map(([name, { dtype, data, dims }]) => [
    name,
    new OrtTensor(dtype as 'float32', data as Float32Array, dims),
  ]);
  const results = await session.run(Object.fromEntries(feeds));
  await session.release();
  return results;
}

const FORMATS = ['float16', 'bfloat16', 'int4', 'int8'] as const;
type Format = (typeof FORMATS)[number];

/** A stored matrix [rows, columns]: its tensor, and the values of the inputs that hold it. */
function stored(name: string, format: Format, rows: number, columns: number, random: Random): [Tensor, Record<string, Value>] {
  const value = (dtype: DType, dims: number[], data: TypedData): Value => ({ dtype, dims, data });
  if (format === 'float16' || format === 'bfloat16') {
    const data = typedData(noise(random, [rows, columns], 0.3), format);
    return [cast(input(name, format, [rows, columns]), 'float32'), { [name]: value(format, [rows, columns], data) }];
  }
  const bits = format === 'int4' ? 4 : 8;
  const blockSize = 16;
  const bytes = (columns * bits) / 8;
  const packed = Uint8Array.from({ length: rows * bytes }, () => random.integer(256));
  const scale = Float32Array.from({ length: (rows * columns) / blockSize }, () => (0.5 + random.uniform()) / 2 ** bits);
  const matrix = dequantize(
    input(`${name}_packed`, 'uint8', [rows, bytes]),
    input(`${name}_scale`, 'float32', [rows, columns / blockSize]),
    {
      bits,
      blockSize,
    },
  );
  return [
    matrix,
    {
      [`${name}_packed`]: value('uint8', [rows, bytes], packed),
      [`${name}_scale`]: value('float32', [rows, columns / blockSize], scale),
    },
  ];
}

describe('stored weights', () => {
  test.each(['float16', 'bfloat16'] as const)('of %s stay in 16 bits when they are cast anew', async (format) => {
    const [rows, columns] = [256, 512];
    const [weight] = stored('weight', format, rows, columns, createRandom(1));
    const x = input('x', 'float32', ['rows', columns]);
    const product = matmul(x, weight, { transB: true });
    const outputs = {
      product,
      looked: gather(weight, input('ids', 'int32', ['n'])),
      gradient: grad(reduceSum(mul(product, product), [0, 1]), [x])[0],
    };
    const length = 2 * rows * columns;
    const model = lower(outputs, { externalInputs: new Map([['weight', { offset: 0, length }]]), recast: true });
    const path = join(mkdtempSync(join(tmpdir(), 'packed-')), 'optimized.onnx');
    const session = await InferenceSession.create(model, {
      optimizedModelFilePath: path,
      externalData: [{ path: EXTERNAL_DATA_PATH, data: Buffer.alloc(length) }],
      extra: RECAST_EXTRA,
    });
    await session.release();
    expect(statSync(path).size / length).toBeLessThan(1.1);
    rmSync(dirname(path), { recursive: true });
  });

  const cases = fc.record({
    format: fc.constantFrom(...FORMATS),
    recast: fc.boolean(),
    // few in one piece, or many in four
    classes: fc.constantFrom(7, 8200),
    softcap: fc.constantFrom(undefined, 2),
    rows: fc.integer({ min: 1, max: 5 }),
    blocks: fc.integer({ min: 1, max: 3 }),
    hidden: fc.integer({ min: 1, max: 2 }),
    seed: fc.nat(),
  });

  test('give results and gradients of the float32 weights that they stand for', async () => {
    await fc.assert(
      fc.asyncProperty(cases, async ({ format, recast, classes, softcap, rows, blocks, hidden, seed }) => {
        const random = createRandom(seed);
        const [columns, inner] = [16 * blocks, 16 * hidden];
        const [up, upValues] = stored('up', format, inner, columns, random);
        const [head, headValues] = stored('head', format, classes, inner, random);
        const [table, tableValues] = stored('table', format, 5, inner, random);
        // x W^T forward and dy W backward; a table that is looked up, and a head that makes a loss
        const x = input('x', 'float32', ['rows', columns]);
        const ids = input('ids', 'int32', ['rows']);
        const labels = input('labels', 'int32', ['rows']);
        const y = add(tanh(matmul(x, up, { transB: true, alpha: 0.5 })), gather(table, ids));
        const losses = (classes > 7 ? crossEntropyOfMany : linearCrossEntropy)(y, head, labels, { scale: 0.5, softcap });
        const outputs = { y, losses, dx: grad(reduceSum(mul(losses, losses), [0]), [x])[0] };
        const weights = { ...upValues, ...headValues, ...tableValues };
        const integers = (below: number): Value => ({
          dtype: 'int32',
          dims: [rows],
          data: Int32Array.from({ length: rows }, () => random.integer(below)),
        });
        const values: Record<string, Value> = {
          x: { dtype: 'float32', dims: [rows, columns], data: noise(random, [rows, columns]) },
          ids: integers(5),
          labels: integers(classes),
        };
        const expected = evaluateReference(
          outputs,
          Object.fromEntries(
            Object.entries({ ...weights, ...values }).map(([name, { dtype, dims, data }]) => [
              name,
              { dims: [...dims], data: numbersOf(data, dtype) },
            ]),
          ),
        );
        const actual = await run(outputs, weights, values, { packedAccuracy: 'float32', recast });
        for (const [name, { dims, data }] of Object.entries(expected)) {
          expect([...actual[name].dims]).toEqual(dims);
          const scale = data.reduce((max, v) => Math.max(max, Math.abs(v)), 1);
          data.forEach((v, i) => {
            expect(Math.abs((actual[name].data[i] as number) - v) / scale, `${name}[${i}]`).toBeLessThan(1e-5);
          });
        }
      }),
      { numRuns: 40, seed: 1 },
    );
  });

  const x = input('x', 'float32', ['rows', 32]);
  const [half, halfValues] = stored('half', 'bfloat16', 32, 32, createRandom(1));
  const [packed, packedValues] = stored('packed', 'int4', 32, 32, createRandom(2));
  const loss = reduceSum(matmul(tanh(matmul(tanh(matmul(x, half)), half)), packed, { transB: true }), [0, 1]);
  const outputs = { loss, dx: grad(loss, [x])[0] };
  const places = new Map(
    Object.entries({ ...halfValues, ...packedValues }).map(([name, { data }]) => [name, { offset: 0, length: data.byteLength }]),
  );
  const opsOf = (options: LowerOptions) => readOnnxModel(lower(outputs, options)).node.map(({ opType }) => opType);

  test('are cast once, or for each node that reads them', () => {
    const casts = (options: LowerOptions) => opsOf(options).filter((op) => op === 'Cast').length;
    // one of the half; one that unpacks the packed for the gradient
    expect(casts({ externalInputs: places })).toBe(2);
    expect(casts({ externalInputs: places, recast: true })).toBe(5);
    // what is given at each run is no stored weight
    const packedOnly = new Map([...places].filter(([name]) => name !== 'half'));
    expect(() => lower(outputs, { externalInputs: packedOnly, recast: true })).toThrow(
      'input half: onnxruntime-node passes no bfloat16 in',
    );
  });

  test('that are cast anew come first, so that the runtime casts each just before it is read', () => {
    const { node } = readOnnxModel(lower(outputs, { externalInputs: places, recast: true }));
    const ops = node.map(({ opType }) => opType);
    expect(ops.lastIndexOf('Cast')).toBeLessThan(ops.indexOf('MatMul'));
    expect(new Set(node.map(({ name }) => name)).size).toBe(node.length);
  });

  test('packed ones are multiplied in the accuracy that is asked for', () => {
    const level = (options: LowerOptions) =>
      readOnnxModel(lower(outputs, { ...options, externalInputs: places })).node.find(({ opType }) => opType === 'MatMulNBits')!.attributes
        .accuracy_level;
    expect(level({})).toBe(4);
    expect(level({ packedAccuracy: 'int8' })).toBe(4);
    expect(level({ packedAccuracy: 'float32' })).toBe(0);
  });

  test('rows of 16 bits are looked up before they are cast', () => {
    const rows = gather(half, input('ids', 'int32', ['tokens']));
    const { node } = readOnnxModel(lower({ rows }, { externalInputs: places }));
    expect(node.map(({ opType }) => opType)).toEqual(['Gather', 'Cast']);
  });
});
