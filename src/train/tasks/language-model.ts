// Pretraining of a language model on text (recipe task `language-model`).

import { readTokenizerFiles, tokenizerFilesOf } from '../../checkpoint/tokenizer-files.ts';
import { loadEmojiConcepts } from '../../data/emoji/glyphs.ts';
import { splitConcepts, trainingArtists } from '../../data/emoji/split.ts';
import { UserError } from '../../errors.ts';
import { languageConfigSchema, languageFamily } from '../../models/language.ts';
import { languageModelLoss } from '../../models/programs.ts';
import { resolvePath } from '../../paths.ts';
import { checkConfig } from '../../pretrained/folder.ts';
import { TRANSFORMERS_VERSION } from '../../pretrained/hub-form.ts';
import { createTokenizer } from '../../text/tokenizer.ts';
import { freshData } from '../prefetch.ts';
import type { LanguageModelRecipe } from '../recipe.ts';
import { stepsOf, type Task, type TaskContext } from '../task.ts';
import { freshWeights } from '../weights.ts';

export async function languageModelTask(recipe: LanguageModelRecipe, { engine, thread, communicator }: TaskContext): Promise<Task> {
  const { seed, model, data } = recipe;
  const tokenizerFolder = resolvePath(model.tokenizer, 'model.tokenizer');
  const files = await readTokenizerFiles(tokenizerFolder);
  const tokenizer = createTokenizer(files.tokenizerJson, files.tokenizerConfig);
  const config = checkConfig(
    languageConfigSchema,
    {
      architectures: [languageFamily(model.text_config.model_type)!.architecture],
      transformers_version: TRANSFORMERS_VERSION,
      ...model.text_config,
      // <image> lies behind the last row and is never looked up
      vocab_size: tokenizer.imageTokenId,
      pad_token_id: tokenizer.padTokenId,
      bos_token_id: tokenizer.bosTokenId,
      eos_token_id: tokenizer.eosTokenId,
    },
    'the recipe: model.text_config',
  );
  const emoji = await loadEmojiConcepts();
  const concepts = splitConcepts(emoji).seen;
  const artists = trainingArtists(emoji, data.held_out_artist);
  const weights = freshWeights(engine, languageModelLoss(config).parameters, seed);
  const positions = config.max_position_embeddings;
  for (const stage of recipe.stages) {
    stepsOf(stage);
    const { name, max_length } = stage;
    if (max_length > positions)
      throw new UserError(
        `stage ${name}: max_length is ${max_length}, but the model has ${positions} positions: give at most that, or more max_position_embeddings`,
      );
  }
  return {
    weights,
    saved: { config, files: tokenizerFilesOf(files) },
    stages: recipe.stages,
    moduleOf: () => 'language_model',
    async prepareStage(index) {
      const stage = recipe.stages[index];
      const { name, mixture, accumulation, batch_size: batchSize, max_length: maxLength } = stage;
      const totalSteps = stepsOf(stage);
      const source = thread.open({
        task: 'language-model',
        seed,
        stage: name,
        tokenizer: tokenizerFolder,
        batchSize,
        maxLength,
        positions,
        concepts,
        artists,
        gridSide: data.grid_side,
        mixture,
      });
      return {
        settings: stage,
        loss: (storage) => languageModelLoss(config, { storage }),
        totalSteps,
        data: freshData(source, { accumulation, totalSteps, communicator }),
        dispose: source.close,
      };
    },
  };
}
