// The graph of self-distillation without labels for a DINOv2: DINO's loss on class tokens (Caron et al. 2021)
// and iBOT's on masked patches (Zhou et al. 2022), with Sinkhorn-Knopp centering, as in DINOv2 (Oquab et al.
// 2023). A student predicts, from crops and from pictures with masked patches, what its teacher says of other
// crops and of what is masked; the teacher is the average of the student's weights.

import type { Dim } from '../graph/dims.ts';
import {
  add,
  div,
  exp,
  flattenLeading,
  gather,
  log,
  matmul,
  mul,
  reduceMean,
  reduceSum,
  reshape,
  slice,
  softmax,
  sqrt,
  sub,
} from '../graph/primitives.ts';
import { input, type Tensor } from '../graph/tensor.ts';
import { ACTIVATIONS } from '../nn/activations.ts';
import { linear } from '../nn/layers.ts';
import { Parameters } from '../nn/parameters.ts';
import { type Dinov2Config, dinov2, dinov2Norm } from './dinov2.ts';
import { type GraphOptions, graphOf, type LossGraph } from './programs.ts';

/** What stands behind class tokens and patches while they are trained. */
export interface DistillationHead {
  /** Width of its two hidden layers. */
  hidden: number;
  /** Width of the unit vectors that are compared with the prototypes. */
  bottleneck: number;
  prototypes: number;
}

export interface SelfDistillationOptions {
  head: DistillationHead;
  /** Side of the local crops in pixels. */
  localSize: number;
  studentTemperature: number;
  teacherTemperature: number;
}

const HEAD = 'dino_head';

/** Whether a parameter is the head's, which is no part of the encoder. */
export const isOfHead = (name: string): boolean => name.startsWith(`${HEAD}.`);

/** The input that holds the teacher's value of a parameter. */
export const teacherInput = (parameter: string): string => `teacher.${parameter}`;

const normalize = (x: Tensor) => div(x, sqrt(add(reduceSum(mul(x, x), [-1], true), 1e-12)));

const SINKHORN_ITERATIONS = 3;

/** How much each column of [rows, columns] says of a row beside others: mean 0, standard deviation 1. */
function standardized(x: Tensor): Tensor {
  const centered = sub(x, reduceMean(x, [0], true));
  return div(centered, sqrt(add(reduceMean(mul(centered, centered), [0], true), 1e-12)));
}

/**
 * What a teacher says: probabilities of prototypes [rows, prototypes] from their cosines with the rows. Each
 * row sums to 1, and the prototypes share the batch about evenly, so that not all rows can be alike
 * (Sinkhorn-Knopp; Caron et al. 2020).
 *
 * Ours: the cosines are first standardized over the batch. Fresh encoders give nearly the same row for every
 * picture. Their teachers then say next to nothing, which a student learns by making all rows equal; batches
 * of thousands, as the papers have, are one way out of that.
 */
export function sinkhorn(cosines: Tensor, temperature: number): Tensor {
  let shares = softmax(mul(standardized(cosines), 1 / temperature));
  for (let i = 0; i < SINKHORN_ITERATIONS; i++) {
    shares = div(shares, add(reduceSum(shares, [0], true), 1e-12));
    shares = div(shares, reduceSum(shares, [1], true));
  }
  return shares;
}

/** Cosines of rows [rows, width] with the prototypes, [rows, prototypes]. */
function prototypeCosines(p: Parameters, { hidden, bottleneck, prototypes }: DistillationHead, rows: Tensor): Tensor {
  return p.module(HEAD, (p) => {
    const first = ACTIVATIONS.gelu(linear(p, 'fc1', rows, hidden, { bias: true }));
    const second = ACTIVATIONS.gelu(linear(p, 'fc2', first, hidden, { bias: true }));
    const directions = p.module('last_layer', (p) => p.get('weight', [prototypes, bottleneck]));
    return matmul(normalize(linear(p, 'fc3', second, bottleneck, { bias: true })), normalize(directions), { transB: true });
  });
}

