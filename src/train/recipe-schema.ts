// What a recipe may say: every field, its bounds and its default. Field names and defaults are those of
// Hugging Face configs and of LLaVA's scripts (haotian-liu/LLaVA scripts/v1_5/{pretrain,finetune}.sh); each
// field says what it is in `.describe()`.

import { z } from 'zod';
import { evaluationSplits } from '../data/emoji/build.ts';
import { DEVICES } from '../engine/engine.ts';
import { clipTextConfigSchema, clipVisionConfigSchema } from '../models/clip.ts';
import { connectorTypeSchema } from '../models/connector.ts';
import { dinov2ConfigSchema } from '../models/dinov2.ts';
import { languageConfigSchema, modelTypeError } from '../models/language.ts';
import {
  augmentationSchema,
  contrastiveData,
  count,
  decay,
  generatedData,
  instanceData,
  languageModelData,
  positive,
  share,
  stageData,
  textSource,
} from './recipe-data.ts';
import { nearest } from './recipe-problems.ts';

// ---- Models, as in their Hugging Face config.json ----

// A recipe says how large a new model is: the sizes that a folder's config may leave out are of billions.
const sizes = <Name extends string>(...names: Name[]) =>
  Object.fromEntries(names.map((name) => [name, count()])) as Record<Name, ReturnType<typeof count>>;
const languageSizes = sizes('hidden_size', 'intermediate_size', 'num_hidden_layers');
const towerSizes = sizes('hidden_size', 'intermediate_size', 'num_hidden_layers', 'num_attention_heads');

// The vocabulary is the tokenizer's: it is not repeated here.
const [gemma, gemma2, gemma3] = languageConfigSchema.options;
const languageConfig = z
  .discriminatedUnion(
    'model_type',
    [
      gemma
        .extend({ ...languageSizes, ...sizes('num_attention_heads', 'num_key_value_heads', 'head_dim') })
        .omit({ vocab_size: true })
        .strict(),
      gemma2.extend(languageSizes).omit({ vocab_size: true }).strict(),
      gemma3.extend(languageSizes).omit({ vocab_size: true }).strict(),
    ],
    { error: modelTypeError },
  )
  .describe('Config of a Gemma, Gemma 2 or Gemma 3 without vocab_size; a field that is the same in several is listed once');
const clipVisionConfig = clipVisionConfigSchema
  .extend({ ...towerSizes, ...sizes('image_size', 'patch_size') })
  .strict()
  .describe('A CLIP vision config');
const clipTextConfig = clipTextConfigSchema
  .extend(towerSizes)
  .omit({ vocab_size: true, eos_token_id: true })
  .strict()
  .describe('A CLIP text config without vocab_size and eos_token_id');
const dinov2Config = dinov2ConfigSchema
  .extend(sizes('hidden_size', 'num_hidden_layers', 'num_attention_heads', 'image_size', 'patch_size'))
  .extend({ model_type: z.literal('dinov2').default('dinov2'), use_mask_token: z.literal(false).default(false) })
  .strict()
  .describe('A DINOv2 config');

// ---- Stages ----

