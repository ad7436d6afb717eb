// Pretraining of a DINOv2 on emoji scenes without labels (recipe task `instance-discrimination`), with naming
// by neighbors as its score.

import { regionSlots } from '../../data/emoji/contrastive.ts';
import { instanceCount } from '../../data/emoji/instances.ts';
import { dinov2ConfigSchema } from '../../models/dinov2.ts';
import { instanceLoss, isOfHead } from '../../models/instance-discrimination.ts';
import type { GraphOptions } from '../../models/programs.ts';
import { checkConfig } from '../../pretrained/folder.ts';
import { TRANSFORMERS_VERSION } from '../../pretrained/hub-form.ts';
import { PROCESSOR_FILE } from '../../pretrained/processor.ts';
import { freshData } from '../prefetch.ts';
import { augmentationOf, type InstanceDiscriminationRecipe } from '../recipe.ts';
import { stepsOf, type Task, type TaskContext } from '../task.ts';
import { freshWeights } from '../weights.ts';
import { neighborScores } from './drawing-neighbors.ts';
import { encoderScenes } from './encoder-scenes.ts';

export async function instanceDiscriminationTask(
  recipe: InstanceDiscriminationRecipe,
  { engine, thread, communicator }: TaskContext,
): Promise<Task> {
  const { seed, model, data } = recipe;
  const config = checkConfig(
    dinov2ConfigSchema,
    { architectures: ['Dinov2Model'], transformers_version: TRANSFORMERS_VERSION, ...model.vision_config },
    'the recipe: model.vision_config',
  );
  const { processor, scenes } = await encoderScenes(data, config);
  const head = { slots: regionSlots, instances: instanceCount(scenes), projection: model.projection_dim };
  const lossOf = ({ temperature }: { temperature: number }, options?: GraphOptions) =>
    instanceLoss(config, { ...head, temperature }, options);
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
        task: 'instance-discrimination',
        seed,
        stage: name,
        batchSize,
        ...scenes,
        augmentation: augmentationOf(stage.augmentation),
        singlePatchChance: stage.single_patch_chance,
      });
      return {
        settings: stage,
        loss: (storage) => lossOf(stage, { storage }),
        totalSteps,
        data: freshData(source, { accumulation, totalSteps, communicator }),
        dispose: source.close,
      };
    },
    async evaluate() {
      const { mean, std } = scenes;
      return neighborScores(engine, { config, weights: await weights.all(), mean, std, heldOutArtist: data.held_out_artist, seed });
    },
  };
}
