// The graph of self-distillation without labels for a DINOv2: DINO's loss between views (Caron et al. 2021)
// and iBOT's on masked patches (Zhou et al. 2022), with Sinkhorn-Knopp centering, as in DINOv2 (Oquab et al.
// 2023). A student predicts, from one view and from pictures with masked patches, what its teacher says of
// another view and of what is masked; the teacher is the average of the student's weights.

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

/** What stands behind the encoder's rows while they are trained. */
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

/** Normalized rows of an encoder, [images, 1 + patches, hidden]. */
function encode(p: Parameters, config: Dinov2Config, pixels: Tensor, masked?: Tensor): Tensor {
  return dinov2Norm(p, config, dinov2(p, config, pixels, config.num_hidden_layers, masked).at(-1)!);
}

/** Sums of rows [images, rows, hidden] by `weights` [images, sums, rows]: [images * sums, hidden]. */
const read = (rows: Tensor, weights: Tensor) => flattenLeading(matmul(weights, rows));

/** Rows of patches, the class tokens left out. */
const patchRows = (rows: Tensor) => slice(rows, 1, 1, rows.dims[1] as number);

/**
 * DINO's loss plus iBOT's, each a mean once it is scaled; a whole batch has weight 1. Inputs, as `viewBatch`
 * in data/emoji/views.ts fills them: global_pixels [globals, 3, size, size] and local_pixels [locals, 3,
 * localSize, localSize]. How drawings are read: weights of patches [globals, slots, patches], by the student
 * (global_reading) and by the teacher (teacher_reading), of which `drawings` int32 [drawings] has the places
 * with a drawing; local_reading [locals, 1 + patches], the class token's weight first. What the teacher says:
 * global_target int32 [drawings], the same drawing in the other view, and local_targets int32 [2, locals], in
 * both. masked bool [globals, patches], which the student does not see, and masked_rows int32 [masks], flat
 * indices of the same; dino_scale and ibot_scale, factors on the sums of losses. Both losses share the head,
 * as in iBOT. The teacher's parameters are inputs, named by `teacherInput`.
 */
export function selfDistillationLoss(config: Dinov2Config, options: SelfDistillationOptions, graphOptions?: GraphOptions): LossGraph {
  const { head, localSize, studentTemperature, teacherTemperature } = options;
  const { image_size: size, patch_size: patch } = config;
  const patchesOf = (side: number) => Math.floor(side / patch) ** 2;
  const inputs = {
    global_pixels: input('global_pixels', 'float32', ['globals', 3, size, size]),
    local_pixels: input('local_pixels', 'float32', ['locals', 3, localSize, localSize]),
    global_reading: input('global_reading', 'float32', ['globals', 'slots', patchesOf(size)]),
    teacher_reading: input('teacher_reading', 'float32', ['globals', 'slots', patchesOf(size)]),
    drawings: input('drawings', 'int32', ['drawings']),
    local_reading: input('local_reading', 'float32', ['locals', 1 + patchesOf(localSize)]),
    masked: input('masked', 'bool', ['globals', patchesOf(size)]),
    masked_rows: input('masked_rows', 'int32', ['masks']),
    global_target: input('global_target', 'int32', ['drawings']),
    local_targets: input('local_targets', 'int32', [2, 'locals']),
    dino_scale: input('dino_scale', 'float32', []),
    ibot_scale: input('ibot_scale', 'float32', []),
  };
  const drawingsIn = (patches: Tensor, reading: Tensor) => gather(read(patches, reading), inputs.drawings);
  const teacher = new Parameters().module(teacherInput('').slice(0, -1), (p) => {
    const patches = patchRows(encode(p, config, inputs.global_pixels));
    const say = (rows: Tensor) => sinkhorn(prototypeCosines(p, head, rows), teacherTemperature);
    return {
      drawings: say(drawingsIn(patches, inputs.teacher_reading)),
      patches: say(gather(flattenLeading(patches), inputs.masked_rows)),
    };
  });
  return graphOf((p) => {
    const whole = patchRows(encode(p, config, inputs.global_pixels, inputs.masked));
    const local = encode(p, config, inputs.local_pixels);
    const loss = (rows: Tensor, targets: Tensor) => crossEntropySum(prototypeCosines(p, head, rows), targets, studentTemperature);
    const ofGlobals = loss(drawingsIn(whole, inputs.global_reading), gather(teacher.drawings, inputs.global_target));
    const [locals, rows] = inputs.local_reading.dims;
    const ofBoth = reduceSum(gather(teacher.drawings, inputs.local_targets), [0]);
    const ofLocals = loss(read(local, reshape(inputs.local_reading, [locals, 1, rows])), ofBoth);
    const dinoLoss = mul(add(ofGlobals, ofLocals), inputs.dino_scale);
    const ibotLoss = mul(loss(gather(flattenLeading(whole), inputs.masked_rows), teacher.patches), inputs.ibot_scale);
    return { inputs, outputs: { loss: add(dinoLoss, ibotLoss), dino_loss: dinoLoss, ibot_loss: ibotLoss } };
  }, graphOptions);
}
