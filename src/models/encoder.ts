// What the image and text encoders share: patches as rows, resizing of a position table, and pre-LN
// transformer blocks (Dosovitskiy et al. 2021; LayerScale: Touvron et al. 2021). clip.ts, siglip.ts and
// dinov2.ts name these parts and put them together.

import { type Dim, ShapeError } from '../graph/dims.ts';
import { add, hold, matmul, mul, reshape, slice, transpose } from '../graph/primitives.ts';
import { constant, type Tensor } from '../graph/tensor.ts';
import { ACTIVATIONS, type ActivationName } from '../nn/activations.ts';
import { layerNorm, linear, mergeHeads, selfAttention, splitHeads } from '../nn/layers.ts';
import { normal, type Parameters, zeros } from '../nn/parameters.ts';

// === Patches ===

export interface PatchOptions {
  hidden: number;
  /** Pixels along one side of a patch. */
  patch: number;
  bias?: boolean;
}

/**
 * A convolution whose stride equals its kernel size, as a matrix product: pixels
 * [images, channels, height, width] -> [images, patches, hidden], patches row by row from the top. Pixels
 * after the last whole patch are left out. `module` holds `weight` in Conv2d layout,
 * [hidden, channels, patch, patch]. ShapeError if not even one patch fits.
 */
export function patchEmbedding(p: Parameters, module: string, pixels: Tensor, { hidden, patch, bias = false }: PatchOptions): Tensor {
  return p.module(module, (p) => {
    const [images, channels, height, width] = pixels.dims as [Dim, number, number, number];
    const down = Math.floor(height / patch);
    const across = Math.floor(width / patch);
    if (down === 0 || across === 0)
      throw new ShapeError('patchEmbedding', `pixels do not fill a patch of ${patch} x ${patch}`, [pixels.dims]);
    const whole = firstOf(firstOf(pixels, 2, down * patch), 3, across * patch);
    const grid = reshape(whole, [images, channels, down, patch, across, patch]);
    const rows = reshape(transpose(grid, [0, 2, 4, 1, 3, 5]), [images, down * across, channels * patch * patch]);
    const weight = p.get('weight', [hidden, channels, patch, patch], normal(0.02));
    const embedded = matmul(rows, reshape(weight, [hidden, channels * patch * patch]), { transB: true });
    return bias ? add(embedded, p.get('bias', [hidden], zeros)) : embedded;
  });
}

const firstOf = (x: Tensor, axis: number, count: number) => (x.dims[axis] === count ? x : slice(x, axis, 0, count));

/** Throws a ShapeError unless pixels are [.., size, size]. */
export function checkSquare(pixels: Tensor, size: number): void {
  const [height, width] = pixels.dims.slice(-2);
  if (height !== size || width !== size) throw new ShapeError('patchEmbedding', `pixels must be ${size} x ${size}`, [pixels.dims]);
}

// === Positions ===

/** Keys' cubic convolution kernel (1981) with a = -0.75, PyTorch's choice (Pillow's is -0.5). */
function cubic(x: number): number {
  const a = -0.75;
  const t = Math.abs(x);
  if (t <= 1) return ((a + 2) * t - (a + 3)) * t * t + 1;
  if (t < 2) return ((t - 5) * t + 8) * t * a - 4 * a;
  return 0;
}

/**
 * Weights of `from` equally spaced values in each of `to`, [to, from]: PyTorch's upsample_bicubic2d along one
 * side, with align_corners false and no antialiasing. The first and last values are repeated outward.
 */
function bicubicWeights(from: number, to: number): Tensor {
  const weights = new Float32Array(to * from);
  for (let i = 0; i < to; i++) {
    const center = ((i + 0.5) * from) / to - 0.5;
    const first = Math.floor(center) - 1;
    for (let j = first; j < first + 4; j++) weights[i * from + Math.min(Math.max(j, 0), from - 1)] += cubic(j - center);
  }
  return constant(weights, [to, from]);
}

