// The LLaVA that a run begins with: an encoder and a language model that a fresh connector joins, or one that
// is there already.

import { readTokenizerFiles } from '../../checkpoint/tokenizer-files.ts';
import { type ImageProcessorConfig, imageProcessorConfig } from '../../images/processor.ts';
import { languageConfigSchema } from '../../models/language.ts';
import { type LlavaConfig, llavaConfigSchema, llavaParameters } from '../../models/llava.ts';
import { prefixTokens, visionFolderSchema } from '../../models/vision.ts';
import { initialize, type Parameter } from '../../nn/parameters.ts';
import { resolvePath } from '../../paths.ts';
import { checkConfig, withCheckpoint } from '../../pretrained/folder.ts';
import { checkTokenizer, checkVocabulary, warnOfMissingTemplate } from '../../pretrained/load.ts';
import { processorFilesOf, withImageSize } from '../../pretrained/processor.ts';
import { hubTokenizerFiles, readGenerationConfig } from '../../pretrained/tokenizer-form.ts';
import { createRandom } from '../../random.ts';
import { createTokenizer, type Tokenizer } from '../../text/tokenizer.ts';
import type { LlavaRecipe, LlavaStage } from '../recipe.ts';
import type { SavedModel } from '../task.ts';
import type { ModelWeights } from '../weights.ts';

export interface Model extends SavedModel {
  config: LlavaConfig;
  tokenizer: Tokenizer;
  /** Folder of the tokenizer. */
  tokenizerFolder: string;
  processor: ImageProcessorConfig;
  /** Every parameter that the folders have, by Hugging Face name. */
  weights: ModelWeights;
}

type Given<K extends string> = Extract<LlavaRecipe['model'], Record<K, unknown>>;

export interface Assembly {
  /** Is filled. */
  weights: ModelWeights;
  /** Is told of what is odd about a folder. */
  warn: (text: string) => void;
}

export const assemble = ({ model, seed }: LlavaRecipe, { weights, warn }: Assembly): Promise<Model> =>
  'llava' in model ? furtherModel(model, seed, { weights, warn }) : joinedModel(model, seed, { weights, warn });

/** Joins the recipe's encoder and language model through a fresh connector. */
async function joinedModel(model: Given<'vision_tower'>, seed: number, { weights, warn }: Assembly): Promise<Model> {
  const visionFolder = resolvePath(model.vision_tower, 'model.vision_tower');
  const languageFolder = resolvePath(model.language_model, 'model.language_model');
  const tokenizerFolder = model.tokenizer ? resolvePath(model.tokenizer, 'model.tokenizer') : languageFolder;
  const tokenizerFiles = await readTokenizerFiles(tokenizerFolder);
  const tokenizer = createTokenizer(tokenizerFiles.tokenizerJson, tokenizerFiles.tokenizerConfig);
  warnOfMissingTemplate(tokenizerFolder, tokenizerFiles.tokenizerConfig, warn);
  return withCheckpoint(visionFolder, visionFolderSchema, (vision_config, vision) =>
    withCheckpoint(languageFolder, languageConfigSchema, async (text_config, language) => {
      const { value: processorJson, file: processorPath } = await vision.imageProcessor();
      const processor = checkConfig(imageProcessorConfig, processorJson, processorPath);
      const joined = checkConfig(
        llavaConfigSchema,
        {
          dtype: 'float32',
          vision_config,
          text_config,
          image_token_index: tokenizer.imageTokenId,
          mm_projector_type: model.connector,
          vision_feature_layer: model.vision_feature_layer,
          // without a class token there is nothing to leave out: Hugging Face's `default` would drop a patch
          vision_feature_select_strategy: prefixTokens(vision_config) === 0 ? 'full' : model.vision_feature_select_strategy,
          scale_image_features: model.scale_image_features,
          multimodal_projector_bias: true,
        },
        'the recipe',
      );
      const config = withImageSize(joined, processor, processorPath);
      checkVocabulary(tokenizer, config.text_config.vocab_size, languageFolder);
      const parameters = llavaParameters(config);
      const inFolder = (name: string) => name.slice(name.indexOf('.') + 1);
      await weights.addStored(vision, ofModule(parameters, 'vision_tower'), inFolder);
      addFresh(weights, ofModule(parameters, 'multi_modal_projector'), seed);
      await weights.addStored(language, ofModule(parameters, 'language_model'), inFolder);
      // its ids are those of the language model's own tokenizer
      const generation = model.tokenizer ? {} : await readGenerationConfig(languageFolder);
      const files = { ...hubTokenizerFiles(tokenizerFiles, generation), ...processorFilesOf(config, processor) };
      return { config, tokenizer, tokenizerFolder, processor, weights, files };
    }),
  );
}

/** The recipe's LLaVA, with its own connector or a fresh one. */
export async function furtherModel(model: Given<'llava'>, seed: number, { weights, warn }: Assembly): Promise<Model> {
  const folder = resolvePath(model.llava, 'model.llava');
  return withCheckpoint(folder, llavaConfigSchema, async (stored, checkpoint) => {
    const tokenizerFiles = await readTokenizerFiles(folder);
    const tokenizer = createTokenizer(tokenizerFiles.tokenizerJson, tokenizerFiles.tokenizerConfig);
    warnOfMissingTemplate(folder, tokenizerFiles.tokenizerConfig, warn);
    const { value: processorJson, file: processorPath } = await checkpoint.imageProcessor();
    const processor = checkConfig(imageProcessorConfig, processorJson, processorPath);
    const { torch_dtype: _, ...kept } = stored;
    const connector = model.new_connector ? ({ mm_projector_type: model.new_connector, projector_hidden_act: 'gelu' } as const) : {};
    const config = withImageSize({ ...kept, ...connector, dtype: 'float32' }, processor, processorPath);
    checkTokenizer(tokenizer, config, folder);
    const isFresh = ({ name }: Parameter) => model.new_connector !== undefined && name.startsWith('multi_modal_projector.');
    const parameters = llavaParameters(config);
    await weights.addStored(
      checkpoint,
      parameters.filter((parameter) => !isFresh(parameter)),
    );
    addFresh(weights, parameters.filter(isFresh), seed);
    const text = hubTokenizerFiles(tokenizerFiles, await readGenerationConfig(folder));
    const files = { ...text, ...processorFilesOf(config, processor) };
    return { config, tokenizer, tokenizerFolder: folder, processor, weights, files };
  });
}

/** The model as a stage looks at pictures, which is saved with it. */
export function inStage(model: Model, { image_aspect_ratio: ratio }: Pick<LlavaStage, 'image_aspect_ratio'>): Model {
  if (ratio === undefined) return model;
  const processor = { ...model.processor, do_pad: ratio === 'pad' };
  return { ...model, processor, files: { ...model.files, ...processorFilesOf(model.config, processor) } };
}

export const moduleOf = (name: string) => name.slice(0, name.indexOf('.'));

const ofModule = (parameters: readonly Parameter[], module: string) => parameters.filter(({ name }) => name.startsWith(`${module}.`));

/** Each value a function of `seed` and the parameter's name. */
function addFresh(weights: ModelWeights, parameters: readonly Parameter[], seed: number): void {
  for (const parameter of parameters) weights.add(parameter, initialize(parameter, createRandom(seed, parameter.name)));
}
