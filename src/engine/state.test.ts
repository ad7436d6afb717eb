// State of all engines: what one program writes another reads, in place where the engine can.

import { describe, expect, test } from 'vitest';
import { webgpu } from '../../tests/webgpu.ts';
import { signedCode, unsignedCode } from '../dynamic-code.ts';
import { crossEntropyOfMany } from '../graph/composites.ts';
import { grad } from '../graph/grad.ts';
import { add, concat, gather, mul, reduceSum } from '../graph/primitives.ts';
import { input } from '../graph/tensor.ts';
import { adamW, adamW8bit, squaredNorm } from '../graph/updates.ts';
import { createRandom } from '../random.ts';
import { type Engine, float32, int32, type SequenceState, type State } from './engine.ts';
import { createOrtEngine } from './ort.ts';
import { createReferenceEngine } from './reference.ts';

const engines: [string, Engine][] = [
  ['ONNX Runtime', createOrtEngine({ threads: 1 })],
  ['the reference', createReferenceEngine()],
  ...(webgpu ? ([['WebGPU', webgpu]] as [string, Engine][]) : []),
];
const numbers = async (state: State) => Array.from((await state.read()).data as Float32Array);
const vector = (name: string, size: number | string = 3) => input(name, 'float32', [size]);

describe.each(engines)('state of %s', (name, engine) => {
  test('is read by one program and replaced by another', async () => {
    const state = engine.state(float32([1, 2, 3], [3]));
    const double = await engine.compile({}, { writes: { w: { mode: 'replace', tensor: mul(vector('w'), 2) } } });
    const total = await engine.compile({ total: reduceSum(vector('w'), [0]) });
    expect(double.inputNames).toEqual(['w']);
    for (const expected of [6, 12, 24]) {
      expect((await total.run({}, { state: { w: state } })).total.data[0]).toBe(expected);
      await double.run({}, { state: { w: state } });
    }
    expect(await numbers(state)).toEqual([8, 16, 24]);
  });

  test('adds up over runs, from zeros after it was cleared', async () => {
    const sum = engine.zeros('float32', [3]);
    expect(await numbers(sum)).toEqual([0, 0, 0]);
    const program = await engine.compile({ x2: mul(vector('x'), 2) }, { writes: { sum: { mode: 'add', tensor: mul(vector('x'), 3) } } });
    for (let round = 0; round < 2; round++) {
      sum.clear();
      await program.run({ x: float32([1, 2, 3], [3]) }, { state: { sum } });
      const { x2 } = await program.run({ x: float32([10, 0, -1], [3]) }, { state: { sum } });
      expect(Array.from(x2.data as Float32Array)).toEqual([20, 0, -2]);
      expect(await numbers(sum)).toEqual([33, 6, 6]);
    }
    sum.clear();
    expect(await numbers(sum)).toEqual([0, 0, 0]);
  });

  test('adds to a state that the same run reads', async () => {
    const w = engine.state(float32([1, 2, 3], [3]));
    const program = await engine.compile({}, { writes: { w: { mode: 'add', tensor: mul(vector('w'), 2) } } });
    await program.run({}, { state: { w } });
    expect(await numbers(w)).toEqual([3, 6, 9]);
  });

  // a software adapter takes ten seconds for 5,000 classes; their ops are in tests/webgpu-ops.test.ts
  test.skipIf(name === 'WebGPU')('adds the gradient of a table whose rows are looked up and are very many classes', async () => {
    // more than a piece of it
    const [words, width] = [5000, 3];
    const table = input('table', 'float32', [words, width]);
    const ids = (name: string) => input(name, 'int32', ['rows']);
    const losses = crossEntropyOfMany(mul(gather(table, ids('ids')), 2), table, ids('labels'), { softcap: 2 });
    const [gradient] = grad(reduceSum(losses, [0]), [table]);
    const whole = await createReferenceEngine().compile({ gradient });
    const program = await engine.compile({ losses }, { writes: { sum: { mode: 'add', tensor: add(gradient, mul(table, 3)) } } });
    const values = float32(
      Float32Array.from({ length: words * width }, (_, i) => Math.sin(i)),
      [words, width],
    );
    const state = { table: engine.state(values), sum: engine.zeros('float32', [words, width]) };
    const rows = [
      { ids: int32([4999, 0, 4096, 0], [4]), labels: int32([1, 4999, 1, 4095], [4]) },
      { ids: int32([7], [1]), labels: int32([7], [1]) },
    ];
    const expected = new Float64Array(words * width);
    for (const [i, row] of rows.entries()) {
      if (i === 0) state.sum.clear();
      const results = await program.run(row, { state });
      expect(Object.keys(results)).toEqual(['losses']);
      const { data } = (await whole.run({ ...row, table: values })).gradient;
      for (const j of expected.keys()) expected[j] += (data[j] as number) + 3 * (values.data[j] as number);
      const sums = await numbers(state.sum);
      for (const j of expected.keys()) if (!(Math.abs(sums[j] - expected[j]) < 1e-5)) expect.fail(`${j}: ${sums[j]}, not ${expected[j]}`);
    }
    await program.dispose();
  });

  test('grows along an axis, with one run and with several, and can be cut back', async () => {
    for (const runs of [1, 2]) {
      const past = input('past', 'float32', [runs, 'past', 2]);
      const fresh = input('new', 'float32', [runs, 'tokens', 2]);
      const program = await engine.compile({ all: concat([past, fresh], 1) }, { writes: { past: { mode: 'append', tensor: fresh } } });
      const state = engine.sequence('float32', [runs, 0, 2], 1);
      /** Position `p` of run `r` holds 100 r + 10 p and one more. */
      const positions = (from: number, count: number) =>
        Array.from({ length: runs }, (_, r) =>
          Array.from({ length: count }, (_, i) => [100 * r + 10 * (from + i), 100 * r + 10 * (from + i) + 1]).flat(),
        ).flat();
      const step = async (from: number, count: number) =>
        (await program.run({ new: float32(positions(from, count), [runs, count, 2]) }, { state: { past: state } })).all;
      expect(Array.from((await step(0, 3)).data as Float32Array)).toEqual(positions(0, 3));
      expect(state.length).toBe(3);
      state.reserve(10);
      expect(Array.from((await step(3, 1)).data as Float32Array)).toEqual(positions(0, 4));
      state.truncate(2);
      const { data, dims } = await step(2, 2);
      expect(dims).toEqual([runs, 4, 2]);
      expect(Array.from(data as Float32Array)).toEqual(positions(0, 4));
      expect(await numbers(state)).toEqual(positions(0, 4));
      expect(state.dims).toEqual([runs, 4, 2]);
      expect(() => state.truncate(5)).toThrow('cannot be cut');
    }
  });

  test('has its squared norm and its AdamW update', async () => {
    const [parameter, gradient, expAvg, expAvgSq] = ['w', 'g', 'm', 'v'].map((name) => vector(name));
    const [clip, keep, rate, rootScale] = ['clip', 'keep', 'rate', 'root'].map((name) => input(name, 'float32', []));
    const next = adamW({ parameter, gradient, expAvg, expAvgSq }, { clip, keep, rate, rootScale }, { beta1: 0.5, beta2: 0.75, eps: 0 });
    const update = await engine.compile(
      { norm: squaredNorm(gradient) },
      {
        writes: {
          w: { mode: 'replace', tensor: next.parameter },
          m: { mode: 'replace', tensor: next.expAvg },
          v: { mode: 'replace', tensor: next.expAvgSq },
        },
      },
    );
    const state: Record<string, State> = {
      w: engine.state(float32([1, 1, 1], [3])),
      g: engine.state(float32([2, -4, 8], [3])),
      m: engine.zeros('float32', [3]),
      v: engine.zeros('float32', [3]),
    };
    const scalar = (value: number) => float32([value], []);
    const { norm } = await update.run({ clip: scalar(0.5), keep: scalar(1), rate: scalar(0.1), root: scalar(1) }, { state });
    expect(norm.data[0]).toBe(84);
    expect(await numbers(state.m)).toEqual([0.5, -1, 2]);
    expect(await numbers(state.v)).toEqual([0.25, 1, 4]);
    const moved = await numbers(state.w);
    for (const [i, value] of [0.9, 1.1, 0.9].entries()) expect(moved[i]).toBeCloseTo(value, 6);
    expect(await numbers(state.g)).toEqual([2, -4, 8]);
  });

  test('has its AdamW update with moments in 8 bits', async () => {
    const [size, blocks] = [600, 3];
    const codes = (name: string) => input(name, 'uint8', [20, 30]);
    const [parameter, gradient] = ['w', 'g'].map((name) => input(name, 'float32', [20, 30]));
    const [clip, keep, rate, rootScale] = ['clip', 'keep', 'rate', 'root'].map((name) => input(name, 'float32', []));
    const moments = { expAvg: codes('m'), expAvgAbsmax: vector('ma', blocks), expAvgSq: codes('v'), expAvgSqAbsmax: vector('va', blocks) };
    const constants = { beta1: 0.5, beta2: 0.75, eps: 1e-6 };
    const next = adamW8bit({ parameter, gradient, ...moments }, { clip, keep, rate, rootScale }, constants);
    const named = { w: 'parameter', m: 'expAvg', ma: 'expAvgAbsmax', v: 'expAvgSq', va: 'expAvgSqAbsmax' } as const;
    const writes = Object.fromEntries(
      Object.entries(named).map(([name, part]) => [name, { mode: 'replace', tensor: next[part] } as const]),
    );
    const update = await engine.compile({ change: next.change }, { writes });
    const random = createRandom(1);
    const noise = () =>
      float32(
        Float32Array.from({ length: size }, () => random.normal() ** 3),
        [20, 30],
      );
    const state: Record<string, State> = { w: engine.state(noise()), g: engine.state(noise()) };
    for (const name of ['m', 'v']) state[name] = engine.zeros('uint8', [20, 30]);
    for (const name of ['ma', 'va']) state[name] = engine.zeros('float32', [blocks]);
    const scalar = (value: number) => float32([value], []);
    const scalars = { clip: scalar(0.5), keep: scalar(0.99), rate: scalar(0.1), root: scalar(1) };
    const { data } = await state.g.read();
    const before = await numbers(state.w);
    await update.run(scalars, { state });
    // the first step: moments are what the gradient gives
    for (const [moment, code, absmax, expected] of [
      ['m', signedCode, 'ma', (g: number) => 0.25 * g],
      ['v', unsignedCode, 'va', (g: number) => 0.0625 * g * g],
    ] as const) {
      const [is, scales] = [await numbers(state[moment]), await numbers(state[absmax])];
      for (let i = 0; i < size; i++) {
        const block = scales[Math.floor(i / 256)];
        expect(Math.abs(code.values[is[i]] * block - expected(data[i] as number))).toBeLessThanOrEqual(0.0071 * block);
      }
    }
    const { change } = await update.run(scalars, { state });
    const after = await numbers(state.w);
    expect(change.data[0]).toBeGreaterThan(0);
    for (let i = 0; i < size; i++) {
      const g = (data[i] as number) / 2;
      const first = 0.99 * before[i] - (0.05 * g) / (0.5 * Math.abs(g) + 1e-6);
      const second = 0.99 * first - (0.075 * g) / (Math.sqrt(0.4375) * Math.abs(g) + 1e-6);
      // a small gradient beside a large one has a rough mean, or none
      if (Math.abs(g) > 0.1) expect(Math.abs(after[i] - second)).toBeLessThan(0.03);
    }
  });

  test('is checked by name', async () => {
    const program = await engine.compile({ y: add(vector('x'), 1) }, { writes: { s: { mode: 'add', tensor: vector('x') } } });
    const x = float32([1, 2, 3], [3]);
    await expect(program.run({ x })).rejects.toThrow('state s is missing');
    const narrow = engine.zeros('float32', [2]);
    narrow.clear();
    await expect(program.run({ x }, { state: { s: engine.sequence('float32', [0], 0) } })).rejects.toThrow('state s grows');
    await expect(program.run({}, { state: { s: engine.zeros('float32', [3]) } })).rejects.toThrow('input x is missing');
    await expect(program.run({}, { state: { x: narrow, s: engine.zeros('float32', [3]) } })).rejects.toThrow('input x is float32 [2]');
    await expect(engine.zeros('float32', [2]).write(x)).rejects.toThrow('a state of float32 [2] cannot take float32 [3]');
    const grows: SequenceState = engine.sequence('float32', [2, 0], 1);
    await expect(grows.write(float32([1, 2, 3], [3, 1]))).rejects.toThrow('cannot take');
    const foreign = { ...grows, dtype: 'float32', dims: [3] } as unknown as State;
    await expect(program.run({ x }, { state: { s: foreign } })).rejects.toThrow('state s belongs to another engine');
  });
});
