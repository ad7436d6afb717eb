// What is wrong with a recipe is said in one sentence, before anything is trained: it names the field and
// what would work. One case for each kind of mistake; src/train/recipe.test.ts has further ones of the
// schema's own.
import { existsSync, writeFileSync } from 'node:fs';
import { beforeAll, describe, expect, it } from 'vitest';
import { stringify } from 'yaml';
import { cli, enterToyFolder, recipes } from './toy.ts';

beforeAll(async () => {
  const leave = await enterToyFolder();
  const conversations = [
    { from: 'human', value: 'Say a word.' },
    { from: 'gpt', value: 'word' },
  ];
  writeFileSync('text.json', JSON.stringify(Array.from({ length: 6 }, () => ({ conversations }))));
  const { evaluate: _, data: __, ...rest } = recipes.llava;
  const stages = rest.stages.map((stage) => ({ ...stage, data: { data_path: 'text.json', image_folder: '.' } }));
  writeFileSync('text.yaml', stringify({ ...rest, stages }));
  return leave;
}, 180_000);

interface Mistake {
  /** Default: text.yaml. */
  recipe?: string;
  set: string[];
  /** What the sentence must say: the field, and what would work. */
  field: string;
  remedy: string;
}

const MISTAKES: Record<string, Mistake> = {
  'a field that there is not': {
    set: ['stages.1.warmup_ration=0.1'],
    field: 'stages.1.warmup_ration',
    remedy: 'did you mean warmup_ratio?',
  },
  'a value of another type': { set: ['stages.0.lr=fast'], field: 'stages.0.lr', remedy: 'must be a number' },
  'a number out of bounds': { set: ['stages.0.lr=-1'], field: 'stages.0.lr', remedy: 'must be more than 0' },
  'a share above one': { set: ['stages.0.warmup_ratio=3'], field: 'stages.0.warmup_ratio', remedy: 'must be at most 1' },
  'a fraction for a count': { set: ['stages.0.batch_size=1.5'], field: 'stages.0.batch_size', remedy: 'must be a whole number' },
  'a list that is too short': { set: ['stages.0.betas=[0.9]'], field: 'stages.0.betas', remedy: 'must have at least 2 elements' },
  'a word that is none of those known': {
    set: ['stages.0.schedule=cosin'],
    field: 'stages.0.schedule',
    remedy: 'must be one of cosine, linear, constant or wsd; did you mean cosine?',
  },
  'a module that there is not': {
    set: ['stages.0.train=[conector]'],
    field: 'stages.0.train.0',
    remedy: 'must be one of vision_tower, multi_modal_projector or language_model',
  },
  'a field that is needed': { set: ['stages.0.train='], field: 'stages.0.train is missing', remedy: 'Modules that are trained' },
  'a task that there is not': {
    set: ['task=lava'],
    field: 'task',
    remedy: 'must be contrastive, instance-discrimination, language-model or llava',
  },
  'no stage': { set: ['stages=[]'], field: 'stages', remedy: 'must have at least 1 element' },
  'two lengths': { set: ['stages.1.epochs=2'], field: 'stages.1.steps', remedy: 'take one out' },
  'a stage without an end': { recipe: 'gemma.yaml', set: ['stages.0.steps='], field: 'stage gemma', remedy: 'give steps' },
  'two stages of one name': { set: ['stages.1.name=pretrain'], field: 'stages.1.name', remedy: 'take another' },
  'a stage named as a kept checkpoint': { set: ['stages.1.name=pretrain-best'], field: 'stages.1.name', remedy: 'take another name' },
  'two kinds of model': { set: ['model.llava=x'], field: 'model.llava', remedy: 'cannot be given beside vision_tower, language_model' },
  'a connector that there is not': { set: ['model.connector=mlp'], field: 'model.connector', remedy: 'such as mlp2x_gelu' },
  'a model that is not there': {
    set: ['model.language_model=google/gemma-2b-it'],
    field: 'model.language_model',
    remedy: 'llava-gemma pull google/gemma-2b-it',
  },
  'a model of another kind': {
    set: ['model.vision_tower=gemma/checkpoints/gemma'],
    field: 'model_type',
    remedy: 'must be one of clip_vision_model, siglip_vision_model, dinov2',
  },
  'a layer that the encoder has not': { set: ['model.vision_feature_layer=-9'], field: 'vision_feature_layer', remedy: 'give -3 to 2' },
  'sizes that do not fit each other': {
    recipe: 'gemma.yaml',
    set: ['model.text_config.num_key_value_heads=3'],
    field: 'model.text_config: num_key_value_heads',
    remedy: 'must divide num_attention_heads, which is 2',
  },
  'more tokens than positions': {
    recipe: 'gemma.yaml',
    set: ['stages.0.max_length=300'],
    field: 'max_length',
    remedy: 'has 192 positions: give at most that',
  },
  'data that are not there': {
    set: ['stages.0.data.data_path=nowhere.json'],
    field: 'stage pretrain: data.data_path',
    remedy: 'paths are those from',
  },
  'pictures that are not there': {
    set: ['stages.1.data.image_folder=nowhere'],
    field: 'stage finetune: data.image_folder',
    remedy: 'paths are those from',
  },
  'a picture that max_length cuts': {
    recipe: 'llava.yaml',
    set: ['stages.0.max_length=3'],
    field: 'max_length',
    remedy: 'raise max_length',
  },
  'generated data that are not generated': { set: ['stages.0.data=captions'], field: 'stages.0.data', remedy: '`data: {generate: emoji}`' },
  'a rate of a module that is frozen': {
    set: ['stages.0.lr_by_module={language_model: 1e-4}'],
    field: 'stages.0.lr_by_module.language_model',
    remedy: 'train names multi_modal_projector',
  },
  'a rate of a module that there is not': {
    set: ['stages.1.weight_decay_by_module={language_modl: 0.1}'],
    field: 'stages.1.weight_decay_by_module.language_modl',
    remedy: 'did you mean language_model?',
  },
  'a rate of nothing': {
    set: ['stages.1.lr_by_module={language_model.*.query: 1e-4}'],
    field: 'stage finetune: lr_by_module: nothing that is trained is called language_model.*.query',
    remedy: 'language_model.*.q_proj, ',
  },
  'two rates of one': {
    set: ['stages.1.lr_by_module={"*.layers*": 1e-4, "*.o_proj": 1e-3}'],
    field: 'stage finetune: lr_by_module: *.layers* and *.o_proj',
    remedy: 'add a longer pattern',
  },
  'an adapter of nothing': {
    set: ['stages.1.lora={targets: [language_model.*.query]}'],
    field: 'lora.targets: no linear layer is called language_model.*.query',
    remedy: 'language_model.*.q_proj, ',
  },
  'an adapter of what is trained whole': { set: ['stages.1.lora={rank: 4}'], field: 'lora.targets', remedy: 'take it out of `train`' },
  'an average of nothing but the last': { set: ['stages.0.ema_decay=1'], field: 'stages.0.ema_decay', remedy: 'must be less than 1' },
  'a held-out loss of nothing': { set: ['stages.0.held_out={every: 3}'], field: 'stages.0.held_out', remedy: 'give one' },
  'a held-out loss of everything': { set: ['stages.0.held_out={samples: 6}'], field: 'stage pretrain: held_out', remedy: 'hold fewer out' },
  'a best without a measure': { set: ['stages.0.keep_best=true'], field: 'stages.0.keep_best', remedy: 'give held_out too' },
  'features mixed that are not kept': {
    set: ['stages.0.feature_mixup=0.2', 'stages.0.feature_cache=none'],
    field: 'stages.0.feature_mixup',
    remedy: 'needs features that are kept',
  },
};

describe('a recipe with', () => {
  it('twenty kinds of mistakes and more', () => expect(Object.keys(MISTAKES).length).toBeGreaterThanOrEqual(20));

  it.each(Object.entries(MISTAKES))('%s', async (_, { recipe = 'text.yaml', set, field, remedy }) => {
    const { code, stdout, stderr } = await cli('train', recipe, '--out', 'bad', ...set.flatMap((each) => ['--set', each]));
    expect([code, stdout], stderr).toEqual([1, '']);
    const said = stderr.trimEnd().split('\n').at(-1)!;
    expect(said).toMatch(/^error: /);
    expect(said).toContain(field);
    expect(said).toContain(remedy);
    expect(existsSync('bad')).toBe(false);
  });

  it('a mixture of texts that are longer than the model reads', async () => {
    const short = ['model.text_config.max_position_embeddings=32', 'stages.0.max_length=32'].flatMap((set) => ['--set', set]);
    const { code, stderr } = await cli('train', 'gemma.yaml', '--out', 'long', ...short);
    expect(code).toBe(1);
    expect(stderr).toMatch(
      /stage gemma: its mixture has texts of \d+ tokens, but the model has 32 positions: give more max_position_embeddings/,
    );
  });
});
