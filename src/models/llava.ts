// LLaVA over a vision tower and a language model (Liu et al. 2023; transformers 5.18
// models/llava/modeling_llava.py): projected patch rows replace the image tokens. Parameter names are those
// of hub files: vision_tower., multi_modal_projector., language_model.

import { z } from 'zod';
import { UserError } from '../errors.ts';
import { concat, equal, flattenLeading, hold, maskedScatter, mul, slice, where } from '../graph/primitives.ts';
import { constant, input, type Tensor } from '../graph/tensor.ts';
import { ACTIVATION_NAMES } from '../nn/activations.ts';
import { type Parameter, Parameters } from '../nn/parameters.ts';
import { connector, connectorTypeSchema } from './connector.ts';
import type { LanguageInputs, LanguageOutputs } from './decoder.ts';
import { embedTokens, languageConfigSchema, languageModel } from './language.ts';
import { causalBias } from './masks.ts';
import { patchesPerSide, prefixTokens, takesAnySize, visionConfigSchema, visionHiddenStates, visionParameters } from './vision.ts';

/** The CLIP ViT-L/14-336 of LLaVA-1.5, which a config without a vision tower has in transformers. */
const defaultTower = {
  model_type: 'clip_vision_model' as const,
  hidden_size: 1024,
  intermediate_size: 4096,
  num_hidden_layers: 24,
  num_attention_heads: 16,
  image_size: 336,
  patch_size: 14,
};

/** Hugging Face config.json of a LLaVA; unknown fields are kept. Defaults are LlavaConfig's. */
export const llavaConfigSchema = z.looseObject({
  model_type: z.literal('llava', { error: 'must be llava: pictures are asked of a LLaVA alone' }).default('llava'),
  vision_config: visionConfigSchema.prefault(defaultTower),
  text_config: languageConfigSchema,
  image_token_index: z.int().nonnegative().default(32_000),
  multimodal_projector_bias: z.literal(true, { error: 'must be true: a connector without biases is not supported' }).optional(),
  projector_hidden_act: z.enum(ACTIVATION_NAMES).default('gelu'),
  /** Ours: connector shape. Hugging Face files without it are mlp2x_gelu. */
  mm_projector_type: connectorTypeSchema.default('mlp2x_gelu'),
  vision_feature_layer: z.union([z.int(), z.array(z.int()).nonempty()]).default(-2),
  /**
   * `default` leaves out the first row, as transformers does for any encoder, even SigLIP, where it is a
   * patch. See docs/decisions.md.
   */
  vision_feature_select_strategy: z.enum(['default', 'full']).default('default'),
  /** Ours: side of the input images in pixels, if not the encoder's own `image_size`. See `imageSize`. */
  image_size: z.int().positive().optional(),
  /**
   * Ours: multiply image rows by sqrt(hidden), as transformers <= 4.57 did, with which the released
   * LLaVA-Gemma weights were trained; transformers >= 5 does not. See docs/decisions.md.
   */
  scale_image_features: z.boolean().default(false),
});
export type LlavaConfig = z.infer<typeof llavaConfigSchema>;

/**
 * Every parameter of a LLaVA folder: the whole encoder, connector and language model. Parts of the encoder
 * that the connector does not read (its last blocks, a pooling head) are optional: never run, but kept if a
 * folder has them.
 */
export function llavaParameters(config: LlavaConfig): Parameter[] {
  const parameters = new Parameters();
  const size = imageSize(config);
  const row = (name: string) => input(name, 'int32', ['batch', 'tokens']);
  const features = visionFeatures(parameters, config, input('pixel_values', 'float32', ['images', 3, size, size]));
  const firstUnread = parameters.list().length;
  parameters.module('vision_tower', (p) => visionParameters(p, config.vision_config));
  const unread = parameters.list().slice(firstUnread);
  const positionIds = row('position_ids');
  llava(parameters, config, {
    inputIds: row('input_ids'),
    positionIds,
    attentionBias: causalBias(positionIds, positionIds),
    images: { features },
  });
  return parameters.list().map((parameter) => (unread.includes(parameter) ? { ...parameter, optional: true } : parameter));
}

/**
 * Side in pixels of the images that the encoder sees. UserError if the config asks for a size that the
 * encoder cannot take.
 */
export function imageSize({ image_size, vision_config: vision }: Pick<LlavaConfig, 'image_size' | 'vision_config'>): number {
  const size = image_size ?? vision.image_size;
  if (size !== vision.image_size && !takesAnySize(vision))
    throw new UserError(
      `pictures of ${size} x ${size} pixels do not fit the encoder, which takes ${vision.image_size} x ${vision.image_size}`,
    );
  return size;
}