const optimizerFields = {
  name: z
    .string()
    .regex(/^(?!\.+$)[A-Za-z0-9_.-]+$/, 'must consist of letters, digits, dots, dashes and underscores: it names a folder')
    .describe('Name of the stage and of its checkpoint folder'),
  epochs: positive().optional().describe('Passes over the data; 1 when neither epochs nor steps is given'),
  steps: count().optional().describe('Optimizer steps, instead of epochs'),
  accumulation: count().default(1).describe('Batches whose gradients are summed for one optimizer step'),
  schedule: z
    .enum(['cosine', 'linear', 'constant', 'wsd'])
    .default('cosine')
    .describe('Learning rate after the warmup; wsd is constant and falls at the end'),
  decay_ratio: share().default(0.1).describe('Share of the steps over which wsd falls'),
  warmup_ratio: share().default(0.03).describe('Share of the steps over which the learning rate rises from 0'),
  warmup_steps: z.int().nonnegative().optional().describe('The same in steps; goes before warmup_ratio'),
  min_lr_ratio: share().default(0).describe('Where cosine, linear and wsd end, as a share of the peak learning rate'),
  weight_decay: z.number().nonnegative().default(0).describe('Decoupled weight decay; never of biases and norms'),
  optim: z
    .enum(['adamw_torch', 'adamw_8bit'])
    .default('adamw_torch')
    .describe(
      'adamw_torch keeps moments in float32, 8 bytes a trained number; adamw_8bit in blocks of 8-bit codes, 2 bytes, but for embeddings and small tensors',
    ),
  betas: z.tuple([decay(), decay()]).default([0.9, 0.999]).describe('Decay of the first and second moment of AdamW'),
  eps: positive().default(1e-8).describe('Epsilon of AdamW'),
  gradient_checkpointing: z
    .boolean()
    .default(false)
    .describe('Compute the forward pass of each layer again for the backward pass instead of keeping it: less memory, more time'),
  max_grad_norm: z.number().nonnegative().default(1).describe('Global gradient norm is clipped to this; 0 does not clip'),
  save_every: z.int().nonnegative().default(0).describe('Steps between checkpoints; 0 does not count steps'),
  save_every_minutes: z
    .number()
    .nonnegative()
    .default(15)
    .describe('Minutes after the last checkpoint at which the next is saved, whatever save_every says; 0 does not look at the clock'),
  keep_checkpoints: z
    .int()
    .nonnegative()
    .default(0)
    .describe('How many checkpoints of an unfinished stage stay as checkpoints/<stage>-step-<step>, the newest among them'),
  log_every: count().default(10).describe('Steps between lines of metrics.jsonl'),
  ema_decay: z
    .number()
    .gt(0)
    .lt(1)
    .optional()
    .describe('Average the weights over the steps, with this decay (0.999); the average is what the stage ends with'),
};

/** A stage that trains `modules`; `peak` is the default learning rate, `samples` the default batch. */
function stageSchema<const M extends readonly [string, ...string[]]>(modules: M, peak: number, samples: number) {
  const module = z.enum(modules);
  return {
    ...optimizerFields,
    train: z.array(module).min(1).describe('Modules that are trained; everything else is frozen'),
    batch_size: count().default(samples).describe('Samples (rows, for a language model) in one batch'),
    lr: positive().default(peak).describe('Peak learning rate'),
    lr_by_module: z
      .record(z.string(), positive())
      .default({})
      .describe('Peak learning rate of a module, or of what a pattern names (language_model.*.q_proj), instead of lr'),
    weight_decay_by_module: z
      .record(z.string(), z.number().nonnegative())
      .default({})
      .describe('Weight decay in the same way, instead of weight_decay'),
  };
}

interface AnyStage {
  epochs?: number;
  steps?: number;
  train: readonly string[];
  lora?: unknown;
  lr_by_module: Readonly<Record<string, number>>;
  weight_decay_by_module: Readonly<Record<string, number>>;
}

/** What fields of a stage say about each other, whatever the task; `modules` are those that there are. */
const checkStage = (modules: readonly string[]) => (stage: AnyStage, context: z.core.$RefinementCtx) => {
  const refuse = (message: string, ...path: string[]) => context.addIssue({ code: 'custom', message, path });
  if (stage.epochs !== undefined && stage.steps !== undefined)
    refuse('gives both epochs and steps; take one out (an empty --set stages.N.epochs= does, N counted from 0)', 'steps');
  for (const field of ['lr_by_module', 'weight_decay_by_module'] as const)
    for (const pattern of Object.keys(stage[field])) {
      const module = pattern.slice(0, pattern.search(/[.*]|$/));
      // a star may stand for any module
      if (modules.some((name) => name === module || (pattern[module.length] === '*' && name.startsWith(module)))) {
        if (modules.includes(module) && !stage.train.includes(module) && !stage.lora)
          refuse(`${module} is not trained in this stage (train names ${stage.train.join(', ')})`, field, pattern);
      } else {
        const guess = nearest(module, modules);
        refuse(`there is no module ${module}; ${guess ? `did you mean ${guess}?` : `there are ${modules.join(', ')}`}`, field, pattern);
      }
    }
};

const adapterFields = {
  dropout: z.number().min(0).lt(1).describe('Chance with which each number that enters an adapter is left out while it is trained'),
};

