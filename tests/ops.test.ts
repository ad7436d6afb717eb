// Every op on ONNX Runtime's CPU provider, against float64 loops (op-cases.ts). A new op without a row in the
// table of cases fails the first test.

import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { float32, type Value } from '../src/engine/engine.ts';
import { lower } from '../src/engine/onnx/lower.ts';
import { createOrtEngine } from '../src/engine/ort.ts';
import { createReferenceEngine } from '../src/engine/reference.ts';
import * as c from '../src/graph/composites.ts';
import * as p from '../src/graph/primitives.ts';
import { constant, input, numbersOf, typedData } from '../src/graph/tensor.ts';
import { batchOf, buildCase, CASES, CASES_PER_PROGRAM, type Case, checkCases, fixed, inHalf } from './op-cases.ts';

const PROGRAMS = 5;
/** Two units in the last place of float16, through the few ops of a gradient. */
const FLOAT16_TOLERANCE = 1e-2;

const ort = createOrtEngine({ threads: 1 });
const reference = createReferenceEngine();

describe('ops', () => {
  test('every op has cases', () => {
    expect(Object.keys(CASES).sort()).toEqual(['input', 'constant', ...Object.keys(p.gradients), ...Object.keys(c.compositeRules)].sort());
  });

  for (const [op, cases] of Object.entries(CASES))
    test(op, async () => {
      const examples: [Case[]][] = [[fc.sample(cases, { numRuns: CASES_PER_PROGRAM, seed: 1 })]];
      await fc.assert(
        fc.asyncProperty(batchOf(cases), (batch) => checkCases(ort, batch)),
        { numRuns: PROGRAMS, seed: 1, examples },
      );
    });
});

describe('float16', () => {
  for (const [op, cases] of Object.entries(CASES))
    test(op, async () => {
      const check = (batch: Case[]) =>
        checkCases(
          ort,
          batch.map((one) => inHalf(one, 'float16')),
          { tolerance: FLOAT16_TOLERANCE, checked: false },
        );
      await fc.assert(fc.asyncProperty(batchOf(cases), check), { numRuns: 2, seed: 2 });
    });

  test('goes in and out as bit patterns', async () => {
    const x = input('x', 'float16', ['rows']);
    const outputs = { y: p.mul(x, 1.5) };
    const data = typedData([1, -2, 0.1, 60000], 'float16');
    const values: Record<string, Value> = { x: { dtype: 'float16', dims: [4], data } };
    const [program, oracle] = [await ort.compile(outputs), await reference.compile(outputs)];
    const [actual, expected] = [(await program.run(values)).y, (await oracle.run(values)).y];
    expect([...numbersOf(expected.data, 'float16')]).toEqual([1.5, -3, 0.14990234375, Infinity]);
    expect(new Uint16Array(actual.data.buffer, actual.data.byteOffset, 4)).toEqual(expected.data);
  });
});

describe('bfloat16', () => {
  /**
   * Ops that only move values, and logic, which has no floats. Whatever else ONNX Runtime cannot do is
   * refused by name.
   */
  const moving = ['input', 'stopGradient', 'cast', 'reshape', 'transpose', 'concat', 'slice', 'takeLast', 'cumsum', 'gather', 'takeAlong'];
  const accepted = new Set([...moving, 'maskedScatter', 'maskedGather', 'and', 'or']);
  const message = /^\w+: ONNX Runtime has no kernel for bfloat16; cast the operands to float32 or float16$/;

  for (const [op, cases] of Object.entries(CASES))
    test(op, async () => {
      const examples = fc.sample(cases, { numRuns: CASES_PER_PROGRAM, seed: 3 }).map((one) => inHalf(one, 'bfloat16'));
      const forward = examples.map((one) => ({ ...one, operands: one.operands.map(fixed) }));
      const refused = forward.filter((one) => {
        try {
          lower(buildCase(0, one).outputs);
          return false;
        } catch (error) {
          expect((error as Error).message).toMatch(message);
          return true;
        }
      });
      expect(refused.length > 0).toBe(!accepted.has(op));
      const rest = forward.filter((one) => !refused.includes(one));
      if (rest.length > 0) await checkCases(ort, rest, { tolerance: 0 });
    });

  test('is moved and cast as a constant', async () => {
    const data = typedData([1, -2, 0.1], 'bfloat16');
    const y = p.cast(p.reshape(constant(data, [3], 'bfloat16'), [1, 3]), 'float32');
    const outputs = { y: p.add(y, input('x', 'float32', [])) };
    const program = await ort.compile(outputs);
    expect([...((await program.run({ x: float32([0], []) })).y.data as Float32Array)]).toEqual([1, -2, 0.10009765625]);
  });

  test('is no input and no output', () => {
    const x = input('x', 'bfloat16', [2]);
    expect(() => lower({ y: p.cast(x, 'float32') })).toThrow('input x: onnxruntime-node passes no bfloat16 in');
    expect(() => lower({ y: p.cast(input('f', 'float32', [2]), 'bfloat16') })).toThrow('output y: onnxruntime-node hands no bfloat16 out');
  });
});