/** Resizes the position table of a square grid, bicubic: [from * from, hidden] -> [down * across, hidden]. */
export function resizePositions(table: Tensor, down: number, across: number): Tensor {
  const [positions, hidden] = table.dims as [number, number];
  const from = Math.round(Math.sqrt(positions));
  if (from === down && from === across) return table;
  const stretched = matmul(bicubicWeights(from, down), reshape(table, [from, from * hidden]));
  const resized = matmul(bicubicWeights(from, across), reshape(stretched, [down, from, hidden]));
  return reshape(resized, [down * across, hidden]);
}

// === Blocks ===

/** Module names that a family uses in its blocks. */
export interface BlockNames {
  /** Blocks are named `<blocks>.<number>`. */
  blocks: string;
  attentionNorm: string;
  query: string;
  key: string;
  value: string;
  output: string;
  mlpNorm: string;
}

/** The names of CLIP and SigLIP. */
export const CLIP_BLOCKS: BlockNames = {
  blocks: 'encoder.layers',
  attentionNorm: 'layer_norm1',
  query: 'self_attn.q_proj',
  key: 'self_attn.k_proj',
  value: 'self_attn.v_proj',
  output: 'self_attn.out_proj',
  mlpNorm: 'layer_norm2',
};

export interface EncoderOptions {
  names: BlockNames;
  /** Number of blocks to build. */
  layers: number;
  heads: number;
  epsilon: number;
  /** The MLP between norm and residual sum, [batch, tokens, hidden] -> the same. */
  feedForward: (p: Parameters, x: Tensor) => Tensor;
  /** Added to the attention scores, to which it broadcasts: [batch, heads, tokens, tokens]. */
  bias?: Tensor;
  qkvBias?: boolean;
  /**
   * Fresh value of `layer_scale1.lambda1` and `layer_scale2.lambda1`, factors on what is added to the
   * residual. Default: no such factors.
   */
  layerScale?: number;
  /** Standard deviations of fresh weights. */
  std?: { qkv: number; output: number };
}

/** Pre-LN blocks. Returns x [batch, tokens, hidden] and each block's output: layers + 1 entries. */
export function encoder(p: Parameters, x: Tensor, options: EncoderOptions): Tensor[] {
  const { names, layers, heads, epsilon, feedForward, bias, qkvBias = true, layerScale, std } = options;
  const hidden = x.dims.at(-1) as number;
  const scale = (hidden / heads) ** -0.5;
  const scaled = (p: Parameters, module: string, branch: Tensor) =>
    layerScale === undefined ? branch : mul(branch, p.get(`${module}.lambda1`, [hidden], { kind: 'constant', value: layerScale }));
  const hiddenStates = [x];
  for (let layer = 0; layer < layers; layer++) {
    x = p.module(`${names.blocks}.${layer}`, (p) => {
      const normed = layerNorm(p, names.attentionNorm, x, epsilon);
      const project = (name: string) => splitHeads(linear(p, name, normed, hidden, { bias: qkvBias, std: std?.qkv }), heads);
      const attended = mergeHeads(selfAttention(p, project(names.query), project(names.key), project(names.value), { scale, bias }));
      const residual = add(x, scaled(p, 'layer_scale1', linear(p, names.output, attended, hidden, { bias: true, std: std?.output })));
      return hold(add(residual, scaled(p, 'layer_scale2', feedForward(p, layerNorm(p, names.mlpNorm, residual, epsilon)))));
    });
    hiddenStates.push(x);
  }
  return hiddenStates;
}

export interface MlpOptions {
  size: number;
  activation: ActivationName;
  /** Standard deviations of fresh weights. */
  std?: { fc1: number; fc2: number };
}

/** fc2(activation(fc1 x)) under `mlp.`. */
export function mlp(p: Parameters, x: Tensor, { size, activation, std }: MlpOptions): Tensor {
  return p.module('mlp', (p) => {
    const active = ACTIVATIONS[activation](linear(p, 'fc1', x, size, { bias: true, std: std?.fc1 }));
    return linear(p, 'fc2', active, x.dims.at(-1) as number, { bias: true, std: std?.fc2 });
  });
}
