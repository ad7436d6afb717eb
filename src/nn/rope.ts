// Rotary position embedding tables (Su et al. 2021), half-rotate form as in Hugging Face modeling_gemma.py.
// Computed in float64.

import { rotary } from '../graph/primitives.ts';
import { constant, type Tensor } from '../graph/tensor.ts';

export interface RopeTables {
  cos: Tensor;
  sin: Tensor;
}

/**
 * cos and sin of position / factor * theta^(-2i/headDim): [maxPositions, headDim / 2] each. `factor` is that
 * of linear scaling (Chen et al. 2023).
 */
export function ropeTables(maxPositions: number, headDim: number, theta: number, factor = 1): RopeTables {
  const half = headDim / 2;
  const cos = new Float32Array(maxPositions * half);
  const sin = new Float32Array(maxPositions * half);
  const frequencies = Array.from({ length: half }, (_, i) => theta ** ((-2 * i) / headDim) / factor);
  for (let position = 0; position < maxPositions; position++)
    for (let i = 0; i < half; i++) {
      const angle = position * frequencies[i];
      cos[position * half + i] = Math.cos(angle);
      sin[position * half + i] = Math.sin(angle);
    }
  return { cos: constant(cos, [maxPositions, half]), sin: constant(sin, [maxPositions, half]) };
}

/** Rotates x [batch, heads, tokens, headDim] to its positions, int32 [batch, tokens]: -> the shape of x. */
export function applyRope(x: Tensor, positions: Tensor, tables: RopeTables): Tensor {
  return rotary(x, positions, tables.cos, tables.sin);
}
