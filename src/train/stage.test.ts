import { describe, expect, test, vi } from 'vitest';
import { inProcesses } from '../../tests/processes.ts';
import {
  type CompileOptions,
  type Engine,
  elementBytes,
  float32,
  float32Values,
  int32,
  type State,
  sizeOf,
  type Value,
} from '../engine/engine.ts';
import { createOrtEngine } from '../engine/ort.ts';
import { languageConfigSchema } from '../models/language.ts';
import { languageModelLoss } from '../models/programs.ts';
import { initialize } from '../nn/parameters.ts';
import { createRandom } from '../random.ts';
import type { MicroBatch } from './batch.ts';
import { type AdamWOptions, momentBytes } from './optimizer.ts';
import { type StageOptions, type StepReport, trainStage } from './stage.ts';

// several threads, as real runs have: they must not cost the bits
const engine = createOrtEngine({ threads: 2 });
const config = languageConfigSchema.parse({
  vocab_size: 23,
  hidden_size: 16,
  intermediate_size: 32,
  num_hidden_layers: 2,
  num_attention_heads: 2,
  num_key_value_heads: 1,
  head_dim: 8,
  max_position_embeddings: 16,
  initializer_range: 0.2,
});
const loss = languageModelLoss(config);
/** With matrices of 4,096 numbers and more, whose moments may be codes; the MLP's end in a short block. */
const wideLoss = languageModelLoss({ ...config, hidden_size: 65, intermediate_size: 67, head_dim: 32 });
const TOKENS = 8;

function freshValues(seed = 1, { parameters } = loss): Map<string, Float32Array> {
  return new Map(parameters.map((p) => [p.name, initialize(p, createRandom(seed, p.name))]));
}

/** `rows` sentences of a step, from `first` on, all of them labelled but for their first `skipped` tokens. */
function batch(step: number, first: number, rows: number, skipped = 1): MicroBatch {
  const shape = [rows, TOKENS];
  const ids = Array.from({ length: rows }, (_, i) => {
    const random = createRandom(3, step, first + i);
    return Array.from({ length: TOKENS }, () => random.integer(23));
  }).flat();
  const labelled = [...ids.keys()].filter((i) => i % TOKENS >= skipped);
  return {
    inputs: {
      input_ids: int32(ids, shape),
      position_ids: int32(
        ids.map((_, i) => i % TOKENS),
        shape,
      ),
      sample_ids: int32(new Int32Array(ids.length), shape),
      branch_ids: int32(new Int32Array(ids.length), shape),
      label_rows: int32(
        labelled.map((i) => i - 1),
        [labelled.length],
      ),
      labels: int32(
        labelled.map((i) => ids[i]),
        [labelled.length],
      ),
    },
    weight: labelled.length,
    tokens: ids.length,
  };
}

const optimizer: AdamWOptions = { betas: [0.9, 0.95], eps: 1e-8, weightDecay: 0.1, maxGradNorm: 1 };

const bigBatches = (step: number) => [batch(step, 0, 4)];

interface Outcome {
  values: Map<string, Float32Array>;
  reports: StepReport[];
}

interface Changes extends Partial<Omit<StageOptions, 'trained' | 'constants'>> {
  values?: Map<string, Float32Array>;
  trainable?: (name: string) => boolean;
}

/** Trains copies of `values`; the outcome has their values afterwards. */
async function trained(steps: number, { values: given, trainable = () => true, ...changes }: Changes = {}): Promise<Outcome> {
  const reports: StepReport[] = [];
  const { engine: on, loss: graph } = { engine, loss, ...changes };
  const values = given ?? freshValues(1, graph);
  const states = new Map<string, State>();
  for (const { name, dims } of graph.parameters)
    if (values.has(name) && trainable(name)) states.set(name, on.state(float32(values.get(name)!.slice(), dims)));
  const frozen = graph.parameters.filter(({ name }) => values.has(name) && !trainable(name));
  await trainStage({
    engine,
    loss,
    trained: states,
    constants: float32Values(frozen, values),
    learningRate: () => 0.02,
    schedule: { kind: 'cosine', totalSteps: steps, warmupSteps: 2, floor: 0 },
    optimizer,
    data: { stepsPerEpoch: 4, batches: bigBatches },
    ...changes,
    onStep: async (report) => {
      reports.push(report);
      await changes.onStep?.(report);
      for (const [name, state] of states) values.set(name, (await read(state)).data as Float32Array);
    },
  });
  return { values, reports };
}

