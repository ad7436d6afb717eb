// Optimizers: what a step does to the trained parameters, as a program of the engine over its state. AdamW
// (Loshchilov & Hutter 2019) with clipping by global norm, as torch.optim.AdamW and clip_grad_norm_ compute
// them.

import { type Engine, float32, type State, type Value, type Write } from '../engine/engine.ts';
import { UserError } from '../errors.ts';
import { input } from '../graph/tensor.ts';
import { adamW, squaredNorm } from '../graph/updates.ts';

export interface AdamWOptions {
  betas: readonly [number, number];
  eps: number;
  /**
   * Decoupled weight decay for tensors of two dims or more; biases and norms get none (LLaVA, Hugging Face
   * Trainer).
   */
  weightDecay: number;
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
}

export interface Optimizer {
  /**
   * What the optimizer remembers of each parameter that it updates, by the name that it has in checkpoints.
   */
  readonly moments: ReadonlyMap<string, State>;
  /**
   * One update of every parameter from its gradient. Returns the global norm of the scaled gradients, before
   * clipping. UserError when it is not finite, before anything is changed.
   */
  step(step: OptimizerStep): Promise<number>;
  dispose(): Promise<void>;
}

const scalar = (value: number): Value => float32([value], []);
const gradientName = (name: string) => `${name}.grad`;

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
  }
  for (const [name, moment] of moments) state[name] = moment;

  const norms = await engine.compile(
    Object.fromEntries(parameters.map(({ name, dims }) => [name, squaredNorm(input(gradientName(name), 'float32', dims))])),
  );
  const update = await engine.compile({}, { writes });
  return {
    moments,
    async step({ step, scale, learningRate }) {
      const squares = await norms.run({}, { state });
      const sum = parameters.reduce((total, { name }) => total + (squares[name].data[0] as number), 0);
      const norm = Math.sqrt(sum) * scale;
      if (!Number.isFinite(norm))
        throw new UserError(
          `the gradient is not finite (norm ${norm}) at step ${step}: lower the learning rate (for --resume, in recipe.yaml of the run folder) or look at the data`,
        );
      const factor = maxGradNorm > 0 ? Math.min(1, maxGradNorm / (norm + 1e-6)) : 1;
      const scalars: Record<string, Value> = {
        clip: scalar(factor * scale),
        root_scale: scalar(1 / Math.sqrt(1 - beta2 ** step)),
      };
      for (const { name, dims } of updated) {
        const rate = learningRate(name);
        scalars[`${name}.keep`] = scalar(dims.length > 1 ? 1 - rate * weightDecay : 1);
        scalars[`${name}.rate`] = scalar(rate / (1 - beta1 ** step));
      }
      await update.run(scalars, { state });
      return norm;
    },
    async dispose() {
      await norms.dispose();
      await update.dispose();
    },
  };
}
