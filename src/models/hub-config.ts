// Converts the config.json of a LLaVA as other software writes it to the form that `llavaConfigSchema` takes:
// from Hugging Face's, and from that of original LLaVA folders (llava_arch.py,
// multimodal_encoder/clip_encoder.py; Intel/llava-gemma-7b), which is a Gemma's config with `mm_` fields.
import { UserError } from '../errors.ts';
import { LANGUAGE_MODEL_TYPES, languageFamily } from './language.ts';
import { shapes } from './shapes.ts';

type Json = Record<string, unknown>;

const isObject = (value: unknown): value is Json => typeof value === 'object' && value !== null && !Array.isArray(value);

/** Whether `config` is the config.json of an original LLaVA folder. */
export function isNativeConfig(config: unknown): config is Json {
  return isObject(config) && 'mm_vision_tower' in config && !('vision_config' in config);
}

export interface NativeConfigParts {
  /**
   * config.json of the vision tower. Without it, the shape follows from the tower's name, if that is known.
   */
  visionConfig?: unknown;
  /** Id of `<image>` in the tokenizer; by default the first one after the embedding's rows. */
  imageTokenId?: number;
}

/**
 * The config in Hugging Face form. Throws a UserError, without the file's name, if a native folder asks for
 * something that is not supported here, and for a LLaVA over a language model that it does not name, which
 * is a Llama for transformers.
 *
 * `scale_image_features` is set where a file does not have it: transformers up to 4.57, with which
 * LLaVA-Gemma was trained, multiplied the image rows of Gemma 1 and 2 by sqrt(hidden). This applies to native
 * folders and to those whose `transformers_version` is below 5.
 */
export function fromHubConfig(config: unknown, parts: NativeConfigParts = {}): unknown {
  if (isNativeConfig(config)) return fromNative(config, parts);
  if (!isObject(config) || config.model_type !== 'llava') return config;
  const { text_config } = config;
  if (isObject(text_config) && (text_config.model_type ?? null) === null)
    throw new UserError(
      `text_config.model_type: it is missing, which means llama; a language model must be one of ${LANGUAGE_MODEL_TYPES.join(', ')}`,
    );
  return withImageScale(withImageTokenIndex(config));
}

/** `image_token_id` is another name of the field in transformers; where both are given, it counts. */
function withImageTokenIndex({ image_token_id: id, ...config }: Json): Json {
  return id === undefined ? config : { ...config, image_token_index: id };
}

function withImageScale(config: Json): Json {
  if ('scale_image_features' in config) return config;
  const version = Number.parseInt(String(config.transformers_version), 10);
  const family = isObject(config.text_config) ? config.text_config.model_type : undefined;
  return version < 5 ? { ...config, scale_image_features: isScaled(String(family)) } : config;
}

/**
 * Whether the code of a language model in transformers <= 4.57 scaled every input row. Gemma 3 always scaled
 * only the embedding.
 */
const isScaled = (family: string) => languageFamily(family)?.scaledImageRows === true;

/**
 * `model_type` of the language model: LLaVA's classes are called LlavaGemmaForCausalLM, model_type
 * `llava_gemma`.
 */
function textModelType({ architectures, model_type }: Json): string {
  const name = (Array.isArray(architectures) ? String(architectures[0]) : '').replace(/^Llava|ForCausalLM$/g, '').toLowerCase();
  const family = name || String(model_type).replace(/^llava_?/, '');
  return family === 'gemma3' ? 'gemma3_text' : family;
}

/** config.json of the vision tower that a native config names. */
function namedTower(name: unknown): unknown {
  const folder = String(name).split('/').at(-1)!;
  const shape = Object.hasOwn(shapes, folder) ? shapes[folder] : undefined;
  if (shape?.config.image_size === undefined)
    throw new UserError(
      `mm_vision_tower: the shape of ${JSON.stringify(name)} is not known here; give its folder to llava-gemma convert --vision-tower`,
    );
  return shape.config;
}

/** Fields of LLaVA and of the folder, which do not belong to the language model. */
const notText = /^(mm_|image_|tune_|freeze_|unfreeze_|use_mm_|tokenizer_|architectures$|model_type$|_name_or_path$|transformers_version$)/;

const selections: Record<string, string> = { patch: 'default', cls_patch: 'full' };

function fromNative(config: Json, { visionConfig, imageTokenId }: NativeConfigParts): unknown {
  const refuse = (field: string, why: string) => new UserError(`${field} is ${JSON.stringify(config[field])}: ${why}`);
  if (config.mm_use_im_start_end === true) throw refuse('mm_use_im_start_end', 'tokens around the image are not supported');
  if (config.image_aspect_ratio === 'anyres') throw refuse('image_aspect_ratio', 'images in several tiles are not supported');
  const select = String(config.mm_vision_select_feature ?? 'patch');
  if (!Object.hasOwn(selections, select)) throw refuse('mm_vision_select_feature', 'it must be patch or cls_patch');

  const vision = visionConfig ?? namedTower(config.mm_vision_tower);
  const width = isObject(vision) ? vision.hidden_size : undefined;
  if (config.mm_hidden_size !== undefined && width !== undefined && config.mm_hidden_size !== width)
    throw refuse('mm_hidden_size', `but the vision tower has hidden_size ${width}`);

  const family = textModelType(config);
  const text = Object.fromEntries(Object.entries(config).filter(([name]) => !notText.test(name)));
  return {
    architectures: ['LlavaForConditionalGeneration'],
    model_type: 'llava',
    vision_config: vision,
    text_config: { ...text, model_type: family },
    image_token_index: imageTokenId ?? config.vocab_size,
    mm_projector_type: config.mm_projector_type ?? 'linear',
    multimodal_projector_bias: true,
    projector_hidden_act: 'gelu',
    scale_image_features: isScaled(family),
    tie_word_embeddings: true,
    vision_feature_layer: config.mm_vision_select_layer ?? -2,
    // SigLIP has no class token to leave out
    vision_feature_select_strategy: isObject(vision) && vision.model_type === 'siglip_vision_model' ? 'full' : selections[select],
  };
}