/** A copy of what a state holds. */
async function read(state: State): Promise<Value> {
  const { data, ...rest } = await state.read();
  return { ...rest, data: (data as Float32Array).slice() };
}

/** How the moments of a stage are kept. */
const optims: [string, Changes][] = [
  ['float32', {}],
  ['8 bits', { loss: wideLoss, optimizer: { ...optimizer, optim: 'adamw_8bit' } }],
];

/** Bits, so that -0 and NaN count too. */
const bits = (values: ReadonlyMap<string, Float32Array | Uint8Array>) =>
  [...values].map(([name, array]) => [name, Buffer.from(array.buffer).toString('hex')]);

describe('trainStage', () => {
  test('learns, and reports each step', async () => {
    const sameEveryStep = { stepsPerEpoch: 1, batches: () => bigBatches(0) };
    const { reports } = await trained(20, { data: sameEveryStep });
    expect(reports.map(({ step }) => step)).toEqual(Array.from({ length: 20 }, (_, i) => i + 1));
    expect(reports.at(-1)!.loss).toBeLessThan(0.5 * reports[0].loss);
    // warmup: factor 0, a half, then down from 1
    expect(reports.slice(0, 3).map(({ learningRateFactor }) => learningRateFactor)).toEqual([0, 0.5, 1]);
    expect(reports[0].tokens).toBe(4 * TOKENS);
    expect(reports[0].gradNorm).toBeGreaterThan(0);
  });

  test('gives the same bits with the same seed, and others with another', async () => {
    const { values } = await trained(6);
    expect(bits((await trained(6)).values)).toEqual(bits(values));
    expect(bits((await trained(6, { values: freshValues(2) })).values)).not.toEqual(bits(values));
  });

  test.each([['cheap'], ['all']] as const)('gives the same bits where %s is computed again for the backward pass', async (recompute) => {
    const recomputing: Engine = {
      ...engine,
      compile: (outputs, options) => engine.compile(outputs, options?.writes ? { ...options, recompute } : options),
    };
    const plain = await trained(4);
    const repeated = await trained(4, { engine: recomputing });
    expect(bits(repeated.values)).toEqual(bits(plain.values));
    expect(repeated.reports.map(({ loss, gradNorm }) => [loss, gradNorm])).toEqual(
      plain.reports.map(({ loss, gradNorm }) => [loss, gradNorm]),
    );
  });

  test('asks the engine to compute layers again where it is told to', async () => {
    const asked: CompileOptions['recompute'][] = [];
    const watched: Engine = {
      ...engine,
      compile(outputs, options) {
        if ('loss' in outputs) asked.push(options?.recompute);
        return engine.compile(outputs, options);
      },
    };
    await trained(1, { engine: watched });
    await trained(1, { engine: watched, gradientCheckpointing: true });
    expect(asked).toEqual([undefined, 'all']);
  });

  test('gives the same with accumulated halves as with a big batch', async () => {
    const once: Changes = {
      schedule: { kind: 'constant', totalSteps: 1, warmupSteps: 0, floor: 0 },
      // Adam's first step has the size of the learning rate, whatever the gradient; a large eps lets its size
      // show
      optimizer: { betas: [0.9, 0.95], eps: 1, weightDecay: 0, maxGradNorm: 0 },
    };
    const whole = await trained(1, once);
    const halves = await trained(1, {
      ...once,
      accumulation: 2,
      data: { stepsPerEpoch: 4, batches: (step) => [batch(step, 0, 2), batch(step, 2, 2)] },
    });
    expect(halves.reports[0].loss).toBeCloseTo(whole.reports[0].loss, 5);
    expect(halves.reports[0].gradNorm).toBeCloseTo(whole.reports[0].gradNorm, 5);
    expect(halves.reports[0].tokens).toBe(whole.reports[0].tokens);
    for (const [name, array] of whole.values) {
      const other = halves.values.get(name)!;
      const difference = array.reduce((max, v, i) => Math.max(max, Math.abs(v - other[i])), 0);
      expect(difference, name).toBeLessThan(1e-7);
    }
  });

  test('weighs each label alike, however unevenly micro-batches carry them', async () => {
    // one micro-batch has 14 labels and one has 2: its mean must not count as much as that of the other
    const [many, few] = [batch(0, 0, 2), batch(0, 2, 2, 7)];
    expect([many.weight, few.weight]).toEqual([14, 2]);
    const once: Changes = {
      schedule: { kind: 'constant', totalSteps: 1, warmupSteps: 0, floor: 0 },
      optimizer: { betas: [0.9, 0.95], eps: 1, weightDecay: 0, maxGradNorm: 0 },
    };
    const of = (...batches: MicroBatch[]) =>
      trained(1, { ...once, accumulation: batches.length, data: { stepsPerEpoch: 1, batches: () => batches } });
    const [together, swapped] = [await of(many, few), await of(few, many)];
    const [alone, other] = [await of(many), await of(few)];
    const loss = (outcome: Outcome) => outcome.reports[0].loss;
    expect(loss(together)).toBeCloseTo((14 * loss(alone) + 2 * loss(other)) / 16, 5);
    expect(loss(swapped)).toBeCloseTo(loss(together), 5);
    expect(swapped.reports[0].gradNorm).toBeCloseTo(together.reports[0].gradNorm, 5);
  });

  test.each([
    [2, 2],
    [4, 4],
    [2, 6],
    [4, 8],
  ])('%i processes that share %i batches give the bits of one, with the moments in shares too', async (size, accumulation) => {
    const batches = (step: number) => Array.from({ length: accumulation }, (_, i) => batch(step, i, 1));
    const options = { accumulation, data: { stepsPerEpoch: 4, batches } };
    const one = await trained(3, options);
    for (const shardMoments of [false, true]) {
      const shares = await inProcesses(size, (communicator) => {
        const own = accumulation / size;
        const share = (step: number) => batches(step).slice(own * communicator.rank, own * (communicator.rank + 1));
        return trained(3, { ...options, communicator, shardMoments, data: { stepsPerEpoch: 4, batches: share } });
      });
      for (const { values, reports } of shares) {
        expect(bits(values)).toEqual(bits(one.values));
        expect(reports.map(({ loss, gradNorm, tokens }) => [loss, gradNorm, tokens])).toEqual(
          one.reports.map(({ loss, gradNorm, tokens }) => [loss, gradNorm, tokens]),
        );
      }
    }
  });

  test.each(optims)('the first process reads moments in %s that others keep, each of which keeps its share', async (_, optim) => {
    const batches = () => [batch(0, 0, 2), batch(0, 2, 2)];
    const momentsOf = async ({ moments }: StepReport) => {
      const read = new Map<string, Float32Array>();
      for (const [name, moment] of moments) read.set(name, ((await moment.read()).data as Float32Array).slice());
      return read;
    };
    const options = { ...optim, accumulation: 2, data: { stepsPerEpoch: 1, batches } };
    let expected: Map<string, Float32Array> | undefined;
    await trained(1, {
      ...options,
      onStep: async (report) => {
        expected = await momentsOf(report);
      },
    });
    const bytesKept: number[] = [];
    await inProcesses(2, (communicator) => {
      const counting: Engine = {
        ...engine,
        zeros(dtype, dims) {
          bytesKept[communicator.rank] = (bytesKept[communicator.rank] ?? 0) + elementBytes[dtype] * sizeOf(dims);
          return engine.zeros(dtype, dims);
        },
      };
      const onStep = async (report: StepReport) => {
        await report.lead(async () => expect(bits(await momentsOf(report))).toEqual(bits(expected!)));
      };
      const data = { stepsPerEpoch: 1, batches: () => [batches()[communicator.rank]] };
      return trained(1, { ...options, engine: counting, communicator, shardMoments: true, data, onStep });
    });
    // gradients, and of the moments about a half each
    const { loss: graph, optimizer: chosen } = { loss, optimizer, ...optim };
    const ofMoments = graph.parameters.reduce((sum, parameter) => sum + momentBytes(parameter, chosen.optim), 0);
    const ofGradients = graph.parameters.reduce((sum, { dims }) => sum + 4 * sizeOf(dims), 0);
    expect(bytesKept[0] + bytesKept[1]).toBe(2 * ofGradients + ofMoments);
    for (const kept of bytesKept) expect(Math.abs((kept - ofGradients) / ofMoments - 0.5)).toBeLessThan(0.1);
  });

  test('adds micro-batches in pairs: of four, the sum of two sums', async () => {
    const numbers = new Map<string, number[]>();
    const once: Changes = {
      schedule: { kind: 'constant', totalSteps: 1, warmupSteps: 0, floor: 0 },
      optimizer: { betas: [0, 0], eps: 1e8, weightDecay: 0, maxGradNorm: 0 },
      // a first moment without memory is the gradient
      onStep: async ({ moments }) => {
        for (const [name, moment] of moments)
          if (name.endsWith('.exp_avg')) numbers.set(name, [...(numbers.get(name) ?? []), ...((await moment.read()).data as Float32Array)]);
      },
    };
    const gradientOf = async (...batches: MicroBatch[]) => {
      numbers.clear();
      const weighed = batches.map((each) => ({ ...each, weight: 1 / batches.length }));
      await trained(1, { ...once, accumulation: batches.length, data: { stepsPerEpoch: 1, batches: () => weighed } });
      return new Map(numbers);
    };
    const parts = [0, 1, 2, 3].map((i) => batch(0, i, 1));
    const all = await gradientOf(...parts);
    const [first, second] = [await gradientOf(parts[0], parts[1]), await gradientOf(parts[2], parts[3])];
    for (const [name, sums] of all) expect(sums, name).toEqual(sums.map((_, i) => Math.fround(first.get(name)![i] + second.get(name)![i])));
  });

  test('holds one set of gradients for one batch, and one more for each doubling', async () => {
    const setsOf = async (accumulation: number) => {
      let numbers = 0;
      const counting: Engine = {
        ...engine,
        zeros(dtype, dims) {
          numbers += dims.reduce((a, b) => a * b, 1);
          return engine.zeros(dtype, dims);
        },
      };
      const batches = () => Array.from({ length: accumulation }, () => batch(0, 0, 1));
      await trained(1, { engine: counting, accumulation, data: { stepsPerEpoch: 1, batches } });
      // two are the moments
      return numbers / [...freshValues().values()].reduce((sum, { length }) => sum + length, 0) - 2;
    };
    expect([await setsOf(1), await setsOf(2), await setsOf(3), await setsOf(4), await setsOf(8)]).toEqual([1, 2, 2, 3, 4]);
  });

  test('refuses a step that has fewer or more batches than were said', async () => {
    const given = (count: number) => ({
      accumulation: 2,
      data: { stepsPerEpoch: 1, batches: () => Array.from({ length: count }, () => batch(0, 0, 1)) },
    });
    await expect(trained(1, given(1))).rejects.toThrow('the data gave no batch for step 0');
    await expect(trained(1, given(3))).rejects.toThrow('the data gave more than 2 batches for step 0');
  });

  test.each(optims)('resumed from any step with moments in %s gives the bits of a straight run', async (_, optim) => {
    const steps = 6;
    const saved: { values: Map<string, Float32Array>; moments: Map<string, Value> }[] = [];
    const values = freshValues(1, optim.loss);
    const straight = await trained(steps, {
      ...optim,
      values,
      onStep: async ({ moments }) => {
        const copies = new Map<string, Value>();
        for (const [name, moment] of moments) copies.set(name, await read(moment));
        saved.push({ values: new Map(), moments: copies });
        if (saved.length > 1) saved[saved.length - 2].values = structuredClone(values);
      },
    });
    for (const step of [1, 4]) {
      const { values, moments } = saved[step - 1];
      // as a checkpoint gives them back: fresh arrays, in another order
      const start = { step, moments: new Map([...moments].reverse()) };
      const resumed = await trained(steps, { ...optim, values, start });
      expect(bits(resumed.values)).toEqual(bits(straight.values));
      // they are in the optimizer now, and not twice in memory
      expect(start.moments.size).toBe(0);
      expect(resumed.reports.map((report) => report.step)).toEqual(Array.from({ length: steps - step }, (_, i) => step + 1 + i));
    }
  });

  test('leaves frozen weights alone and asks for no gradient of them', async () => {
    let compiled: { outputs: string[]; options: CompileOptions } | undefined;
    const watched: Engine = {
      ...engine,
      compile(graph, options = {}) {
        // the first program is that of losses and gradients
        compiled ??= { outputs: Object.keys(graph), options };
        return engine.compile(graph, options);
      },
    };
    const before = freshValues();
    const trainable = (name: string) => name.startsWith('model.layers.1.mlp');
    const { values } = await trained(4, { engine: watched, trainable });
    const changed = [...values.keys()].filter((name) => values.get(name)!.some((v, i) => v !== before.get(name)![i]));
    expect(changed.sort()).toEqual([...values.keys()].filter(trainable).sort());
    expect(changed.length).toBe(3);
    const { constants, writes } = compiled!.options;
    expect(compiled!.outputs).toEqual(['loss']);
    expect(Object.keys(writes!).sort()).toEqual(changed.map((name) => `gradient.${name}`).sort());
    expect([...constants!.keys()].sort()).toEqual([...values.keys()].filter((name) => !trainable(name)).sort());
  });

  test('uses the learning rate of each parameter', async () => {
    const before = freshValues();
    const { values } = await trained(3, { learningRate: (name) => (name === 'model.norm.weight' ? 0 : 0.02) });
    expect(values.get('model.norm.weight')).toEqual(before.get('model.norm.weight'));
    expect(values.get('model.embed_tokens.weight')).not.toEqual(before.get('model.embed_tokens.weight'));
  });

  test('stops at a gradient that is not finite, with the weights of the step before', async () => {
    const good = await trained(2, { schedule: { kind: 'constant', totalSteps: 2, warmupSteps: 0, floor: 0 } });
    const values = freshValues();
    const broken = (step: number) => {
      const [only] = bigBatches(step);
      return step < 2 ? [only] : [{ ...only, weight: Number.NaN }];
    };
    const run = trained(5, {
      values,
      schedule: { kind: 'constant', totalSteps: 5, warmupSteps: 0, floor: 0 },
      data: { stepsPerEpoch: 4, batches: broken },
    });
    await expect(run).rejects.toThrow('the gradient of every parameter is not finite (norm NaN) at step 3');
    expect(bits(values)).toEqual(bits(good.values));
  });

  test('offers what was trained to be saved where a step could not begin, and not where it was broken off half-way', async () => {
    const failing = (fails: (outputs: Readonly<Record<string, unknown>>, call: number) => boolean): Engine => ({
      ...engine,
      async compile(outputs, options) {
        const program = await engine.compile(outputs, options);
        let calls = 0;
        return {
          ...program,
          run: (inputs, more) => (fails(outputs, ++calls) ? Promise.reject(new Error('broken')) : program.run(inputs, more)),
        };
      },
    });
    const offered = async (engine: Engine) => {
      const steps: number[] = [];
      const onFailure = vi.fn(async () => {});
      await expect(trained(4, { engine, onFailure, onStep: ({ step }) => void steps.push(step) })).rejects.toThrow('broken');
      return { steps, times: onFailure.mock.calls.length };
    };
    // losses and gradients of the third step
    expect(await offered(failing((outputs, call) => 'loss' in outputs && call === 3))).toEqual({ steps: [1, 2], times: 1 });
    // the update of the third step
    expect(await offered(failing((outputs, call) => 'model.norm.weight.change' in outputs && call === 3))).toEqual({
      steps: [1, 2],
      times: 0,
    });
    // and a fault between steps
    const onFailure = vi.fn(async () => {});
    const onStep = async () => {
      throw new Error('no disk');
    };
    await expect(trained(2, { onFailure, onStep })).rejects.toThrow('no disk');
    expect(onFailure).toHaveBeenCalledTimes(1);
  });

  test('a checkpoint without a moment is refused by name', async () => {
    const start = { step: 1, moments: new Map<string, Value>() };
    await expect(trained(2, { start })).rejects.toThrow('the checkpoint has no model.embed_tokens.weight.exp_avg of the optimizer');
  });

  test('codes are refused where the stage keeps float32 moments, and the other way', async () => {
    const momentsOf = async (changes: Changes) => {
      const moments = new Map<string, Value>();
      const onStep = async (report: StepReport) => {
        for (const [name, moment] of report.moments) moments.set(name, await read(moment));
      };
      await trained(1, { ...changes, loss: wideLoss, onStep });
      return moments;
    };
    const [[, plain], [, coded]] = optims;
    const name = 'model.layers.0.self_attn.q_proj.weight.exp_avg';
    for (const [before, after, dtype] of [
      [plain, coded, 'uint8'],
      [coded, plain, 'float32'],
    ] as const) {
      const start = { step: 1, moments: await momentsOf(before) };
      await expect(trained(2, { ...after, loss: wideLoss, start })).rejects.toThrow(`no ${name} of the optimizer in ${dtype}`);
    }
  });

  test('a large model is trained with memory before speed, a small one is not', async () => {
    const leanOf = async (rows: number) => {
      let lean: boolean | undefined;
      const watched: Engine = {
        ...engine,
        async compile(_outputs, options) {
          lean = options?.lean;
          throw new Error('seen');
        },
      };
      const large = languageModelLoss({ ...config, vocab_size: rows });
      const [trained, ...frozen] = large.parameters.toReversed();
      const nothing = ({ dims }: { dims: readonly number[] }) => ({ dtype: 'float32' as const, dims, data: new Float32Array(0) });
      const stage = trainStage({
        engine: watched,
        loss: large,
        trained: new Map([[trained.name, engine.zeros('float32', trained.dims)]]),
        constants: new Map(frozen.map((parameter) => [parameter.name, nothing(parameter)])),
        learningRate: () => 0.02,
        schedule: { kind: 'constant', totalSteps: 1, warmupSteps: 0, floor: 0 },
        optimizer: { betas: [0.9, 0.95], eps: 1e-8, weightDecay: 0, maxGradNorm: 1 },
        data: { stepsPerEpoch: 4, batches: bigBatches },
      });
      await expect(stage).rejects.toThrow('seen');
      return lean;
    };
    // 16 numbers of 4 bytes a row: half a gigabyte is 8,388,608 rows
    expect(await leanOf(8_380_000)).toBe(false);
    expect(await leanOf(8_390_000)).toBe(true);
  });

  test('says what is wrong with a stage', async () => {
    await expect(trained(1, { trainable: () => false })).rejects.toThrow('the stage trains nothing');
    const onlyNorm = new Map([...freshValues()].filter(([name]) => name === 'model.norm.weight'));
    await expect(trained(1, { values: onlyNorm })).rejects.toThrow('no value for parameter model.embed_tokens.weight');
    await expect(trained(1, { data: { stepsPerEpoch: 1, batches: () => [] } })).rejects.toThrow('the data gave no batch for step 0');
    const masked = { ...batch(0, 0, 2, TOKENS), tokens: 16 };
    await expect(trained(1, { data: { stepsPerEpoch: 1, batches: () => [masked] } })).rejects.toThrow('step 1 has no label to learn from');
  });
});
