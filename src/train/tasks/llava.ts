// The two-stage recipe of LLaVA on a Gemma (recipe task `llava`; Liu et al. 2023, Hinck et al. 2024): stage 1 fits the connector to
// captions, stage 2 connector and language model to questions. A frozen encoder runs once an image; its features are cached.

import { join } from 'node:path';
import { readJsonFile } from '../../checkpoint/checkpoint.ts';
import { readTokenizerFiles, tokenizerFilesOf } from '../../checkpoint/tokenizer-files.ts';
import { conversationBatches } from '../../data/conversations.ts';
import { buildEmojiDataset, type EmojiDataset } from '../../data/emoji/build.ts';
import { encoderFingerprint, openFeatureCache } from '../../data/feature-cache.ts';
import { mixFeatures } from '../../data/feature-mixing.ts';
import { readLlavaJson } from '../../data/llava-json.ts';
import { packSamples } from '../../data/packing.ts';
import { float32, float32Values, type Program, type Value } from '../../engine/engine.ts';
import { answerQuestions, readQuestions } from '../../evaluate/evaluate.ts';
import { type Sample, type Scores, scoreSamples, writeSamples } from '../../evaluate/samples.ts';
import { createGenerator } from '../../generate/generator.ts';
import { input } from '../../graph/tensor.ts';
import { type ImageProcessorConfig, imageProcessorConfig } from '../../images/processor.ts';
import { languageConfigSchema } from '../../models/language.ts';
import {
  imageSize,
  imageTokenCount,
  type LlavaConfig,
  llavaConfigSchema,
  llavaParameters,
  visionFeatureSize,
  visionFeatures,
} from '../../models/llava.ts';
import { llavaObjective } from '../../models/objectives.ts';
import { prefixTokens, visionFolderSchema } from '../../models/vision.ts';
import { initialise, Parameters } from '../../nn/parameters.ts';
import { resolvePath } from '../../paths.ts';
import { checkConfig, withCheckpoint } from '../../pretrained/folder.ts';
import { checkVocabulary } from '../../pretrained/load.ts';
import { pixelValuesOf, processorFilesOf, withImageSize } from '../../pretrained/processor.ts';
import { readParameters } from '../../pretrained/values.ts';
import { createRandom } from '../../random.ts';
import { findRunFolder } from '../../runs/folder.ts';
import { createTokenizer, type Tokenizer } from '../../text/tokenizer.ts';
import { augmentationOf, type LlavaRecipe, type LlavaStage } from '../recipe.ts';
import type { PreparedStage, SavedModel, Task, TaskContext } from '../task.ts';

/** Tokens in a packed row: long enough to balance rows well, short enough that attention stays cheap. */
const PACKED_ROW = 384;

interface Model extends SavedModel {
  config: LlavaConfig;
  tokenizer: Tokenizer;
  processor: ImageProcessorConfig;
  /** Every parameter that the folders have, by Hugging Face name. */
  values: Map<string, Float32Array>;
}

