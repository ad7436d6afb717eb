// Optimizers: what a step does to the trained parameters, as a program of the engine over its state. AdamW
// (Loshchilov & Hutter 2019) with clipping by global norm, as torch.optim.AdamW and clip_grad_norm_ compute
// them.

import { type Engine, float32, type State, type Value, type Write } from '../engine/engine.ts';
import { UserError } from '../errors.ts';
import { input, type Tensor } from '../graph/tensor.ts';
import { adamW, squaredNorm } from '../graph/updates.ts';

export interface AdamWOptions {
  betas: readonly [number, number];
  eps: number;
  /**
   * Decoupled weight decay for tensors of two dims or more, of all or by name; biases and norms get none
   * (LLaVA, Hugging Face Trainer).
   */
  weightDecay: number | ((name: string) => number);
  /** Global gradient norm is clipped to this; 0 does not clip. */
  maxGradNorm: number;
}

/** A trained parameter: float32 state of `dims`, with the sum of its gradients beside it. */
export interface TrainedParameter {
  name: string;
  dims: readonly number[];
  values: State;
  gradient: State;
}

export interface OptimizerStep {
  /** From 1. */
  step: number;
  /** Factor on every gradient before anything else: 1 / what the batches of the step weigh. */
  scale: number;
  /** Learning rate of a parameter, by its name. */
  learningRate: (name: string) => number;
  /** Whether the report is to have `changes`. */
  measures?: boolean;
}

/** What a step has done, in L2 norms. */
export interface OptimizerReport {
  /** Of the scaled gradients of all parameters together, before clipping. */
  gradNorm: number;
  /** Of each by itself. */
  gradNorms: ReadonlyMap<string, number>;
  /** What every gradient was multiplied by to clip it; 1 where it was small enough. */
  clip: number;
  /** Of each parameter that is updated here before the step, and of its change. */
  changes?: ReadonlyMap<string, { weight: number; change: number }>;
}

/** A gradient holds NaN or infinity. */
export class NotFiniteError extends UserError {}

export interface Optimizer {
  /**
   * What the optimizer remembers of each parameter that it updates, by the name that it has in checkpoints.
   */
  readonly moments: ReadonlyMap<string, State>;
  /**
   * One update of every parameter from its gradient. NotFiniteError, before anything is changed.
   */
  step(step: OptimizerStep): Promise<OptimizerReport>;
  dispose(): Promise<void>;
}

const scalar = (value: number): Value => float32([value], []);
const gradientName = (name: string) => `${name}.grad`;
const changeName = (name: string) => `${name}.change`;

/** The parameters whose gradients are not finite, in a few words. */
function culprits(gradNorms: ReadonlyMap<string, number>): string {
  const names = [...gradNorms].filter(([, norm]) => !Number.isFinite(norm)).map(([name]) => name);
  if (names.length === gradNorms.size) return 'of every parameter';
  return names.length > 1 ? `of ${names[0]} and ${names.length - 1} others` : `of ${names[0] ?? 'all together'}`;
}

/** Names in checkpoints of what AdamW remembers of a parameter. */
export const momentNames = (parameter: string): [string, string] => [`${parameter}.exp_avg`, `${parameter}.exp_avg_sq`];

/**
 * AdamW over `parameters`. Moments begin at zero; `moments` are written to when a run is resumed. The norm is
 * that of all parameters; those that are not `isOwn` are updated by somebody else.
 */
export async function createAdamW(
  engine: Engine,
  parameters: readonly TrainedParameter[],
  { betas: [beta1, beta2], eps, weightDecay, maxGradNorm }: AdamWOptions,
  isOwn: (name: string) => boolean = () => true,
): Promise<Optimizer> {
  const updated = parameters.filter(({ name }) => isOwn(name));
  const moments = new Map<string, State>();
  const state: Record<string, State> = {};
  const writes: Record<string, Write> = {};
  const measured: Record<string, Tensor> = {};
  const decayOf = typeof weightDecay === 'number' ? () => weightDecay : weightDecay;
  const clip = input('clip', 'float32', []);
  const rootScale = input('root_scale', 'float32', []);
  for (const { name, gradient } of parameters) state[gradientName(name)] = gradient;
  for (const { name, dims, values } of updated) {
    const [expAvg, expAvgSq] = momentNames(name);
    for (const moment of [expAvg, expAvgSq]) moments.set(moment, engine.zeros('float32', dims));
    state[name] = values;
    const tensor = (of: string) => input(of, 'float32', dims);
    const after = adamW(
      { parameter: tensor(name), gradient: tensor(gradientName(name)), expAvg: tensor(expAvg), expAvgSq: tensor(expAvgSq) },
      { clip, keep: input(`${name}.keep`, 'float32', []), rate: input(`${name}.rate`, 'float32', []), rootScale },
      { beta1, beta2, eps },
    );
    writes[name] = { mode: 'replace', tensor: after.parameter };
    writes[expAvg] = { mode: 'replace', tensor: after.expAvg };
    writes[expAvgSq] = { mode: 'replace', tensor: after.expAvgSq };
    measured[name] = squaredNorm(tensor(name));
    measured[changeName(name)] = after.change;
  }
  for (const [name, moment] of moments) state[name] = moment;

  const norms = await engine.compile(
    Object.fromEntries(parameters.map(({ name, dims }) => [name, squaredNorm(input(gradientName(name), 'float32', dims))])),
  );
  const update = await engine.compile(measured, { writes });
  return {
    moments,
    async step({ step, scale, learningRate, measures = false }) {
      const squares = await norms.run({}, { state });
      const squareOf = (of: Record<string, Value>, name: string) => of[name].data[0] as number;
      const gradNorms = new Map(parameters.map(({ name }) => [name, Math.sqrt(squareOf(squares, name)) * scale]));
      const sum = parameters.reduce((total, { name }) => total + squareOf(squares, name), 0);
      const gradNorm = Math.sqrt(sum) * scale;
      if (!Number.isFinite(gradNorm))
        throw new NotFiniteError(
          `the gradient ${culprits(gradNorms)} is not finite (norm ${gradNorm}) at step ${step}: lower the learning rate (for --resume, in recipe.yaml of the run folder) or look at the data`,
        );
      const factor = maxGradNorm > 0 ? Math.min(1, maxGradNorm / (gradNorm + 1e-6)) : 1;
      const scalars: Record<string, Value> = {
        clip: scalar(factor * scale),
        root_scale: scalar(1 / Math.sqrt(1 - beta2 ** step)),
      };
      for (const { name, dims } of updated) {
        const rate = learningRate(name);
        scalars[`${name}.keep`] = scalar(dims.length > 1 ? 1 - rate * decayOf(name) : 1);
        scalars[`${name}.rate`] = scalar(rate / (1 - beta1 ** step));
      }
      const sums = await update.run(scalars, { state, outputs: measures ? Object.keys(measured) : [] });
      const report = { gradNorm, gradNorms, clip: factor };
      if (!measures) return report;
      const rootOf = (name: string) => Math.sqrt(squareOf(sums, name));
      const changes = new Map(updated.map(({ name }) => [name, { weight: rootOf(name), change: rootOf(changeName(name)) }]));
      return { ...report, changes };
    },
    async dispose() {
      await norms.dispose();
      await update.dispose();
    },
  };
}
