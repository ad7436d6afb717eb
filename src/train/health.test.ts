import { describe, expect, test } from 'vitest';
import { createRandom } from '../random.ts';
import { createHealth, type HealthOptions } from './health.ts';
import type { StepReport } from './stage.ts';

const moduleOf = (name: string) => name.slice(0, name.indexOf('.'));
const schedule = { kind: 'constant', totalSteps: 400, warmupSteps: 10, floor: 0 } as const;
const healthOf = (changes: Partial<HealthOptions> = {}) => createHealth({ schedule, maxGradNorm: 1, moduleOf, ...changes });

interface Step extends Partial<Omit<StepReport, 'gradNorms'>> {
  /** Gradient norm, and share by which a step changes the weights, of the two modules. */
  connector?: number;
  model?: number;
  ratio?: number;
}

function report(step: number, { connector = 0.5, model = 0.5, ratio = 1e-3, ...rest }: Step = {}): StepReport {
  const gradNorm = Math.hypot(connector, model);
  const change = { weight: 10, change: 10 * ratio };
  return {
    step,
    loss: 2,
    metrics: {},
    learningRateFactor: 1,
    gradNorm,
    gradNorms: new Map([
      ['connector.weight', connector],
      ['model.weight', model],
    ]),
    clip: Math.min(1, 1 / gradNorm),
    changes: new Map([
      ['connector.weight', { weight: 10, change: 0.01 }],
      ['model.weight', change],
    ]),
    weight: 100,
    tokens: 1000,
    padding: 0,
    moments: new Map(),
    lead: (work) => work(),
    ...rest,
  };
}

/** Signs of a stage whose steps are those that `at` gives, with the step at which each was seen. */
function signsOf(steps: number, at: (step: number) => Step, health = healthOf()): [number, string, string | undefined][] {
  const signs: [number, string, string | undefined][] = [];
  for (let step = 1; step <= steps; step++)
    for (const { sign, module } of health.step(report(step, at(step)))) signs.push([step, sign, module]);
  return signs;
}

describe('a healthy stage', () => {
  test('of noisy losses and norms has no sign, whatever the seed', () => {
    for (let seed = 0; seed < 50; seed++) {
      const random = createRandom(seed);
      const noisy = (step: number) => ({
        // small batches: a tenth up and down, and norms within a factor of three
        loss: 4 * Math.exp(-step / 60) + 0.5 + 0.15 * random.normal(),
        connector: Math.exp(0.35 * random.normal()),
        model: 2 * Math.exp(0.35 * random.normal()),
        ratio: 3e-3 * Math.exp(random.normal()),
      });
      expect(signsOf(400, noisy), `seed ${seed}`).toEqual([]);
    }
  });

  test('may have batches without a picture, a large first step and small last ones', () => {
    expect(signsOf(60, (step) => ({ connector: step % 3 === 0 ? 0.5 : 0 }))).toEqual([]);
    expect(signsOf(60, (step) => ({ ratio: step < 15 ? 0.5 : 1e-3 }))).toEqual([]);
    expect(signsOf(60, (step) => ({ learningRateFactor: step < 50 ? 1 : 1e-9, ratio: step < 50 ? 1e-3 : 1e-12 }))).toEqual([]);
    expect(signsOf(200, () => ({ connector: 3, model: 3 }))).toEqual([]);
  });
});