/** Joins the recipe's encoder and language model through a fresh connector. */
async function assemble({ model, seed }: LlavaRecipe): Promise<Model> {
  const visionFolder = resolvePath(model.vision_tower, 'model.vision_tower');
  const languageFolder = resolvePath(model.language_model, 'model.language_model');
  const tokenizerFiles = await readTokenizerFiles(model.tokenizer ? resolvePath(model.tokenizer, 'model.tokenizer') : languageFolder);
  const tokenizer = createTokenizer(tokenizerFiles.tokenizerJson, tokenizerFiles.tokenizerConfig);
  const processorPath = join(visionFolder, 'preprocessor_config.json');
  const processorJson = await readJsonFile(processorPath);
  const processor = checkConfig(imageProcessorConfig, processorJson, processorPath);
  return withCheckpoint(visionFolder, visionFolderSchema, (vision_config, vision) =>
    withCheckpoint(languageFolder, languageConfigSchema, async (text_config, language) => {
      const joined = checkConfig(
        llavaConfigSchema,
        {
          architectures: ['LlavaForConditionalGeneration'],
          vision_config,
          text_config,
          image_token_index: tokenizer.imageTokenId,
          mm_projector_type: model.connector,
          vision_feature_layer: model.vision_feature_layer,
          // without a class token there is nothing to leave out: Hugging Face's `default` would drop a patch
          vision_feature_select_strategy: prefixTokens(vision_config) === 0 ? 'full' : model.vision_feature_select_strategy,
          scale_image_features: model.scale_image_features,
          multimodal_projector_bias: true,
          tie_word_embeddings: true,
        },
        'the recipe',
      );
      const config = withImageSize(joined, processor, processorPath);
      checkVocabulary(tokenizer, config.text_config.vocab_size, languageFolder);
      const parameters = llavaParameters(config);
      const part = (module: string) => parameters.filter(({ name }) => name.startsWith(`${module}.`));
      const inFolder = (name: string) => name.slice(name.indexOf('.') + 1);
      const values = new Map([
        ...(await readParameters(vision, part('vision_tower'), inFolder)),
        ...part('multi_modal_projector').map(
          (parameter) => [parameter.name, initialise(parameter, createRandom(seed, parameter.name))] as const,
        ),
        ...(await readParameters(language, part('language_model'), inFolder)),
      ]);
      const files = { ...tokenizerFilesOf(tokenizerFiles), ...processorFilesOf(config, processorJson) };
      return { config, tokenizer, processor, values, files };
    }),
  );
}