const freshLora = z.strictObject({
  rank: count().default(128).describe('Rows of A and columns of B: the rank of what is added to a weight'),
  alpha: positive().default(256).describe('What is added is multiplied by alpha / rank'),
  dropout: adapterFields.dropout.default(0.05),
  targets: z
    .array(z.string())
    .min(1)
    .default(['language_model.*'])
    .describe('Linear layers that get an adapter, by name; * stands for any text, as in language_model.*.q_proj'),
  rslora: z.boolean().default(false).describe('Multiply by alpha / sqrt(rank) instead (rank stabilization)'),
});

const givenLora = z.strictObject({
  adapter: z.string().describe("Folder of an adapter in peft's format to train further, instead of a new one"),
  dropout: adapterFields.dropout.optional(),
});

const loraSchema = z
  .union([givenLora, freshLora])
  .describe('Adapters that are trained instead of the weights (LoRA); the checkpoint has them merged, and beside it adapter/');

const heldOutSchema = z
  .strictObject({
    samples: count().optional().describe('How many; all samples of a picture are on one side'),
    share: z.number().gt(0).lt(1).optional().describe('Instead, about this share of all pictures: the same in every stage'),
    every: count().default(100).describe('Steps between measurements; there is one before the first step, and one after the last'),
  })
  .superRefine(({ samples, share }, context) => {
    if ((samples === undefined) === (share === undefined))
      context.addIssue({ code: 'custom', message: 'gives neither or both of samples and share; give one', path: [] });
  })
  .describe('Samples that are not trained on, for a loss that says whether the model learns more than its data');

const llavaModules = ['vision_tower', 'multi_modal_projector', 'language_model'] as const;

const llavaStage = z
  .strictObject({
    ...stageSchema(llavaModules, 2e-5, 128),
    train: z
      .array(z.enum(llavaModules))
      .describe('Modules that are trained; everything else is frozen. May be empty where there are adapters'),
    lora: loraSchema.optional(),
    data: stageData.describe('captions or questions of generated data, or LLaVA JSON with an image folder; a list mixes several files'),
    max_length: count().default(2048).describe('Longest sequence in tokens, image rows included; longer ones are cut'),
    template: z
      .enum(['gemma', 'plain'])
      .default('gemma')
      .describe('gemma: the chat template; plain: picture and caption only, as in LLaVA stage 1'),
    on_bad_sample: z
      .enum(['error', 'skip'])
      .default('error')
      .describe(
        'What to do about a sample that cannot be trained on, such as one with a damaged picture: end the run, or leave it out and list it in skipped.jsonl',
      ),
    row_length: count()
      .default(384)
      .describe('Tokens in a packed row; a longer sample has a row of its own. 2048 suits encoders of 576 rows'),
    group_by_modality: z
      .boolean()
      .default(false)
      .describe(
        'Each step has samples with pictures or samples without, as group_by_modality_length of LLaVA makes them; steps come in random order',
      ),
    image_aspect_ratio: z
      .enum(['square', 'pad'])
      .optional()
      .describe(
        "How a picture that is no square becomes one, by LLaVA's names: square cuts its sides off, pad adds bars in the mean color; as the encoder's folder says when left out",
      ),
    feature_cache: z
      .enum(['auto', 'float32', 'float16', 'none'])
      .default('auto')
      .describe(
        'How features of a frozen encoder are kept on disk, to be computed once; none computes them at each step; auto takes the first that fits feature_cache_gb',
      ),
    feature_cache_gb: positive().default(20).describe('Most that auto keeps on disk, in gigabytes'),
    picture_threads: count()
      .optional()
      .describe('Threads that decode and resize pictures, at most 4 at a time; one less than there are cores, up to 4, when left out'),
    held_out: heldOutSchema.optional(),
    keep_best: z
      .boolean()
      .default(false)
      .describe('Keep the model with the lowest held-out loss as checkpoints/<stage>-best, a folder like any other'),
    feature_mixup: share()
      .default(0)
      .describe('Largest share of another picture of the batch in the features of each, while the answers stay: for a frozen encoder'),
  })
  .superRefine((stage, context) => {
    checkStage(llavaModules)(stage, context);
    if (stage.train.length === 0 && !stage.lora)
      context.addIssue({ code: 'custom', message: 'names no module, and there is no lora: nothing would be trained', path: ['train'] });
    if (stage.keep_best && !stage.held_out)
      context.addIssue({ code: 'custom', message: 'needs a held-out loss to judge by: give held_out too', path: ['keep_best'] });
    if (stage.feature_mixup > 0 && stage.train.includes('vision_tower')) {
      context.addIssue({ code: 'custom', message: 'needs a frozen encoder, but vision_tower is trained', path: ['feature_mixup'] });
    }
    if (stage.feature_mixup > 0 && stage.feature_cache === 'none')
      context.addIssue({ code: 'custom', message: 'needs features that are kept, but feature_cache is none', path: ['feature_mixup'] });
  });