/** Number of image tokens that one image takes up in the prompt. */
export function imageTokenCount(config: LlavaConfig): number {
  const vision = config.vision_config;
  const rows = prefixTokens(vision) + patchesPerSide(vision, imageSize(config)) ** 2;
  return config.vision_feature_select_strategy === 'full' ? rows : rows - 1;
}

/** Width of the features that the connector receives. */
export function visionFeatureSize(config: LlavaConfig): number {
  const layers = Array.isArray(config.vision_feature_layer) ? config.vision_feature_layer.length : 1;
  return config.vision_config.hidden_size * layers;
}

/**
 * Selected encoder features, before the connector: pixelValues float32 [images, 3, size, size] ->
 * [images, imageTokens, visionFeatureSize]. UserError if `vision_feature_layer` is outside the encoder.
 */
export function visionFeatures(p: Parameters, config: LlavaConfig, pixelValues: Tensor): Tensor {
  const total = config.vision_config.num_hidden_layers;
  const selected = [config.vision_feature_layer].flat().map((layer) => {
    const index = layer < 0 ? total + 1 + layer : layer;
    if (index < 0 || index > total)
      throw new UserError(`vision_feature_layer ${layer} is outside the encoder's ${total} layers: give ${-total - 1} to ${total}`);
    return index;
  });
  // blocks after the last selected one are never built
  const hiddenStates = p.module('vision_tower', (p) => visionHiddenStates(p, config.vision_config, pixelValues, Math.max(...selected)));
  const rows = selected.map((index) => {
    const hidden = hiddenStates[index];
    return config.vision_feature_select_strategy === 'full' ? hidden : slice(hidden, 1, 1, hidden.dims[1] as number);
  });
  return rows.length === 1 ? rows[0] : concat(rows, 2);
}

/** The images of a batch, at any stage on their way into the language model. All float32. */
export type LlavaImages =
  /** [images, 3, size, size], as the image processor outputs them. */
  | { pixelValues: Tensor }
  /** [images, imageTokens, visionFeatureSize]: the encoder's output. */
  | { features: Tensor }
  /** [images * imageTokens, hidden]: the connector's output, not scaled. */
  | { projected: Tensor }
  /** [images * imageTokens, hidden]: as they enter the language model. */
  | { rows: Tensor };

export interface LlavaInputs extends Omit<LanguageInputs, 'inputsEmbeds'> {
  /** int32 [batch, tokens]; image_token_index marks where image rows go. */
  inputIds: Tensor;
  /** Absent if there are no images. Their rows must be as many as there are image tokens. */
  images?: LlavaImages;
}

/**
 * The whole LLaVA forward: token ids and images -> hidden states. `lastHidden` is [batch, tokens, hidden].
 */
export function llava(p: Parameters, config: LlavaConfig, { inputIds, images, ...rest }: LlavaInputs): LanguageOutputs {
  const rows = images && hold(imageRows(p, config, images)); //                        [images * imageTokens, hidden]
  return p.module('language_model', (p) => {
    const isImage = equal(inputIds, constant(config.image_token_index, [], 'int32')); // bool [batch, tokens]
    // the image token may lie beyond the embedding table: row 0 is looked up instead
    const textIds = where(isImage, constant(0, [], 'int32'), inputIds); //       [batch, tokens]
    const embedded = embedTokens(p, config.text_config, textIds); //             [batch, tokens, hidden]
    const inputsEmbeds = rows ? maskedScatter(embedded, isImage, rows) : embedded; // image rows, in order, in their places
    return languageModel(p, config.text_config, { inputsEmbeds, ...rest });
  });
}

/** Rows for the language model, [images * imageTokens, hidden], from images at any stage. */
export function imageRows(p: Parameters, config: LlavaConfig, images: LlavaImages): Tensor {
  if ('rows' in images) return images.rows;
  const projected = 'projected' in images ? images.projected : projectedFeatures(p, config, images);
  const scale = imageScale(config);
  return scale === 1 ? projected : mul(projected, scale);
}

/**
 * The connector's output for images, [images * imageTokens, hidden], not scaled whatever the config says:
 * `get_image_features` of transformers.
 */
export function projectedFeatures(
  p: Parameters,
  config: LlavaConfig,
  images: Extract<LlavaImages, { pixelValues: Tensor } | { features: Tensor }>,
): Tensor {
  const features = 'features' in images ? images.features : visionFeatures(p, config, images.pixelValues);
  return p.module('multi_modal_projector', (p) => {
    const { mm_projector_type: type, projector_hidden_act: activation, text_config: text } = config;
    return connector(p, type, activation, flattenLeading(features), text.hidden_size, imageScale(config));
  });
}

/** What image features are multiplied by on their way into the language model. */
function imageScale({ scale_image_features, text_config }: LlavaConfig): number {
  return scale_image_features ? Math.sqrt(text_config.hidden_size) : 1;
}
