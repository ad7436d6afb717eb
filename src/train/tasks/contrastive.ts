// Contrastive pretraining of a CLIP on emoji scenes (recipe task `contrastive`), with zero-shot naming of
// unseen scenes as its score.

import { readTokenizerFiles, tokenizerFilesOf } from '../../checkpoint/tokenizer-files.ts';
import { type ContrastiveOptions, pixelInputs, regionInputs, regionSlots, textInputs } from '../../data/emoji/contrastive.ts';
import { loadEmojiGlyphs } from '../../data/emoji/glyphs.ts';
import { renderScene, sampleScene } from '../../data/emoji/scene.ts';
import type { Engine } from '../../engine/engine.ts';
import type { Scores, TaskScore } from '../../evaluate/samples.ts';
import { type ClipConfig, clipConfigSchema } from '../../models/clip.ts';
import { contrastiveLoss, namingGraph } from '../../models/contrastive.ts';
import { compileGraph } from '../../models/programs.ts';
import { resolvePath } from '../../paths.ts';
import { checkConfig } from '../../pretrained/folder.ts';
import { TRANSFORMERS_VERSION } from '../../pretrained/hub-form.ts';
import { PROCESSOR_FILE } from '../../pretrained/processor.ts';
import { createRandom } from '../../random.ts';
import { wilsonInterval } from '../../statistics/proportion.ts';
import { createTokenizer, type Tokenizer } from '../../text/tokenizer.ts';
import { freshData } from '../prefetch.ts';
import { augmentationOf, type ContrastiveRecipe } from '../recipe.ts';
import { stepsOf, type Task, type TaskContext } from '../task.ts';
import { freshWeights, type ModelWeights } from '../weights.ts';
import { encoderScenes } from './encoder-scenes.ts';

const EVALUATION_SCENES = 400;

export async function contrastiveTask(recipe: ContrastiveRecipe, { engine, thread, communicator }: TaskContext): Promise<Task> {
  const { seed, model, data } = recipe;
  const tokenizerFolder = resolvePath(model.tokenizer, 'model.tokenizer');
  const files = await readTokenizerFiles(tokenizerFolder);
  const tokenizer = createTokenizer(files.tokenizerJson, files.tokenizerConfig);
  const config = checkConfig(
    clipConfigSchema,
    {
      architectures: ['CLIPModel'],
      transformers_version: TRANSFORMERS_VERSION,
      ...model,
      tokenizer: undefined,
      text_config: {
        ...model.text_config,
        vocab_size: tokenizer.imageTokenId,
        eos_token_id: tokenizer.eosTokenId,
        bos_token_id: tokenizer.bosTokenId,
      },
    },
    'the recipe: model',
  );
  const { processor, scenes } = await encoderScenes(data, config.vision_config);
  const options = { ...scenes, captionWeight: data.caption_weight };
  for (const stage of recipe.stages) stepsOf(stage);
  const weights = freshWeights(engine, contrastiveLoss(config, regionSlots).parameters, seed);
  return {
    weights,
    saved: {
      config,
      files: {
        [PROCESSOR_FILE]: `${JSON.stringify({ ...processor, processor_class: 'CLIPProcessor' }, null, 2)}\n`,
        ...tokenizerFilesOf(files),
      },
    },
    stages: recipe.stages,
    moduleOf: (name) => (/^(vision_model|visual_projection)/.test(name) ? 'vision_model' : 'text_model'),
    async prepareStage(index) {
      const stage = recipe.stages[index];
      const { name, accumulation, batch_size: batchSize } = stage;
      const totalSteps = stepsOf(stage);
      const source = thread.open({
        task: 'contrastive',
        seed,
        stage: name,
        tokenizer: tokenizerFolder,
        batchSize,
        ...options,
        singlePatchChance: stage.single_patch_chance,
        augmentation: augmentationOf(stage.augmentation),
      });
      return {
        settings: stage,
        loss: (storage) => contrastiveLoss(config, regionSlots, { storage }),
        totalSteps,
        data: freshData(source, { accumulation, totalSteps, communicator }),
        dispose: source.close,
      };
    },
    async evaluate() {
      const splits = { 'unseen-scenes': options.artists, 'unseen-artist': [data.held_out_artist] };
      const scores: Scores = {};
      for (const [split, artists] of Object.entries(splits))
        scores[split] = { name: await zeroShotNames(engine, config, weights, tokenizer, { ...options, artists }, seed, split) };
      return scores;
    },
  };
}

/** Names each drawing of plain scenes with the nearest of all names. */
async function zeroShotNames(
  engine: Engine,
  config: ClipConfig,
  weights: ModelWeights,
  tokenizer: Tokenizer,
  options: Omit<ContrastiveOptions, 'augmentation' | 'singlePatchChance'>,
  seed: number,
  split: string,
): Promise<TaskScore> {
  const graph = namingGraph(config, regionSlots, { storage: weights.storageOf() });
  const program = await compileGraph(engine, graph, await weights.constants(graph));
  const { concepts, imageSize, patchSize } = options;
  const glyphs = await loadEmojiGlyphs();
  const names = textInputs(
    tokenizer,
    'name',
    concepts.map((concept) => glyphs.concepts[concept].name),
  );
  const correct: boolean[] = [];
  for (let start = 0; start < EVALUATION_SCENES; start += 50) {
    const scenes = Array.from({ length: 50 }, (_, i) =>
      sampleScene(createRandom(seed, 'zero-shot', split, start + i), glyphs, { concepts, artists: options.artists, size: imageSize }),
    );
    const inputs = regionInputs(scenes, ({ concept }) => concepts.indexOf(concept), imageSize, patchSize);
    const labels = inputs.region_labels.data as Int32Array;
    const { region_labels: _, ...regionFeeds } = inputs;
    const pixels = pixelInputs(
      scenes.map((scene) => renderScene(scene, glyphs)),
      imageSize,
      options.mean,
      options.std,
    );
    const rows = (await program.run({ pixel_values: pixels, ...regionFeeds, ...names })).similarity.data as Float32Array;
    labels.forEach((label, i) => {
      const row = rows.subarray(i * concepts.length, (i + 1) * concepts.length);
      correct.push(row.every((value) => value <= row[label]));
    });
  }
  await program.dispose();
  const right = correct.filter(Boolean).length;
  const { low, high } = wilsonInterval(right, correct.length);
  const chance = 1 / concepts.length;
  return {
    accuracy: right / correct.length,
    ciLow: low,
    ciHigh: high,
    n: correct.length,
    correct: right,
    majority: chance,
    majorityFrom: 'training',
    random: chance,
  };
}
