// What a recipe may say of its data, and the numbers that all its fields are made of: see recipe-schema.ts.

import { z } from 'zod';
import { canvasSize, defaultAugmentation } from '../data/emoji/scene.ts';
import { defaultHeldOutArtist } from '../data/emoji/split.ts';
import { textSources } from '../data/emoji/texts.ts';

export const share = () => z.number().min(0).max(1);
/** Of an average: 1 would keep it as it began. */
export const decay = () => z.number().min(0).lt(1);
export const positive = () => z.number().positive();
export const count = () => z.int().positive();

const emojiFields = {
  generate: z.literal('emoji').describe('Compose scenes from the embedded drawings'),
  held_out_artist: z.string().default(defaultHeldOutArtist).describe('The artist whose drawings are never trained on, in any stage'),
};

export const augmentationSchema = z
  .strictObject({
    scale: z
      .tuple([positive(), positive()])
      .default([...defaultAugmentation.scale])
      .describe('Range of the factor on the size of a drawing'),
    rotation: z.number().min(0).max(180).default(defaultAugmentation.rotation).describe('Largest rotation to either side in degrees'),
    shear: z.number().min(0).max(60).default(defaultAugmentation.shear).describe('Largest lean of verticals to either side in degrees'),
    stretch: z.number().min(1).max(4).default(defaultAugmentation.stretch).describe('Largest factor between width and height, either way'),
    erase_chance: share().default(defaultAugmentation.eraseChance).describe('Chance that a part of a drawing is left out'),
    flip_chance: share().default(defaultAugmentation.flipChance).describe('Chance of a mirror image'),
    grey_chance: share().default(defaultAugmentation.greyChance).describe('Chance of losing all colour'),
    brightness: share().default(defaultAugmentation.brightness).describe('Largest departure of the factor from 1'),
    contrast: share().default(defaultAugmentation.contrast).describe('Largest departure of the factor from 1'),
    saturation: share().default(defaultAugmentation.saturation).describe('Largest departure of the factor from 1'),
    hue: z.number().min(0).max(180).default(defaultAugmentation.hue).describe('Largest turn of the hue to either side in degrees'),
  })
  .describe('How drawings are varied, so that the encoder learns the thing and not the artist');

const drawingsField = z
  .array(z.int().min(1).max(4))
  .min(1)
  .default([1, 2, 3, 4])
  .describe('Numbers of drawings in a scene, drawn from uniformly; a repeated number weighs more');

export const contrastiveData = z.strictObject({
  ...emojiFields,
  drawings: drawingsField,
  caption_weight: z
    .number()
    .nonnegative()
    .default(0.3)
    .describe('Weight of the loss between scenes and captions beside that of drawings and names'),
});

export const instanceData = z.strictObject({ ...emojiFields, drawings: drawingsField });

export const textSource = z.strictObject({
  source: z
    .enum(textSources)
    .describe(
      'WordNet glosses; kinds of things and the letters that stand for them; of scenes written out in words: captions, what is at each place (in another order), or the questions of the pictures; the same questions of scenes written as a grid, one word a patch',
    ),
  weight: positive().describe('Share of the rows drawn from this source, relative to the other weights'),
});

export const languageModelData = z.strictObject({
  ...emojiFields,
  grid_side: count().default(6).describe('Patches along a side of the pictures that questions-in-grids stand for'),
});

export const generatedData = z.strictObject({
  ...emojiFields,
  folder: z
    .string()
    .default('.cache/emoji')
    .describe('Where pictures and JSON are written; runs of other scenes that are on at the same time need another'),
  seed: z
    .int()
    .nonnegative()
    .optional()
    .describe('Seed of the scenes and their questions; that of the run when left out. Runs with other seeds can then be asked the same'),
  train_scenes: count().default(4000).describe('Scenes to train on; each gives a caption and about eight questions'),
  evaluation_scenes: count().default(200).describe('Scenes in each held-out split; each gives up to six questions'),
  augmentation: augmentationSchema.optional().describe('How drawings of the training scenes are varied; not at all if not given'),
  scene_size: count().default(canvasSize).describe('Side of a scene in pixels'),
});

const jsonData = z
  .strictObject({
    data_path: z.string().describe('A file in LLaVA JSON format, or of chat messages; a JSON array or JSON Lines'),
    image_folder: z.string().describe('The folder that its image paths are relative to'),
    share: positive()
      .default(1)
      .describe('How much of the file an epoch takes: 1 all, 0.5 one half and the next epoch the other, 2 everything twice'),
    samples: count().optional().describe('The same as a number of samples, instead of share'),
  })
  .superRefine(({ share, samples }, context) => {
    if (samples === undefined || share === 1) return;
    context.addIssue({
      code: 'custom',
      message: 'share says already how much of the file an epoch takes; give one of the two',
      path: ['samples'],
    });
  })
  .describe('Pictures and conversations on disk');

export const stageData = z.union([z.enum(['captions', 'questions']), jsonData, z.array(jsonData).min(1)], {
  error: 'must be captions or questions (of generated data), {data_path, image_folder}, or a list of these',
});
