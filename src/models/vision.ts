// The vision encoders that a LLaVA can have, behind one set of functions: the config's `model_type` selects
// one. LLaVA reads a hidden state as it leaves its block; none of the families normalizes it.

import { z } from 'zod';
import { input, type Tensor } from '../graph/tensor.ts';
import type { Parameters } from '../nn/parameters.ts';
import { clipFamily, clipVisionConfigSchema } from './clip.ts';
import { dinov2ConfigSchema, dinov2Family } from './dinov2.ts';
import type { VisionFamily } from './family.ts';
import { siglipFamily, siglipVisionConfigSchema } from './siglip.ts';

/** Hugging Face config.json of a vision encoder; without a model_type, of CLIP. */
export const visionConfigSchema = z
  .discriminatedUnion('model_type', [clipVisionConfigSchema, siglipVisionConfigSchema, dinov2ConfigSchema], {
    error: ({ code }) => (code === 'invalid_union' ? `must be one of ${VISION_MODEL_TYPES.join(', ')}` : undefined),
  })
  .superRefine(({ hidden_size: width, num_attention_heads: heads, image_size: size, patch_size: patch }, { addIssue }) => {
    if (width % heads !== 0)
      addIssue({ code: 'custom', path: ['num_attention_heads'], message: `must divide hidden_size, which is ${width}; it is ${heads}` });
    if (patch > size) addIssue({ code: 'custom', path: ['patch_size'], message: `must fit image_size, which is ${size}; it is ${patch}` });
  });
export type VisionConfig = z.infer<typeof visionConfigSchema>;

/** The families by `model_type`. */
const families: { readonly [T in VisionConfig['model_type']]: VisionFamily<Extract<VisionConfig, { model_type: T }>> } = {
  clip_vision_model: clipFamily,
  siglip_vision_model: siglipFamily,
  dinov2: dinov2Family,
};

/** `model_type` of each family. */
export const VISION_MODEL_TYPES: readonly string[] = Object.keys(families);

/** The family of a config. */
export function visionFamily(config: Pick<VisionConfig, 'model_type'>): VisionFamily<VisionConfig> {
  return families[config.model_type] as unknown as VisionFamily<VisionConfig>;
}

/** The family's name for people, by model_type; undefined where there is none. */
export const visionFamilyName = (modelType: string): string | undefined =>
  Object.hasOwn(families, modelType) ? families[modelType as VisionConfig['model_type']].name : undefined;

/** The vision part of any config.json: that of a whole CLIP or SigLIP, or the config itself. */
export function visionPart(config: unknown): unknown {
  const { model_type, ...whole } = (config ?? {}) as { model_type?: unknown; vision_config?: object; vision_config_dict?: object };
  if (model_type !== 'clip' && model_type !== 'siglip') return config;
  // the first CLIP folders have a second copy, which counts for transformers
  return { model_type: `${model_type}_vision_model`, ...(whole.vision_config_dict ?? whole.vision_config) };
}

/**
 * config.json of a folder from which a vision encoder is taken: a bare encoder, or a whole CLIP or SigLIP.
 */
export const visionFolderSchema = z.preprocess(visionPart, visionConfigSchema);

/** Number of rows before those of the patches: the class token of CLIP and DINOv2; SigLIP has none. */
export const prefixTokens = (config: VisionConfig): number => visionFamily(config).prefixTokens;

/**
 * Patches along one side of a square image of `size` pixels; pixels after the last whole patch are not seen.
 */
export function patchesPerSide({ patch_size: patch }: VisionConfig, size: number): number {
  return Math.floor(size / patch);
}

/** Whether images may differ in size from `image_size`: DINOv2 resizes its position table. */
export const takesAnySize = (config: VisionConfig): boolean => visionFamily(config).takesAnySize;

/**
 * Hidden states up to block `layers` (default all): pixelValues float32 [images, 3, size, size] -> each
 * [images, prefixTokens + patches, hidden]; entry 0 is the embeddings (CLIP's after pre_layrnorm), entry n
 * after block n, like `output_hidden_states` in transformers.
 */
export function visionHiddenStates(p: Parameters, config: VisionConfig, pixelValues: Tensor, layers?: number): Tensor[] {
  return visionFamily(config).hiddenStates(p, config, pixelValues, layers);
}

/** Requests every parameter of an encoder's folder from `p`, including those after the last block. */
export function visionParameters(p: Parameters, config: VisionConfig): void {
  const { image_size: size } = config;
  const last = visionHiddenStates(p, config, input('pixel_values', 'float32', ['images', 3, size, size])).at(-1)!;
  visionFamily(config).afterBlocks(p, config, last);
}