describe('signs of failure', () => {
  test('a loss that jumps is told at once, and not at every step', () => {
    expect(signsOf(90, (step) => ({ loss: step >= 40 && step < 70 ? 3.5 : 2 }))).toEqual([[40, 'loss-spike', undefined]]);
    // a rise within what the loss does anyway is none
    expect(signsOf(90, (step) => ({ loss: step === 40 ? 3.5 : 2 + 0.4 * Math.sin(step) }))).toEqual([]);
    expect(healthOf().step(report(1, { loss: 900 }))).toEqual([]);
  });

  test('a gradient of more than ten times the usual norm', () => {
    expect(signsOf(60, (step) => ({ model: step === 30 ? 8 : 0.5 }))).toEqual([[30, 'gradient-spike', undefined]]);
    expect(signsOf(60, (step) => ({ model: step === 30 ? 6 : 0.5 }))).toEqual([]);
  });

  test('a module without a gradient, or with next to none', () => {
    expect(signsOf(60, () => ({ connector: 0 }))).toEqual([[20, 'dead-gradient', 'connector']]);
    expect(signsOf(60, () => ({ connector: 1e-8, model: 1 }))).toEqual([[20, 'dead-gradient', 'connector']]);
    const health = healthOf();
    for (let step = 1; step < 20; step++) expect(health.step(report(step, { connector: 0 }))).toEqual([]);
    expect(health.step(report(20, { connector: 0 }))[0].message).toBe(
      'connector has had no gradient for 20 steps: it does not learn; look whether the data have pictures and what the stage trains',
    );
  });

  test('updates that change too much or nothing', () => {
    expect(signsOf(60, () => ({ ratio: 0.2 }))).toEqual([[22, 'update-ratio', 'model']]);
    expect(signsOf(60, () => ({ ratio: 1e-8 }))).toEqual([[22, 'update-ratio', 'model']]);
  });

  test('weights that a whole stage leaves where they were, told at its end', () => {
    // too small for a step to be told by itself: a float32 holds it
    const tiny = 2e-7;
    expect(signsOf(400, () => ({ ratio: tiny }))).toEqual([[400, 'unmoved-weights', 'model']]);
    expect(signsOf(400, () => ({ ratio: 1e-6 }))).toEqual([]);
    // only some steps are measured: they stand for all
    expect(signsOf(400, (step) => ({ ratio: 2e-6, ...(step % 50 === 0 ? {} : { changes: undefined }) }))).toEqual([]);
    expect(signsOf(400, (step) => ({ ratio: tiny, ...(step % 50 === 0 ? {} : { changes: undefined }) }))).toEqual([
      [400, 'unmoved-weights', 'model'],
    ]);
  });

  test('steps that are all clipped to a fraction', () => {
    expect(signsOf(150, () => ({ model: 30 }))).toEqual([[100, 'clipping', undefined]]);
    expect(signsOf(150, (step) => ({ model: step % 90 === 0 ? 1 : 30 }))).toEqual([]);
  });

  test('a learning rate that does not get to its peak', () => {
    const begin = (totalSteps: number, warmupSteps: number) => healthOf({ schedule: { ...schedule, totalSteps, warmupSteps } }).begin();
    expect(begin(400, 10)).toEqual([]);
    expect(begin(2, 1)).toEqual([]);
    expect(begin(50, 100)[0].message).toContain('it gets to 49 % of lr and no further; lower warmup_steps');
    expect(begin(1, 1)[0].message).toContain('it stays 0, and nothing is learned');
  });

  test('a held-out loss that is no number, or no larger before the pictures of others', () => {
    const health = healthOf();
    const at = (step: number, loss: number, imageGain?: number) => health.heldOut({ step, loss, imageGain }).map(({ sign }) => sign);
    expect(at(0, 3, 0)).toEqual([]);
    expect(at(99, 3, 0)).toEqual([]);
    expect(at(100, 3, 0.06)).toEqual([]);
    expect(at(110, 3)).toEqual([]);
    expect(at(200, 3, 0.04)).toEqual(['image-ignored']);
    expect(at(300, 3, 0.04)).toEqual([]);
    expect(at(310, Number.NaN)).toEqual(['not-finite']);
  });

  test('a held-out loss that rises from its best for long', () => {
    const health = healthOf();
    const losses = [3, 2, 2.3, 2.1, 2.3, 2.4, 2.5, 2.6];
    const found = losses.map((loss, i) => health.heldOut({ step: 50 * i, loss }).map(({ sign }) => sign));
    expect(found).toEqual([[], [], [], [], [], [], ['overfitting'], []]);
  });
});

test('what a checkpoint keeps is enough to go on from', () => {
  const at = (step: number) => ({ loss: step === 45 ? 9 : 2, connector: step < 23 ? 0.5 : 0, ratio: step > 36 ? 0.2 : 1e-3 });
  const straight = signsOf(60, at);
  expect(straight.map(([, sign]) => sign)).toEqual(['update-ratio', 'dead-gradient', 'loss-spike']);
  for (const stop of [5, 38, 45, 50]) {
    const first = healthOf();
    const before = signsOf(stop, at, first);
    const second = healthOf({ state: JSON.parse(JSON.stringify(first.state())) });
    const after: typeof straight = [];
    for (let step = stop + 1; step <= 60; step++)
      for (const { sign, module } of second.step(report(step, at(step)))) after.push([step, sign, module]);
    expect([...before, ...after], `stopped after ${stop}`).toEqual(straight);
  }
});
