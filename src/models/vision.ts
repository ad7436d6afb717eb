// The vision encoders that a LLaVA can have, behind one set of functions: the config's `model_type` selects
// one. LLaVA reads a hidden state as it leaves its block; none of the families normalizes it.

import { z } from 'zod';
import { input, type Tensor } from '../graph/tensor.ts';
import type { Parameters } from '../nn/parameters.ts';
import { clipPostNorm, clipVision, clipVisionConfigSchema } from './clip.ts';
import { dinov2, dinov2ConfigSchema, dinov2MaskToken, dinov2Norm } from './dinov2.ts';
import { siglipPool, siglipVision, siglipVisionConfigSchema } from './siglip.ts';

const families = [clipVisionConfigSchema, siglipVisionConfigSchema, dinov2ConfigSchema] as const;

/** `model_type` of each family. */
export const VISION_MODEL_TYPES = ['clip_vision_model', 'siglip_vision_model', 'dinov2'] as const;

/** Hugging Face config.json of a vision encoder; without a model_type, of CLIP. */
export const visionConfigSchema = z.discriminatedUnion('model_type', families, {
  error: ({ code }) => (code === 'invalid_union' ? `must be one of ${VISION_MODEL_TYPES.join(', ')}` : undefined),
});
export type VisionConfig = z.infer<typeof visionConfigSchema>;

/** The vision part of any config.json: that of a whole CLIP or SigLIP, or the config itself. */
export function visionPart(config: unknown): unknown {
  const { model_type, vision_config } = (config ?? {}) as { model_type?: unknown; vision_config?: unknown };
  const isWhole = (model_type === 'clip' || model_type === 'siglip') && typeof vision_config === 'object';
  return isWhole ? { model_type: `${model_type}_vision_model`, ...vision_config } : config;
}

/**
 * config.json of a folder from which a vision encoder is taken: a bare encoder, or a whole CLIP or SigLIP.
 */
export const visionFolderSchema = z.preprocess(visionPart, visionConfigSchema);

/** Number of rows before those of the patches: the class token of CLIP and DINOv2; SigLIP has none. */
export function prefixTokens(config: VisionConfig): number {
  return config.model_type === 'siglip_vision_model' ? 0 : 1;
}

/**
 * Patches along one side of a square image of `size` pixels; pixels after the last whole patch are not seen.
 */
export function patchesPerSide({ patch_size: patch }: VisionConfig, size: number): number {
  return Math.floor(size / patch);
}

/** Whether images may differ in size from `image_size`: DINOv2 resizes its position table. */
export function takesAnySize(config: VisionConfig): boolean {
  return config.model_type === 'dinov2';
}

/**
 * Hidden states up to block `layers` (default all): pixelValues float32 [images, 3, size, size] -> each
 * [images, prefixTokens + patches, hidden]; entry 0 is the embeddings (CLIP's after pre_layrnorm), entry n
 * after block n, like `output_hidden_states` in transformers.
 */
export function visionHiddenStates(p: Parameters, config: VisionConfig, pixelValues: Tensor, layers?: number): Tensor[] {
  switch (config.model_type) {
    case 'clip_vision_model':
      return clipVision(p, config, pixelValues, layers);
    case 'siglip_vision_model':
      return siglipVision(p, config, pixelValues, layers);
    case 'dinov2':
      return dinov2(p, config, pixelValues, layers);
  }
}

/** Requests every parameter of an encoder's folder from `p`, including those after the last block. */
export function visionParameters(p: Parameters, config: VisionConfig): void {
  const last = visionHiddenStates(p, config, input('pixel_values', 'float32', ['images', 3, config.image_size, config.image_size])).at(-1)!;
  switch (config.model_type) {
    case 'clip_vision_model':
      clipPostNorm(p, config, last);
      break;
    case 'siglip_vision_model':
      siglipPool(p, config, last);
      break;
    case 'dinov2':
      dinov2Norm(p, config, last);
      dinov2MaskToken(p, config);
  }
}
