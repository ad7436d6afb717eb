import { describe, expect, test } from 'vitest';
import { type Engine, float32, int32 } from '../engine/engine.ts';
import { createOrtEngine } from '../engine/ort.ts';
import { languageConfigSchema } from '../models/language.ts';
import { languageModelObjective } from '../models/objectives.ts';
import { initialise } from '../nn/parameters.ts';
import { createRandom } from '../random.ts';
import type { OptimizerSlot } from './optimizer.ts';
import { type MicroBatch, type StageOptions, type StepReport, trainStage } from './stage.ts';

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
const objective = languageModelObjective(config);
const TOKENS = 8;

function freshValues(seed = 1): Map<string, Float32Array> {
  return new Map(objective.parameters.list().map((p) => [p.name, initialise(p, createRandom(seed, p.name))]));
}

/** `rows` sentences of a step, from `first` on, all of them labelled; the loss is the mean over `rowsInStep`. */
function batch(step: number, first: number, rows: number, rowsInStep: number): MicroBatch {
  const shape = [rows, TOKENS];
  const ids = Array.from({ length: rows }, (_, i) => {
    const random = createRandom(3, step, first + i);
    return Array.from({ length: TOKENS }, () => random.integer(23));
  }).flat();
  const labelled = [...ids.keys()].filter((i) => i % TOKENS > 0);
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
      loss_scale: float32([1 / (rowsInStep * (TOKENS - 1))], []),
    },
    tokens: ids.length,
  };
}

const bigBatches = (step: number) => [batch(step, 0, 4, 4)];

interface Outcome {
  values: Map<string, Float32Array>;
  reports: StepReport[];
}

async function trained(steps: number, changes: Partial<StageOptions> = {}): Promise<Outcome> {
  const values = (changes.values as Map<string, Float32Array> | undefined) ?? freshValues();
  const reports: StepReport[] = [];
  await trainStage({
    engine,
    objective,
    values,
    trainable: () => true,
    learningRate: () => 0.02,
    schedule: { kind: 'cosine', totalSteps: steps, warmupSteps: 2, floor: 0 },
    optimizer: { betas: [0.9, 0.95], eps: 1e-8, weightDecay: 0.1, maxGradNorm: 1 },
    data: { stepsPerEpoch: 4, batches: bigBatches },
    onStep: (report) => {
      reports.push({ ...report, slots: [] });
    },
    ...changes,
  });
  return { values, reports };
}

/** Bits, so that -0 and NaN count too. */
const bits = (values: ReadonlyMap<string, Float32Array>) =>
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

  test('gives the same with accumulated halves as with a big batch', async () => {
    const once: Partial<StageOptions> = {
      schedule: { kind: 'constant', totalSteps: 1, warmupSteps: 0, floor: 0 },
      // Adam's first step has the size of the learning rate, whatever the gradient; a large eps lets its size show
      optimizer: { betas: [0.9, 0.95], eps: 1, weightDecay: 0, maxGradNorm: 0 },
    };
    const whole = await trained(1, once);
    const halves = await trained(1, {
      ...once,
      data: { stepsPerEpoch: 4, batches: (step) => [batch(step, 0, 2, 4), batch(step, 2, 2, 4)] },
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

  test('resumed from any step gives the bits of a straight run', async () => {
    const steps = 6;
    const saved: { values: Map<string, Float32Array>; slots: OptimizerSlot[] }[] = [];
    const values = freshValues();
    const straight = await trained(steps, {
      values,
      onStep: ({ slots }) => {
        saved.push(structuredClone({ values, slots: [...slots] }));
      },
    });
    for (const step of [1, 4]) {
      const { values, slots } = saved[step - 1];
      // as a checkpoint gives them back: fresh arrays, in another order
      const start = { step, slots: [...slots].reverse() };
      const resumed = await trained(steps, { values, start });
      expect(bits(resumed.values)).toEqual(bits(straight.values));
      expect(resumed.reports.map((report) => report.step)).toEqual(Array.from({ length: steps - step }, (_, i) => step + 1 + i));
    }
  });

  test('leaves frozen weights alone and asks for no gradient of them', async () => {
    let outputs: string[] = [];
    let constants: string[] = [];
    const watched: Engine = {
      name: 'watched',
      compile(graph, options) {
        outputs = Object.keys(graph);
        constants = [...(options?.constants?.keys() ?? [])];
        return engine.compile(graph, options);
      },
    };
    const before = freshValues();
    const trainable = (name: string) => name.startsWith('model.layers.1.mlp');
    const { values } = await trained(4, { engine: watched, trainable });
    const changed = [...values.keys()].filter((name) => values.get(name)!.some((v, i) => v !== before.get(name)![i]));
    expect(changed.sort()).toEqual([...values.keys()].filter(trainable).sort());
    expect(changed.length).toBe(3);
    expect(outputs.sort()).toEqual(['loss', ...changed.map((name) => `gradient.${name}`)].sort());
    expect(constants.sort()).toEqual([...values.keys()].filter((name) => !trainable(name)).sort());
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
      return step < 2 ? [only] : [{ ...only, inputs: { ...only.inputs, loss_scale: float32([Number.NaN], []) } }];
    };
    const run = trained(5, {
      values,
      schedule: { kind: 'constant', totalSteps: 5, warmupSteps: 0, floor: 0 },
      data: { stepsPerEpoch: 4, batches: broken },
    });
    await expect(run).rejects.toThrow('the gradient is not finite (norm NaN) at step 3');
    expect(bits(values)).toEqual(bits(good.values));
  });

  test('says what is wrong with a stage', async () => {
    await expect(trained(1, { trainable: () => false })).rejects.toThrow('the stage trains nothing');
    await expect(trained(1, { values: new Map() })).rejects.toThrow('no value for parameter model.embed_tokens.weight');
    await expect(trained(1, { data: { stepsPerEpoch: 1, batches: () => [] } })).rejects.toThrow('the data gave no batch for step 0');
  });
});