const contrastiveModules = ['vision_model', 'text_model'] as const;

const contrastiveStage = z
  .strictObject({
    ...stageSchema(contrastiveModules, 1e-3, 256),
    train: z
      .array(z.enum(contrastiveModules))
      .min(1)
      .default([...contrastiveModules])
      .describe('Modules that are trained'),
    augmentation: augmentationSchema.prefault({}),
    single_patch_chance: share()
      .default(0)
      .describe('Chance that a drawing is matched with its name from one of its patches instead of the mean of all'),
  })
  .superRefine(checkStage(contrastiveModules));

const instanceModules = ['vision_model', 'head'] as const;

const instanceStage = z
  .strictObject({
    ...stageSchema(instanceModules, 1e-3, 64),
    train: z
      .array(z.enum(instanceModules))
      .min(1)
      .default([...instanceModules])
      .describe('Modules that are trained'),
    batch_size: count().default(64).describe('Scenes in one batch'),
    augmentation: augmentationSchema.prefault({}),
    temperature: positive().default(0.07).describe('What cosines between a drawing and the instances are divided by'),
    single_patch_chance: share()
      .default(0)
      .describe('Chance that a drawing is recognized from one of its patches instead of the mean of all'),
  })
  .superRefine(checkStage(instanceModules));

const languageModelStage = z
  .strictObject({
    ...stageSchema(['language_model'], 1e-3, 32),
    train: z
      .array(z.enum(['language_model']))
      .min(1)
      .default(['language_model'])
      .describe('Modules that are trained'),
    max_length: count().default(256).describe('Tokens in a row'),
    mixture: z.array(textSource).min(1).describe('Named sources of text with their weights'),
  })
  .superRefine(checkStage(['language_model']));

// ---- Recipes ----

const runFields = {
  seed: z.int().nonnegative().default(42).describe('Seed of initialization, data and order: the same seed gives the same weights'),
  device: z
    .enum(DEVICES)
    .optional()
    .describe(
      'What the run runs on: cpu, webgpu, or auto, which is webgpu where there is the adapter of a GPU (webgpu.md); cpu when left out',
    ),
};

const contrastiveRecipe = z.strictObject({
  task: z.literal('contrastive').describe('Pretrain a CLIP: an image and a text encoder that agree'),
  ...runFields,
  model: z.strictObject({
    vision_config: clipVisionConfig,
    text_config: clipTextConfig,
    projection_dim: count().describe('Width of the space in which pictures and texts are compared'),
    logit_scale_init_value: z.number().default(2.6592).describe('Logarithm of the initial inverse temperature'),
    tokenizer: z.string().describe('Folder of a tokenizer.json'),
  }),
  data: contrastiveData,
  stages: z.array(contrastiveStage).min(1),
});

const languageModelRecipe = z.strictObject({
  task: z.literal('language-model').describe('Pretrain a Gemma on text'),
  ...runFields,
  model: z.strictObject({
    text_config: languageConfig,
    tokenizer: z.string().describe('Folder of a tokenizer.json'),
  }),
  data: languageModelData,
  stages: z.array(languageModelStage).min(1),
});

