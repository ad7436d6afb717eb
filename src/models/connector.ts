// The connector between encoder and language model: `linear` or `mlpNx_gelu` (LLaVA
// llava/model/multimodal_projector/builder.py). Parameters carry Hugging Face Llava names:
// multi_modal_projector.linear_1, linear_2, ...

import { z } from 'zod';
import type { Tensor } from '../graph/tensor.ts';
import { ACTIVATIONS, type ActivationName } from '../nn/activations.ts';
import { linear } from '../nn/layers.ts';
import type { Parameters } from '../nn/parameters.ts';

/** `linear`, or `mlp2x_gelu` and its deeper relatives. */
export const connectorTypeSchema = z.string().regex(/^(linear|mlp[1-9]\d*x_gelu)$/, 'must be "linear" or "mlpNx_gelu", such as mlp2x_gelu');

export function connectorDepth(type: string): number {
  return type === 'linear' ? 1 : Number(/^mlp(\d+)x_gelu$/.exec(type)![1]);
}

/**
 * [rows, visionHidden] -> [rows, textHidden]: linear_1, then (activation, linear_n) for each further layer.
 * `outputScale` is what the rows will be multiplied by later: a fresh last layer is smaller by that factor,
 * so that image rows start out about as large as text rows. Rows forty times larger drown out everything that
 * the language model's layers add, and the connector learns nothing (docs/results.md).
 */
export function connector(
  p: Parameters,
  type: string,
  activation: ActivationName,
  features: Tensor,
  textHidden: number,
  outputScale = 1,
): Tensor {
  const depth = connectorDepth(type);
  let x = features;
  for (let layer = 1; layer <= depth; layer++) {
    const std = (x.dims.at(-1) as number) ** -0.5 / (layer === depth ? outputScale : 1);
    x = linear(p, `linear_${layer}`, layer === 1 ? x : ACTIVATIONS[activation](x), textHidden, { bias: true, std });
  }
  return x;
}
