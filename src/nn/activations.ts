// Activation functions by their names in Hugging Face configs (transformers/activations.py).

import { geluErf, geluTanh, quickGelu } from '../graph/composites.ts';
import type { Tensor } from '../graph/tensor.ts';

export const ACTIVATIONS = {
  gelu: geluErf,
  gelu_pytorch_tanh: geluTanh,
  gelu_new: geluTanh,
  quick_gelu: quickGelu,
} as const satisfies Record<string, (x: Tensor) => Tensor>;

export type ActivationName = keyof typeof ACTIVATIONS;
export const ACTIVATION_NAMES = Object.keys(ACTIVATIONS) as [ActivationName, ...ActivationName[]];
