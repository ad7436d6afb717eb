// Pretraining of a language model on text (recipe task `language-model`).

import { readTokenizerFiles, tokenizerFilesOf } from '../../checkpoint/tokenizer-files.ts';
import { loadEmojiGlyphs } from '../../data/emoji/glyphs.ts';
import { splitConcepts, trainingArtists } from '../../data/emoji/split.ts';
import { loadGlosses, textBatch } from '../../data/emoji/texts.ts';
import { packSamples } from '../../data/packing.ts';
import { UserError } from '../../errors.ts';
import { languageConfigSchema, languageFamily } from '../../models/language.ts';
import { languageModelLoss } from '../../models/programs.ts';
import { resolvePath } from '../../paths.ts';
import { createTokenizer } from '../../text/tokenizer.ts';
import type { LanguageModelRecipe } from '../recipe.ts';
import { microBatch, stepsOf, type Task, type TaskContext } from '../task.ts';
import { freshWeights } from '../weights.ts';

export async function languageModelTask(recipe: LanguageModelRecipe, { engine }: TaskContext): Promise<Task> {
  const { seed, model, data } = recipe;
  const files = await readTokenizerFiles(resolvePath(model.tokenizer, 'model.tokenizer'));
  const tokenizer = createTokenizer(files.tokenizerJson, files.tokenizerConfig);
  const config = languageConfigSchema.parse({
    architectures: [languageFamily(model.text_config.model_type)!.architecture],
    ...model.text_config,
    // <image> lies behind the last row and is never looked up
    vocab_size: tokenizer.imageTokenId,
    pad_token_id: tokenizer.padTokenId,
    bos_token_id: tokenizer.bosTokenId,
    eos_token_id: tokenizer.eosTokenId,
  });
  const glyphs = await loadEmojiGlyphs();
  const options = {
    glyphs,
    tokenizer,
    glosses: await loadGlosses(),
    concepts: splitConcepts(glyphs).seen,
    artists: trainingArtists(glyphs, data.held_out_artist),
    gridSide: data.grid_side,
  };
  const weights = freshWeights(engine, languageModelLoss(config).parameters, seed);
  const positions = config.max_position_embeddings;
  for (const { name, max_length } of recipe.stages)
    if (max_length > positions) throw new UserError(`stage ${name}: max_length is ${max_length}, but the model has ${positions} positions`);
  return {
    weights,
    saved: { config, files: tokenizerFilesOf(files) },
    stages: recipe.stages,
    moduleOf: () => 'language_model',
    async prepareStage(index) {
      const stage = recipe.stages[index];
      const totalSteps = stepsOf(stage);
      const text = { ...options, mixture: stage.mixture };
      return {
        settings: stage,
        loss: (storage) => languageModelLoss(config, { storage }),
        totalSteps,
        data: {
          // text is made afresh at each step: the whole stage is one pass
          stepsPerEpoch: totalSteps,
          batches: (step) =>
            Array.from({ length: stage.accumulation }, (_, i) => {
              const key = `${stage.name} ${step * stage.accumulation + i}`;
              const rows = textBatch(seed, key, stage.batch_size * stage.max_length, text);
              return microBatch(packSamples(rows, stage.max_length, positions));
            }),
        },
      };
    },
  };
}
