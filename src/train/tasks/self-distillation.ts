// Pretraining of a DINOv2 on views of emoji scenes without labels (recipe task `self-distillation`), with
// naming by neighbors as its score.

import { loadEmojiConcepts } from '../../data/emoji/glyphs.ts';
import { splitConcepts, trainingArtists } from '../../data/emoji/split.ts';
import { UserError } from '../../errors.ts';
import { dinov2ConfigSchema } from '../../models/dinov2.ts';
import type { GraphOptions } from '../../models/programs.ts';
import { isOfHead, selfDistillationLoss, teacherInput } from '../../models/self-distillation.ts';
import { checkConfig } from '../../pretrained/folder.ts';
import { TRANSFORMERS_VERSION } from '../../pretrained/hub-form.ts';
import { imageProcessorFor, PROCESSOR_FILE } from '../../pretrained/processor.ts';
import { freshData } from '../prefetch.ts';
import { augmentationOf, type SelfDistillationRecipe } from '../recipe.ts';
import { stepsOf, type Task, type TaskContext } from '../task.ts';
import { freshWeights } from '../weights.ts';
import { neighborScores } from './drawing-neighbors.ts';

type SelfDistillationStage = SelfDistillationRecipe['stages'][number];

export async function selfDistillationTask(recipe: SelfDistillationRecipe, { engine, thread, communicator }: TaskContext): Promise<Task> {
  const { seed, model, data } = recipe;
  const config = checkConfig(
    dinov2ConfigSchema,
    { architectures: ['Dinov2Model'], transformers_version: TRANSFORMERS_VERSION, ...model.vision_config },
    'the recipe: model.vision_config',
  );
  const { image_size: imageSize, patch_size: patchSize } = config;
  const processor = imageProcessorFor(imageSize);
  const emoji = await loadEmojiConcepts();
  const views = {
    concepts: splitConcepts(emoji).seen,
    artists: trainingArtists(emoji, data.held_out_artist),
    counts: data.drawings,
    imageSize,
    patchSize,
    localScale: data.local_crops_scale,
    localCrops: data.local_crops_number,
    localSize: data.local_crops_size,
    mean: processor.image_mean,
    std: processor.image_std,
  };
  const head = { hidden: model.head_hidden_dim, bottleneck: model.head_bottleneck_dim, prototypes: model.head_n_prototypes };
  const { localSize } = views;
  if (localSize < patchSize)
    throw new UserError(`data.local_crops_size is ${localSize}: a crop has at least one patch, of ${patchSize} pixels`);
  const lossOf = ({ student_temp, teacher_temp }: SelfDistillationStage, options?: GraphOptions) =>
    selfDistillationLoss(config, { head, localSize, studentTemperature: student_temp, teacherTemperature: teacher_temp }, options);
  for (const stage of recipe.stages) stepsOf(stage);
  const weights = freshWeights(engine, lossOf(recipe.stages[0]).parameters, seed);
  return {
    weights,
    saved: {
      config,
      files: { [PROCESSOR_FILE]: `${JSON.stringify({ ...processor, processor_class: undefined }, null, 2)}\n` },
      isApart: isOfHead,
    },
    stages: recipe.stages,
    moduleOf: (name) => (isOfHead(name) ? 'head' : 'vision_model'),
    async prepareStage(index) {
      const stage = recipe.stages[index];
      const { name, accumulation, batch_size: batchSize } = stage;
      const totalSteps = stepsOf(stage);
      const source = thread.open({
        task: 'self-distillation',
        seed,
        stage: name,
        batchSize,
        ...views,
        augmentation: augmentationOf(stage.augmentation),
        maskChance: stage.mask_sample_probability,
        maskShare: stage.mask_ratio_min_max,
        singlePatchChance: stage.single_patch_chance,
        classTokenChance: stage.class_token_chance,
        ibotWeight: stage.ibot_loss_weight,
      });
      return {
        settings: stage,
        loss: (storage) => lossOf(stage, { storage }),
        averageInput: teacherInput,
        totalSteps,
        data: freshData(source, { accumulation, totalSteps, communicator }),
        dispose: source.close,
      };
    },
    async evaluate() {
      const { mean, std } = views;
      return neighborScores(engine, { config, weights: await weights.all(), mean, std, heldOutArtist: data.held_out_artist, seed });
    },
  };
}
