// Pretraining of a language model on text (recipe task `language-model`).

import { readTokenizerFiles, tokenizerFilesOf } from '../../checkpoint/tokenizer-files.ts';
import { loadEmojiGlyphs } from '../../data/emoji/glyphs.ts';
import { splitConcepts, trainingArtists } from '../../data/emoji/split.ts';
import { loadGlosses, textBatch } from '../../data/emoji/texts.ts';
import { packSamples } from '../../data/packing.ts';
import { float32 } from '../../engine/engine.ts';
import { UserError } from '../../errors.ts';
import { LANGUAGE_ARCHITECTURES, languageConfigSchema } from '../../models/language.ts';
import { languageModelObjective } from '../../models/objectives.ts';
import { initialise } from '../../nn/parameters.ts';
import { resolvePath } from '../../paths.ts';
import { createRandom } from '../../random.ts';
import { createTokenizer } from '../../text/tokenizer.ts';
import type { LanguageModelRecipe } from '../recipe.ts';
import { stepsOf, type Task, type TaskContext } from '../task.ts';

export async function languageModelTask(recipe: LanguageModelRecipe, { engine }: TaskContext): Promise<Task> {
  const { seed, model, data } = recipe;
  const files = await readTokenizerFiles(resolvePath(model.tokenizer, 'model.tokenizer'));
  const tokenizer = createTokenizer(files.tokenizerJson, files.tokenizerConfig);
  const config = languageConfigSchema.parse({
    architectures: [LANGUAGE_ARCHITECTURES[model.text_config.model_type]],
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
  const objective = languageModelObjective(config);
  const parameters = objective.parameters.list();
  const values = new Map(parameters.map((parameter) => [parameter.name, initialise(parameter, createRandom(seed, parameter.name))]));
  const positions = config.max_position_embeddings;
  for (const { name, max_length } of recipe.stages)
    if (max_length > positions) throw new UserError(`stage ${name}: max_length is ${max_length}, but the model has ${positions} positions`);
  return {
    engine,
    parameters,
    values,
    saved: { config, files: tokenizerFilesOf(files) },
    stageNames: recipe.stages.map(({ name }) => name),
    moduleOf: () => 'language_model',
    async prepareStage(index) {
      const stage = recipe.stages[index];
      const totalSteps = stepsOf(stage);
      const text = { ...options, mixture: stage.mixture };
      return {
        settings: stage,
        objective,
        totalSteps,
        data: {
          // text is made afresh at each step: the whole stage is one pass
          stepsPerEpoch: totalSteps,
          batches: (step) => {
            const batches = Array.from({ length: stage.accumulation }, (_, i) =>
              packSamples(
                textBatch(seed, `${stage.name} ${step * stage.accumulation + i}`, stage.batch_size * stage.max_length, text),
                stage.max_length,
                positions,
              ),
            );
            const labels = batches.reduce((sum, { inputs }) => sum + inputs.labels.data.length, 0);
            return batches.map(({ inputs, tokens, rows, length }) => ({
              inputs: { ...inputs, loss_scale: float32([1 / labels], []) },
              tokens,
              padding: rows * length - tokens,
            }));
          },
        },
      };
    },
  };
}