/** The task of a `llava` recipe. */
export async function llavaTask(recipe: LlavaRecipe, context: TaskContext): Promise<Task> {
  const { engine, status, out, signal } = context;
  const model = await assemble(recipe);
  const { config, tokenizer, processor, values } = model;
  const imageTokens = imageTokenCount(config);
  const featureSize = imageTokens * visionFeatureSize(config);
  const size = imageSize(config);
  const positions = config.text_config.max_position_embeddings;

  let dataset: EmojiDataset | undefined;
  if (recipe.data) {
    const { folder, train_scenes, evaluation_scenes, scene_size, held_out_artist, augmentation } = recipe.data;
    status.note(`drawing ${train_scenes} training scenes and ${evaluation_scenes} of each held-out split into ${folder}`);
    dataset = await buildEmojiDataset({
      seed: recipe.seed,
      out: folder,
      trainScenes: train_scenes,
      evaluationScenes: evaluation_scenes,
      size: scene_size,
      heldOutArtist: held_out_artist,
      ...(augmentation ? { augmentation: augmentationOf(augmentation) } : {}),
    });
  }
  const stageSamples = (stage: LlavaStage) => {
    if (typeof stage.data !== 'string') return readLlavaJson(stage.data.data_path, stage.data.image_folder);
    const path = stage.data === 'captions' ? dataset!.captions : dataset!.questions;
    return readLlavaJson(path, dataset!.imageFolder);
  };
  // of all stages before the first begins: what is wrong with the last one's data shows now, not after hours
  const samplesOfStages = await Promise.all(recipe.stages.map(stageSamples));

  const pixelsOf = async (paths: readonly string[]): Promise<Value> =>
    float32(await pixelValuesOf(paths, processor), [paths.length, 3, size, size]);

  /** Features of every image that the samples show, from the cache or through the encoder. */
  const cacheFeatures = async (paths: readonly string[]) => {
    const weights = [...values].filter(([name]) => name.startsWith('vision_tower.')).map(([, array]) => array);
    const { vision_feature_layer, vision_feature_select_strategy, vision_config } = config;
    const fingerprint = encoderFingerprint({ vision_config, vision_feature_layer, vision_feature_select_strategy, processor }, weights);
    const cache = openFeatureCache({ folder: '.cache/features', fingerprint, size: featureSize });
    let program: Program | undefined;
    const encode = async (batch: readonly string[]) => {
      signal.throwIfAborted();
      if (!program) {
        status.note('encoding pictures with the frozen encoder');
        const parameters = new Parameters();
        const features = visionFeatures(parameters, config, input('pixel_values', 'float32', ['images', 3, size, size]));
        const constants = float32Values(parameters.list(), values);
        program = await engine.compile({ features }, { constants });
      }
      return (await program.run({ pixel_values: await pixelsOf(batch) })).features.data as Float32Array;
    };
    await cache.add(paths, encode);
    await program?.dispose();
    return cache;
  };

  const prepareStage = async (index: number): Promise<PreparedStage> => {
    const settings = recipe.stages[index];
    const samples = samplesOfStages[index];
    const { batch_size: batchSize, accumulation, template, max_length: maxLength, name } = settings;
    const batches = conversationBatches({
      samples,
      tokenizer,
      imageTokens,
      template,
      maxLength: Math.min(maxLength, positions),
      batchSize,
      seed: recipe.seed,
      stage: name,
    });
    const stepsPerEpoch = Math.ceil(batches.batchesPerEpoch / accumulation);
    const trainsEncoder = settings.train.includes('vision_tower');
    const cache = trainsEncoder ? undefined : await cacheFeatures(samples.flatMap(({ images }) => images));
    /** Of batch number `batch` of the stage. */
    const imageInputs = async (images: readonly string[], batch: number): Promise<Record<string, Value>> => {
      if (!cache) return { pixel_values: await pixelsOf(images) };
      const random = createRandom(recipe.seed, 'feature mixup', name, batch);
      const features = mixFeatures(cache.read(images), images.length, settings.feature_mixup, random);
      return { image_features: float32(features, [images.length, imageTokens, visionFeatureSize(config)]) };
    };
    return {
      settings,
      objective: llavaObjective(config, { trainsEncoder }),
      totalSteps: settings.steps ?? Math.max(1, Math.round((settings.epochs ?? 1) * stepsPerEpoch)),
      data: {
        stepsPerEpoch,
        async batches(step) {
          const packed = Array.from({ length: accumulation }, (_, i) =>
            packSamples(batches.batch(step * accumulation + i), PACKED_ROW, positions),
          );
          const labels = packed.reduce((sum, { inputs }) => sum + inputs.labels.data.length, 0);
          return Promise.all(
            packed.map(async ({ inputs, images, tokens, rows, length }, i) => ({
              inputs: { ...inputs, ...(await imageInputs(images, step * accumulation + i)), loss_scale: float32([1 / labels], []) },
              tokens,
              padding: rows * length - tokens,
            })),
          );
        },
      },
    };
  };

  let samples: Sample[] = [];
  const evaluation = recipe.evaluate;
  const parameters = llavaParameters(config).filter(({ name }) => values.has(name));
  return {
    engine,
    parameters,
    values,
    saved: { config, files: model.files },
    stageNames: recipe.stages.map(({ name }) => name),
    moduleOf: (name) => name.slice(0, name.indexOf('.')),
    prepareStage,
    async evaluate() {
      if (!evaluation || !dataset) return {};
      const generator = await createGenerator(engine, config, float32Values(parameters, values));
      const folder = findRunFolder(out);
      const trainingAnswers: Record<string, string[]> = {};
      for (const { task, expected } of await readQuestions(dataset.questions, dataset.imageFolder)) {
        trainingAnswers[task] ??= [];
        trainingAnswers[task].push(expected);
      }
      const scores: Scores = {};
      for (const split of evaluation.splits) {
        const questions = await readQuestions(dataset.evaluation[split], dataset.imageFolder, split);
        status.note(`answering ${questions.length} questions of ${split}`);
        const { batch_size: batchSize, max_new_tokens: maxNewTokens } = evaluation;
        const answered = await answerQuestions({ generator, tokenizer, processor }, questions, {
          batchSize,
          maxNewTokens,
          blind: true,
          signal,
        });
        writeSamples(folder.samples(split), answered);
        samples = [...samples, ...answered];
        Object.assign(scores, scoreSamples(answered, trainingAnswers));
      }
      await generator.dispose();
      return scores;
    },
    async gallery() {
      const { chooseGallery } = await import('../../runs/report.ts');
      return dataset ? chooseGallery(samples, ({ image }) => join(dataset.imageFolder, image)) : [];
    },
  };
}