const instanceRecipe = z.strictObject({
  task: z.literal('instance-discrimination').describe('Pretrain a DINOv2 without labels: it tells all drawings apart'),
  ...runFields,
  model: z.strictObject({
    vision_config: dinov2Config,
    projection_dim: count().describe('Width of the space in which drawings are told apart, which training alone needs'),
  }),
  data: instanceData,
  stages: z.array(instanceStage).min(1),
});

const partsModel = z.strictObject({
  vision_tower: z.string().describe('Hugging Face folder of the vision encoder'),
  language_model: z.string().describe('Hugging Face folder of the Gemma'),
  tokenizer: z.string().optional().describe('Folder of a tokenizer.json; that of the language model when left out'),
  connector: connectorTypeSchema.default('mlp2x_gelu').describe('linear, or mlpNx_gelu: N linear layers with GELU between'),
  vision_feature_layer: z
    .union([z.int(), z.array(z.int()).min(1)])
    .default(-2)
    .describe('Hidden state of the encoder that is used, counted from the end when negative; several are joined'),
  vision_feature_select_strategy: z
    .enum(['default', 'full'])
    .default('default')
    .describe('default drops the class token where the encoder has one, full keeps it'),
  scale_image_features: z
    .boolean()
    .default(true)
    .describe('Multiply image rows by sqrt(hidden_size), as the released LLaVA-Gemma does (transformers before 5)'),
});

const llavaModel = z.strictObject({
  llava: z.string().describe('Hugging Face folder of a LLaVA to train further, instead of the two parts'),
  new_connector: connectorTypeSchema
    .optional()
    .describe('A fresh connector of this type, as connector; that of the folder is kept when left out'),
});

const llavaRecipe = z.strictObject({
  task: z.literal('llava').describe('Join a vision encoder to a Gemma through a connector'),
  ...runFields,
  model: z.union([partsModel, llavaModel]).describe('The parts to join, or a LLaVA to train further'),
  data: generatedData.optional().describe('Data made before training; stages may name LLaVA JSON files instead'),
  stages: z.array(llavaStage).min(1).describe('What happens, in order; each stage starts from the weights of the one before'),
  evaluate: z
    .strictObject({
      splits: z
        .array(z.enum(evaluationSplits))
        .min(1)
        .default(['unseen-artist', 'unseen-scenes', 'unseen-concepts'])
        .describe('Held-out splits of the generated data'),
      batch_size: count().default(64).describe('Questions answered at a time'),
      max_new_tokens: count().default(24).describe('Longest answer'),
      every: z
        .int()
        .nonnegative()
        .default(0)
        .describe('Steps between scorings of the model while it is trained; 0 scores it at the end alone'),
      questions: count().default(100).describe('Questions of each split that these scorings ask'),
    })
    .optional()
    .describe('How the trained model is scored; no scoring when left out'),
});

/** Schemas of the recipes of each task. */
export const recipeSchemas = [contrastiveRecipe, instanceRecipe, languageModelRecipe, llavaRecipe] as const;

/** Any recipe. */
export const recipeSchema = z.discriminatedUnion('task', recipeSchemas).superRefine((recipe, context) => {
  const names = recipe.stages.map(({ name }) => name);
  names.forEach((name, index) => {
    if (names.indexOf(name) === index) return;
    context.addIssue({
      code: 'custom',
      message: `${name} is already the name of an earlier stage; take another`,
      path: ['stages', index, 'name'],
    });
  });
  names.forEach((name, index) => {
    const other = names.find((each) => name.startsWith(each) && /^-(best|step-\d+)$/.test(name.slice(each.length)));
    if (other === undefined) return;
    const message = `${name} is what kept checkpoints of stage ${other} are called; take another name`;
    context.addIssue({ code: 'custom', message, path: ['stages', index, 'name'] });
  });
  if (recipe.task !== 'llava' || recipe.data !== undefined) return;
  recipe.stages.forEach((stage, index) => {
    if (typeof stage.data !== 'string') return;
    const message = `${stage.data} are generated data, but the recipe has no \`data: {generate: emoji}\``;
    context.addIssue({ code: 'custom', message, path: ['stages', index, 'data'] });
  });
  if (recipe.evaluate)
    context.addIssue({ code: 'custom', message: 'needs `data: {generate: emoji}`, whose splits it scores', path: ['evaluate'] });
});
