// AdamW (Loshchilov & Hutter 2019) with global-norm clipping, as torch.optim.AdamW and clip_grad_norm_ compute them, in place on the
// host's arrays: one pass over memory. As a graph the update takes a dozen passes and copies every parameter and moment out
// (docs/decisions.md).

import { UserError } from '../errors.ts';
import { adamWUpdate } from './adamw-kernel.ts';

export interface AdamWOptions {
  betas: readonly [number, number];
  eps: number;
  /** Decoupled weight decay for tensors of two dims or more; biases and norms get none (LLaVA, Hugging Face Trainer). */
  weightDecay: number;
  /** Global gradient norm is clipped to this; 0 does not clip. */
  maxGradNorm: number;
}

/** A trained parameter and its moments, all of one length and all changed in place. */
export interface OptimizerSlot {
  name: string;
  dims: readonly number[];
  values: Float32Array;
  /** Exponential mean of the gradient. */
  mean: Float32Array;
  /** Exponential mean of the squared gradient. */
  square: Float32Array;
}

export function createSlot(name: string, dims: readonly number[], values: Float32Array): OptimizerSlot {
  return { name, dims, values, mean: new Float32Array(values.length), square: new Float32Array(values.length) };
}

function sumOfSquares(gradient: Float32Array): number {
  // four partial sums: the additions of one chain would wait for each other
  let a = 0;
  let b = 0;
  let c = 0;
  let d = 0;
  const whole = gradient.length & ~3;
  for (let i = 0; i < whole; i += 4) {
    a += gradient[i] * gradient[i];
    b += gradient[i + 1] * gradient[i + 1];
    c += gradient[i + 2] * gradient[i + 2];
    d += gradient[i + 3] * gradient[i + 3];
  }
  for (let i = whole; i < gradient.length; i++) a += gradient[i] * gradient[i];
  return a + b + c + d;
}

/** L2 norm of all gradients together. */
export function gradientNorm(gradients: Iterable<Float32Array>): number {
  let sum = 0;
  for (const gradient of gradients) sum += sumOfSquares(gradient);
  return Math.sqrt(sum);
}

/**
 * One update of every slot. `gradients` in the order of `slots`; `step` counts from 1; `learningRate` by slot name. Returns the global
 * gradient norm before clipping; throws when it is not finite, before anything is changed.
 */
export function adamWStep(
  slots: readonly OptimizerSlot[],
  gradients: readonly Float32Array[],
  step: number,
  learningRate: (name: string) => number,
  { betas: [beta1, beta2], eps, weightDecay, maxGradNorm }: AdamWOptions,
): number {
  const norm = gradientNorm(gradients);
  if (!Number.isFinite(norm))
    throw new UserError(`the gradient is not finite (norm ${norm}) at step ${step}: lower the learning rate or look at the data`);
  const clip = maxGradNorm > 0 ? Math.min(1, maxGradNorm / (norm + 1e-6)) : 1;
  const correction1 = 1 - beta1 ** step;
  const correction2 = Math.sqrt(1 - beta2 ** step);
  slots.forEach(({ name, dims, values, mean, square }, i) => {
    const rate = learningRate(name);
    adamWUpdate(
      { values, mean, square, gradient: gradients[i] },
      {
        clip,
        beta1,
        share1: 1 - beta1,
        beta2,
        share2: 1 - beta2,
        keep: dims.length > 1 ? 1 - rate * weightDecay : 1,
        rate: rate / correction1,
        rootScale: 1 / correction2,
        eps,
      },
    );
  });
  return norm;
}
