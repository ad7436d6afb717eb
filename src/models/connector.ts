// The connector between encoder and language model: `linear` or `mlpNx_gelu` (LLaVA llava/model/multimodal_projector/builder.py).
// Parameters carry Hugging Face Llava names: multi_modal_projector.linear_1, linear_2, ...

import { z } from 'zod';
import type { Tensor } from '../graph/tensor.ts';
import { ACTIVATIONS, type ActivationName } from '../nn/activations.ts';
import { linear } from '../nn/layers.ts';
import type { Parameters } from '../nn/parameters.ts';

/** `linear`, or `mlp2x_gelu` and its deeper kin. */
export const connectorTypeSchema = z.string().regex(/^(linear|mlp[1-9]\d*x_gelu)$/, 'must be "linear" or "mlpNx_gelu", such as mlp2x_gelu');

export function connectorDepth(type: string): number {
  return type === 'linear' ? 1 : Number(/^mlp(\d+)x_gelu$/.exec(type)![1]);
}

/** [rows, visionHidden] -> [rows, textHidden]: linear_1, then (activation, linear_n) for each further layer. */
export function connector(p: Parameters, type: string, activation: ActivationName, features: Tensor, textHidden: number): Tensor {
  const fanInStd = (x: Tensor) => (x.dims.at(-1) as number) ** -0.5;
  let x = linear(p, 'linear_1', features, textHidden, { bias: true, std: fanInStd(features) });
  for (let layer = 2; layer <= connectorDepth(type); layer++)
    x = linear(p, `linear_${layer}`, ACTIVATIONS[activation](x), textHidden, { bias: true, std: fanInStd(x) });
  return x;
}
