// Optimizers: what a step does to the trained parameters, as a program of the engine over its state. AdamW
// (Loshchilov & Hutter 2019) with clipping by global norm, as torch.optim.AdamW and clip_grad_norm_ compute
// them; with moments in 8 bits, as AdamW8bit of bitsandbytes does (Dettmers et al. 2022).

import { codeBlocks } from '../dynamic-code.ts';
import { type Engine, elementBytes, float32, type State, sizeOf, type Value, type Write } from '../engine/engine.ts';
import { UserError } from '../errors.ts';
import { type DType, input, type Tensor } from '../graph/tensor.ts';
import { type AdamWScalars, adamW, adamW8bit, squaredNorm } from '../graph/updates.ts';

/** Whether moments are float32, or 8-bit codes where that does no harm; by the names of transformers. */
export type Optim = 'adamw_torch' | 'adamw_8bit';

export interface AdamWOptions {
  /** Default: adamw_torch. */
  optim?: Optim;
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

// === Moments ===

/** What AdamW remembers of a parameter, under its name in checkpoints. */
export interface Moment {
  name: string;
  dtype: Extract<DType, 'float32' | 'uint8'>;
  dims: readonly number[];
}

/** Tensors of fewer numbers keep float32 moments: they take little memory. */
const MIN_8BIT_SIZE = 4096;

/**
 * Tables of embeddings, whose rows have gradients of very different size: float32 moments keep them stable
 * (Dettmers et al. 2022, section 2.3).
 */
const EMBEDDING_TABLE = /(^|\.)(embed_tokens\.weight|(token|position)_embeddings?(\.weight)?)$/;

/** Whether the moments of a parameter are 8-bit codes. */
export const hasCodes = ({ name, dims }: Pick<TrainedParameter, 'name' | 'dims'>, optim: Optim = 'adamw_torch'): boolean =>
  optim === 'adamw_8bit' && sizeOf(dims) >= MIN_8BIT_SIZE && !EMBEDDING_TABLE.test(name);

/** The means of the gradient and of its square; each, of codes, with the largest magnitude of each block. */
export function momentsOf(parameter: Pick<TrainedParameter, 'name' | 'dims'>, optim?: Optim): Moment[] {
  const { name, dims } = parameter;
  return ['exp_avg', 'exp_avg_sq'].flatMap((kind): Moment[] => {
    const moment = `${name}.${kind}`;
    if (!hasCodes(parameter, optim)) return [{ name: moment, dtype: 'float32', dims }];
    const absmax = { name: `${moment}.absmax`, dtype: 'float32', dims: [codeBlocks(sizeOf(dims))] } as const;
    return [{ name: moment, dtype: 'uint8', dims }, absmax];
  });
}

/** Bytes of all moments of a parameter. */
export const momentBytes = (parameter: Pick<TrainedParameter, 'name' | 'dims'>, optim?: Optim): number =>
  momentsOf(parameter, optim).reduce((sum, { dtype, dims }) => sum + elementBytes[dtype] * sizeOf(dims), 0);

/** One update as tensors over inputs: what each state becomes, and the squared norm of the change. */
function updateOf(
  trained: TrainedParameter,
  moments: readonly Moment[],
  scalars: AdamWScalars,
  { optim, betas: [beta1, beta2], eps }: AdamWOptions,
): { after: Map<string, Tensor>; change: Tensor } {
  const { name, dims } = trained;
  const [parameter, gradient] = [input(name, 'float32', dims), input(gradientName(name), 'float32', dims)];
  const tensors = moments.map((moment) => input(moment.name, moment.dtype, moment.dims));
  const named = (results: readonly Tensor[]) => new Map(moments.map((moment, i) => [moment.name, results[i]]));
  const constants = { beta1, beta2, eps };
  if (!hasCodes(trained, optim)) {
    const [expAvg, expAvgSq] = tensors;
    const next = adamW({ parameter, gradient, expAvg, expAvgSq }, scalars, constants);
    return { after: named([next.expAvg, next.expAvgSq]).set(name, next.parameter), change: next.change };
  }
  const [expAvg, expAvgAbsmax, expAvgSq, expAvgSqAbsmax] = tensors;
  const next = adamW8bit({ parameter, gradient, expAvg, expAvgAbsmax, expAvgSq, expAvgSqAbsmax }, scalars, constants);
  const results = [next.expAvg, next.expAvgAbsmax, next.expAvgSq, next.expAvgSqAbsmax];
  return { after: named(results).set(name, next.parameter), change: next.change };
}

// === Steps ===

/**
 * AdamW over `parameters`. Moments begin at zero; `moments` are written to when a run is resumed. The norm is
 * that of all parameters; those that are not `isOwn` are updated by somebody else.
 */
export async function createAdamW(
  engine: Engine,
  parameters: readonly TrainedParameter[],
  options: AdamWOptions,
  isOwn: (name: string) => boolean = () => true,
): Promise<Optimizer> {
  const { optim, betas, weightDecay, maxGradNorm } = options;
  const [beta1, beta2] = betas;
  const updated = parameters.filter(({ name }) => isOwn(name));
  const moments = new Map<string, State>();
  const state: Record<string, State> = {};
  const writes: Record<string, Write> = {};
  const measured: Record<string, Tensor> = {};
  const decayOf = typeof weightDecay === 'number' ? () => weightDecay : weightDecay;
  const clip = input('clip', 'float32', []);
  const rootScale = input('root_scale', 'float32', []);
  for (const { name, gradient } of parameters) state[gradientName(name)] = gradient;
  for (const parameter of updated) {
    const { name, dims, values } = parameter;
    const own = momentsOf(parameter, optim);
    for (const moment of own) moments.set(moment.name, engine.zeros(moment.dtype, moment.dims));
    state[name] = values;
    const scalars = { clip, keep: input(`${name}.keep`, 'float32', []), rate: input(`${name}.rate`, 'float32', []), rootScale };
    const { after, change } = updateOf(parameter, own, scalars, options);
    for (const [written, tensor] of after) writes[written] = { mode: 'replace', tensor };
    measured[name] = squaredNorm(input(name, 'float32', dims));
    measured[changeName(name)] = change;
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
      for (const moment of moments.values()) moment.clear();
      await norms.dispose();
      await update.dispose();
    },
  };
}
