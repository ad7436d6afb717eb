// LLaVA over a vision tower and a language model (Liu et al. 2023; transformers 5.18 models/llava/modeling_llava.py): projected patch rows
// take the places of the image tokens. Parameter names are those of hub files: vision_tower., multi_modal_projector., language_model.

import { z } from 'zod';
import { UserError } from '../errors.ts';
import { concat, equal, flattenLeading, maskedScatter, mul, slice, where } from '../graph/primitives.ts';
import { constant, input, type Tensor } from '../graph/tensor.ts';
import { ACTIVATION_NAMES } from '../nn/activations.ts';
import { type Parameter, Parameters } from '../nn/parameters.ts';
import { connector, connectorTypeSchema } from './connector.ts';
import type { LanguageInputs, LanguageOutputs } from './decoder.ts';
import { embedTokens, languageConfigSchema, languageModel } from './language.ts';
import { causalBias } from './masks.ts';
import { patchesPerSide, prefixTokens, takesAnySize, visionConfigSchema, visionHiddenStates, visionParameters } from './vision.ts';

export const llavaConfigSchema = z.looseObject({
  model_type: z.literal('llava').default('llava'),
  vision_config: visionConfigSchema,
  text_config: languageConfigSchema,
  image_token_index: z.int().nonnegative(),
  projector_hidden_act: z.enum(ACTIVATION_NAMES).default('gelu'),
  /** Ours: connector shape. Hugging Face files without it are mlp2x_gelu. */
  mm_projector_type: connectorTypeSchema.default('mlp2x_gelu'),
  vision_feature_layer: z.union([z.int(), z.array(z.int()).nonempty()]).default(-2),
  /** `default` leaves out the first row, as transformers does whatever the encoder: SigLIP's is a patch. See docs/decisions.md. */
  vision_feature_select_strategy: z.enum(['default', 'full']).default('default'),
  /** Ours: side of the pictures in pixels, where it is not the encoder's own `image_size`. See `imageSize`. */
  image_size: z.int().positive().optional(),
  /**
   * Ours: multiply image rows by sqrt(hidden), as transformers <= 4.57 did and the released LLaVA-Gemma weights were trained with;
   * transformers >= 5 does not. See docs/decisions.md.
   */
  scale_image_features: z.boolean().default(false),
});
export type LlavaConfig = z.infer<typeof llavaConfigSchema>;

/**
 * Every parameter of a LLaVA folder: the whole encoder, connector and language model. Of the encoder, what the connector does not read
 * (its last blocks, a pooling head) is optional: never run, and kept where a folder has it.
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
  llavaText(parameters, config, {
    inputIds: row('input_ids'),
    positionIds,
    attentionBias: causalBias(positionIds, positionIds),
    imageRows: projectFeatures(parameters, config, features),
  });
  return parameters.list().map((parameter) => (unread.includes(parameter) ? { ...parameter, optional: true } : parameter));
}

/** Side in pixels of the pictures that the encoder is shown. UserError where the config wants another one than the encoder can take. */
export function imageSize({ image_size, vision_config: vision }: Pick<LlavaConfig, 'image_size' | 'vision_config'>): number {
  const size = image_size ?? vision.image_size;
  if (size !== vision.image_size && !takesAnySize(vision))
    throw new UserError(
      `pictures of ${size} x ${size} pixels do not fit the encoder, which takes ${vision.image_size} x ${vision.image_size}`,
    );
  return size;
}

/** Image tokens that one image takes in the prompt. */
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

/** pixelValues float32 [images, 3, size, size] -> selected encoder features [images, imageTokens, visionFeatureSize]. No connector. */
export function visionFeatures(p: Parameters, config: LlavaConfig, pixelValues: Tensor): Tensor {
  const total = config.vision_config.num_hidden_layers;
  const selected = [config.vision_feature_layer].flat().map((layer) => {
    const index = layer < 0 ? total + 1 + layer : layer;
    if (index < 0 || index > total) throw new UserError(`vision_feature_layer ${layer} is outside the encoder's ${total} layers`);
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

/** What image features are multiplied by on their way into the language model. */
function imageScale({ scale_image_features, text_config }: LlavaConfig): number {
  return scale_image_features ? Math.sqrt(text_config.hidden_size) : 1;
}

/**
 * Encoder features [images, imageTokens, width] -> what the connector makes of them, [images * imageTokens, hidden], not scaled whatever the
 * config says: `get_image_features` of transformers.
 */
export function imageFeatures(p: Parameters, config: LlavaConfig, features: Tensor): Tensor {
  return p.module('multi_modal_projector', (p) => {
    const { mm_projector_type: type, projector_hidden_act: activation, text_config: text } = config;
    return connector(p, type, activation, flattenLeading(features), text.hidden_size, imageScale(config));
  });
}

/** Image features [rows, hidden] as rows for the language model: scaled if the config says so. */
export function scaleImageFeatures(config: LlavaConfig, features: Tensor): Tensor {
  const scale = imageScale(config);
  return scale === 1 ? features : mul(features, scale);
}

/** Encoder features [images, imageTokens, width] -> rows for the language model [images * imageTokens, hidden]. */
export function projectFeatures(p: Parameters, config: LlavaConfig, features: Tensor): Tensor {
  return scaleImageFeatures(config, imageFeatures(p, config, features));
}

export interface LlavaTextInputs extends Omit<LanguageInputs, 'inputsEmbeds'> {
  /** int32 [batch, tokens]; image_token_index marks the places of image rows. */
  inputIds: Tensor;
  /** [rows, hidden] from `projectFeatures`; absent for prompts without an image. Rows must be as many as image tokens. */
  imageRows?: Tensor;
}

/** The language model over text and image rows. */
export function llavaText(p: Parameters, config: LlavaConfig, { inputIds, imageRows, ...rest }: LlavaTextInputs): LanguageOutputs {
  return p.module('language_model', (p) => {
    const isImage = equal(inputIds, constant(config.image_token_index, [], 'int32'));
    // the image token may lie beyond the embedding table: look up row 0 in its place
    const textIds = where(isImage, constant(0, [], 'int32'), inputIds);
    const embedded = embedTokens(p, config.text_config, textIds);
    const inputsEmbeds = imageRows ? maskedScatter(embedded, isImage, imageRows) : embedded;
    return languageModel(p, config.text_config, { inputsEmbeds, ...rest });
  });
}