/** Sum over rows of the cross entropy of a student's cosines against `targets`, both [rows, prototypes]. */
function crossEntropySum(cosines: Tensor, targets: Tensor, temperature: number): Tensor {
  const logits = mul(cosines, 1 / temperature);
  const logSum = log(reduceSum(exp(logits), [1], true));
  return reduceSum(mul(targets, sub(logSum, logits)), [0, 1]);
}

/** Normalized rows of an encoder: class tokens [images, hidden] and patches [images * patches, hidden]. */
function encode(p: Parameters, config: Dinov2Config, pixels: Tensor, masked?: Tensor): { classes: Tensor; patches: Tensor } {
  const last = dinov2(p, config, pixels, config.num_hidden_layers, masked).at(-1)!;
  const rows = dinov2Norm(p, config, last);
  const [images, count, hidden] = rows.dims as [Dim, number, number];
  return { classes: reshape(slice(rows, 1, 0, 1), [images, hidden]), patches: flattenLeading(slice(rows, 1, 1, count)) };
}

/**
 * DINO's loss plus iBOT's, each a mean once it is scaled; a whole batch has weight 1. Inputs: global_pixels
 * [globals, 3, size, size] and local_pixels [locals, 3, localSize, localSize]; masked bool [globals,
 * patches], which the student does not see; masked_rows int32 [masks], flat indices of the same;
 * global_target int32 [globals], the other global crop of each one's scene; local_targets int32 [2, locals],
 * the two of each local crop's; class_scale and patch_scale, factors on the sums of losses. Both losses share
 * the head, as in iBOT. The teacher's parameters are inputs, named by `teacherInput`.
 */
export function selfDistillationLoss(config: Dinov2Config, options: SelfDistillationOptions, graphOptions?: GraphOptions): LossGraph {
  const { head, localSize, studentTemperature, teacherTemperature } = options;
  const { image_size: size, patch_size: patch } = config;
  const inputs = {
    global_pixels: input('global_pixels', 'float32', ['globals', 3, size, size]),
    local_pixels: input('local_pixels', 'float32', ['locals', 3, localSize, localSize]),
    masked: input('masked', 'bool', ['globals', Math.floor(size / patch) ** 2]),
    masked_rows: input('masked_rows', 'int32', ['masks']),
    global_target: input('global_target', 'int32', ['globals']),
    local_targets: input('local_targets', 'int32', [2, 'locals']),
    class_scale: input('class_scale', 'float32', []),
    patch_scale: input('patch_scale', 'float32', []),
  };
  const teacher = new Parameters().module(teacherInput('').slice(0, -1), (p) => {
    const { classes, patches } = encode(p, config, inputs.global_pixels);
    const say = (rows: Tensor) => sinkhorn(prototypeCosines(p, head, rows), teacherTemperature);
    return { classes: say(classes), patches: say(gather(patches, inputs.masked_rows)) };
  });
  return graphOf((p) => {
    const whole = encode(p, config, inputs.global_pixels, inputs.masked);
    const part = encode(p, config, inputs.local_pixels);
    const loss = (rows: Tensor, targets: Tensor) => crossEntropySum(prototypeCosines(p, head, rows), targets, studentTemperature);
    const ofBoth = reduceSum(gather(teacher.classes, inputs.local_targets), [0]);
    const ofClasses = add(loss(whole.classes, gather(teacher.classes, inputs.global_target)), loss(part.classes, ofBoth));
    const classLoss = mul(ofClasses, inputs.class_scale);
    const patchLoss = mul(loss(gather(whole.patches, inputs.masked_rows), teacher.patches), inputs.patch_scale);
    return { inputs, outputs: { loss: add(classLoss, patchLoss), class_loss: classLoss, patch_loss: patchLoss } };
  }, graphOptions);
}
