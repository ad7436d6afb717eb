import { mkdtempSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { ENCODER, LANGUAGE, PRETRAIN, recipeFiles, recipeText } from '../../tools/recipes/make.mjs';
import { UserError } from '../errors.ts';
import { resolvePath } from '../paths.ts';
import { type LlavaRecipe, loadRecipe, type Recipe, readRecipe, recipeToYaml } from './recipe.ts';

const recipes = new URL('../../recipes/', import.meta.url).pathname;
const tiny = readFileSync(join(recipes, 'emoji-tiny.yaml'), 'utf8');
const read = (...overrides: string[]) => readRecipe(tiny, 'emoji-tiny.yaml', overrides) as LlavaRecipe;

describe('the bundled recipes', () => {
  it.each(readdirSync(recipes).filter((name) => name.endsWith('.yaml')))(
    '%s is valid, says how to run it, and survives a round trip',
    (name) => {
      const recipe: Recipe = loadRecipe(join(recipes, name));
      expect(readFileSync(join(recipes, name), 'utf8')).toContain(`npx llava-gemma train recipes/${name}`);
      expect(readRecipe(recipeToYaml(recipe), 'recipe.yaml')).toEqual(recipe);
    },
  );
});

describe('the recipes of the paper', () => {
  const folder = join(recipes, 'llava-gemma');

  it('are what tools/recipes/make.mjs writes', () => {
    expect(readdirSync(folder).sort()).toEqual(Object.keys(recipeFiles).sort());
    for (const [file, text] of Object.entries(recipeFiles)) expect(readFileSync(join(folder, file), 'utf8'), file).toBe(text);
  });

  it.each(Object.keys(recipeFiles))('%s is valid, and has the batches of the scripts', (name) => {
    const recipe = loadRecipe(join(folder, name)) as LlavaRecipe;
    expect(readRecipe(recipeToYaml(recipe), 'recipe.yaml')).toEqual(recipe);
    expect(recipeFiles[name]).toContain(`npx llava-gemma train recipes/llava-gemma/${name}`);
    const samples = recipe.stages.map(({ name, batch_size, accumulation }) => `${name} ${batch_size * accumulation}`);
    expect(samples).toEqual(name.includes('no-pretraining') ? ['finetune 128'] : ['pretrain 256', 'finetune 128']);
    expect(recipe.stages.at(-1)).toMatchObject({ weight_decay: 0, warmup_ratio: 0.03, schedule: 'cosine', epochs: 1, max_length: 2048 });
  });
});

it('every combination of the parts of the paper and of what its readers try is a recipe', () => {
  for (const language of Object.keys(LANGUAGE))
    for (const encoder of Object.keys(ENCODER))
      for (const pretrain of Object.keys(PRETRAIN))
        for (const adapters of [undefined, 'lora', 'qlora'])
          for (const skips of [false, true])
            for (const connector of ['linear', 'mlp2x_gelu', 'mlp3x_gelu', 'mlp4x_gelu']) {
              const text = recipeText({ name: 'mine', language, encoder, pretrain, adapters, skips, connector });
              const recipe = readRecipe(text, 'mine.yaml') as LlavaRecipe;
              expect(recipe.stages).toHaveLength(skips ? 1 : 2);
              expect(recipe.model).toMatchObject({ connector });
            }
});

describe('defaults', () => {
  const stage = (train: string) => {
    const text = `task: llava\nmodel: {vision_tower: a, language_model: b}\nstages: [{name: s, train: [${train}], data: {data_path: d.json, image_folder: i}}]`;
    return (readRecipe(text, 'x.yaml') as LlavaRecipe).stages[0];
  };

  it('are those of finetune.sh', () => {
    expect(stage('multi_modal_projector, language_model')).toMatchObject({
      lr: 2e-5,
      batch_size: 128,
      warmup_ratio: 0.03,
      schedule: 'cosine',
      weight_decay: 0,
      max_length: 2048,
      template: 'gemma',
    });
  });

  it('are those of pretrain.sh where the connector is trained alone', () => {
    expect(stage('multi_modal_projector')).toMatchObject({ lr: 1e-3, batch_size: 256, template: 'plain' });
  });

  it('give way to what the recipe says', () => {
    const given = read('stages.0.lr=', 'stages.0.template=', 'stages.0.batch_size=7').stages[0];
    expect(given).toMatchObject({ lr: 1e-3, template: 'plain', batch_size: 7 });
    expect(read('stages.0.template=gemma').stages[0].template).toBe('gemma');
  });

  it('let the encoder be trained, whose features are not mixed then', () => {
    expect(stage('vision_tower, language_model')).toMatchObject({ train: ['vision_tower', 'language_model'], feature_mixup: 0 });
    expect(read('stages.0.feature_mixup=0.3').stages[0].feature_mixup).toBe(0.3);
  });

  it('of pretrain.sh are not those of other tasks', () => {
    const text = readFileSync(join(recipes, 'tiny-gemma.yaml'), 'utf8');
    const [stage] = readRecipe(text, 'x.yaml', ['stages.0.batch_size=', 'stages.0.train=']).stages;
    expect(stage).toMatchObject({ batch_size: 32, train: ['language_model'] });
    expect(stage).not.toHaveProperty('template');
  });
});

it('of runs from before are read without their precision', () => {
  expect(readRecipe(`precision: float32\n${tiny}`, 'recipe.yaml')).toEqual(read());
  expect(recipeToYaml(read())).not.toContain('precision');
});

describe('--set', () => {
  it('sets typed values at any depth', () => {
    const recipe = read(
      'stages.0.lr=5e-4',
      'stages.1.steps=10',
      'stages.1.epochs=',
      'model.vision_feature_layer=[-2, -4]',
      'data.train_scenes=7',
    );
    expect(recipe.stages[0].lr).toBe(5e-4);
    expect(recipe.stages[1].steps).toBe(10);
    expect(recipe.stages[1].epochs).toBeUndefined();
    expect(recipe.model).toMatchObject({ vision_feature_layer: [-2, -4] });
    expect(recipe.data?.train_scenes).toBe(7);
  });

  it('reads values as YAML, up to the first equals sign', () => {
    expect(read('data.folder=a=b').data?.folder).toBe('a=b');
    expect(read(' data.folder =yes').data?.folder).toBe('yes');
    expect(read('model.scale_image_features=false').model).toMatchObject({ scale_image_features: false });
    expect(read('stages.1.lr_by_module={language_model: 1e-4}').stages[1].lr_by_module).toEqual({ language_model: 1e-4 });
    expect(read('evaluate=').evaluate).toBeUndefined();
    expect(read('seed=5', 'seed=6').seed).toBe(6);
  });

  it('makes blocks that the file leaves out', () => {
    expect(read('stages.0.lr_by_module.multi_modal_projector=0.1').stages[0].lr_by_module).toEqual({ multi_modal_projector: 0.1 });
  });

  it.each([
    ['stages.0.lr', 'must look like path=value'],
    ['=3', 'must look like path=value'],
    ['stages.2.lr=1', 'stages is a list of 2; 2 must be a number from 0 to 1'],
    ['stages.pretrain.lr=1', 'stages is a list of 2; pretrain must be a number'],
    ['seed.x=1', 'seed is 42 and has no fields'],
    ['seed..x=1', 'must look like path=value'],
    ['.seed=1', 'must look like path=value'],
    ['seed.=1', 'must look like path=value'],
    ['stages.-1.lr=1', 'stages is a list of 2; -1 must be a number from 0 to 1'],
    ['stages.0x1.lr=1', 'stages is a list of 2; 0x1 must be a number from 0 to 1'],
    ['stages.1.name.x=1', 'stages.1.name is "finetune" and has no fields'],
    ['model.vision_tower.x.y=1', 'model.vision_tower is "assets/models/tiny-clip" and has no fields'],
    ['seed=[1', 'the value is not YAML'],
  ])('%s is refused: %s', (override, message) => {
    expect(() => read(override)).toThrow(UserError);
    expect(() => read(override)).toThrow(message);
  });
});

describe('a wrong recipe is one sentence that names the field', () => {
  it.each([
    ['stages.1.learning_rat=1', 'emoji-tiny.yaml: unknown field stages.1.learning_rat; known fields are'],
    ['stages.1.epoch=1', 'unknown field stages.1.epoch; did you mean epochs?'],
    ['stages.1.warmup_ration=1', 'unknown field stages.1.warmup_ration; did you mean warmup_ratio?'],
    ['model.conector=linear', 'unknown field model.conector; did you mean connector?'],
    ['sead=1', 'unknown field sead; did you mean seed?'],
    ['SEED=1', 'unknown field SEED; did you mean seed?'],
    ['sede=1', 'unknown field sede; did you mean seed?'],
    ['eesd=1', 'unknown field eesd; did you mean seed?'],
    ['seedxx=1', 'unknown field seedxx; did you mean seed?'],
    ['sd=1', 'unknown field sd; did you mean seed?'],
    ['model.ivsion_otwre=a', 'unknown field model.ivsion_otwre; did you mean vision_tower?'],
    ['model.vision_toxxxx=a', 'unknown field model.vision_toxxxx; did you mean vision_tower?'],
    ['model.vision_txxxxx=a', 'unknown field model.vision_txxxxx; known fields are vision_tower, language_model,'],
    [
      'stages.0={name: a, train: [vision_tower], data: captions, feature_mixup: 0.1}',
      'stages.0.feature_mixup: needs a frozen encoder, but vision_tower is trained',
    ],
    [
      'stages.1.lora={rank: 4, use_rslora: true}',
      'unknown field stages.1.lora.use_rslora; known fields are adapter, dropout, rank, alpha, targets, rslora',
    ],
    ['elephant=1', 'unknown field elephant; known fields are task, seed, device, model, data, stages, evaluate'],
    ['model.viosin_towre=a', 'unknown field model.viosin_towre; did you mean vision_tower?'],
    ['evaluate.split=[a]', 'unknown field evaluate.split; did you mean splits?'],
    ['data.augmentation.rotatoin=1', 'unknown field data.augmentation.rotatoin; did you mean rotation?'],
    ['stages.1.train=[]', 'stages.1.train:'],
    ['stages.0.name=..', 'stages.0.name: must consist of letters, digits, dots, dashes and underscores: it names a folder (it is "..")'],
    ['stages.0.name=a b', 'stages.0.name: must consist of letters, digits, dots, dashes and underscores: it names a folder (it is "a b")'],
    ['stages.0.feature_mixup=2', 'stages.0.feature_mixup:'],
    ['model=3', 'model: must be a map of fields (it is 3)'],
    ['stages=[]', 'stages:'],
    ['data.train_scene=1', 'unknown field data.train_scene; did you mean train_scenes?'],
    ['stages.0.data={data_path: a, image_foldr: b}', 'unknown field stages.0.data.image_foldr; did you mean image_folder?'],
    ['stages.0.data=[{data_path: a, image_folder: b, shear: 2}]', 'unknown field stages.0.data.0.shear; did you mean share?'],
    ['stages.0.data=[{data_path: a, image_folder: b, share: 0}]', 'stages.0.data.0.share:'],
    ['stages.0.data=[{data_path: a, image_folder: b, share: 2, samples: 9}]', 'stages.0.data.0.samples: share says already how much'],
    ['stages.0.data=[{data_path: a, image_folder: b, samples: 1.5}]', 'stages.0.data.0.samples:'],
    ['stages.0.data=[{data_path: a}]', 'stages.0.data.0.image_folder is missing'],
    ['stages.0.data=[]', 'stages.0.data:'],
    [
      'stages.0.lr_by_module.vision_towr=1',
      'stages.0.lr_by_module.vision_towr: there is no module vision_towr; did you mean vision_tower?',
    ],
    ['stages.0.lr_by_module.language_model=1', 'stages.0.lr_by_module.language_model: language_model is not trained in this stage'],
    ['stages.0.lr=fast', 'stages.0.lr: must be a number (it is "fast")'],
    ['stages.0.lr=-1', 'stages.0.lr:'],
    // the moments would never move, and their corrections divide by zero
    ['stages.0.betas=[0.9, 1]', 'stages.0.betas.1: must be less than 1'],
    ['stages.0.betas=[1, 0.999]', 'stages.0.betas.0: must be less than 1'],
    ['stages.0.train=[lora]', 'stages.0.train.0:'],
    ['stages.1.steps=5', 'stages.1.steps: gives both epochs and steps'],
    ['stages.0.data=captoins', 'stages.0.data: must be captions or questions'],
    ['stages.1.name=pretrain', 'stages.1.name: pretrain is already the name of an earlier stage'],
    ['model.connector=mlp0x_gelu', 'model.connector: must be "linear" or "mlpNx_gelu"'],
    ['evaluate.splits=[unseen]', 'evaluate.splits.0:'],
    ['data=', 'stages.0.data: captions are generated data, but the recipe has no `data: {generate: emoji}`'],
    ['stages.0={name: a}', 'stages.0.train is missing (Modules that are trained;'],
    ['task=lava', 'task must be contrastive, instance-discrimination, language-model or llava, and is "lava"'],
    ['precision=float16', 'unknown field precision;'],
  ])('%s', (override, message) => {
    expect(() => read(override)).toThrow(UserError);
    expect(() => read(override)).toThrow(message);
    expect(() => read(override)).toThrow(/^emoji-tiny\.yaml: [^\n]*$/);
  });

  it('of a LLaVA that is trained further', () => {
    const modelOf = (model: object) => read(`model=${JSON.stringify(model)}`).model;
    expect(modelOf({ llava: 'a' })).toEqual({ llava: 'a' });
    expect(modelOf({ llava: 'a', new_connector: 'linear' })).toEqual({ llava: 'a', new_connector: 'linear' });
    expect(() => modelOf({ llava: 'a', new_conector: 'linear' })).toThrow('unknown field model.new_conector; did you mean new_connector?');
    expect(() => modelOf({ llava: 'a', new_connector: 'mlp' })).toThrow('model.new_connector: must be "linear" or');
    expect(() => modelOf({ llava: 'a', vision_tower: 'b' })).toThrow('model.vision_tower cannot be given beside llava');
    expect(() => modelOf({ vision_tower: 'b' })).toThrow('model.language_model is missing');
  });

  it('of a language model, by its family', () => {
    const text = readFileSync(join(recipes, 'tiny-gemma.yaml'), 'utf8');
    const model = (...overrides: string[]) =>
      (readRecipe(text, 'x.yaml', overrides) as Extract<Recipe, { task: 'language-model' }>).model.text_config;
    const gemma2 = 'model.text_config.model_type=gemma2';
    expect(model().model_type).toBe('gemma');
    expect(model(gemma2, 'model.text_config.sliding_window=64')).toMatchObject({ sliding_window: 64, attn_logit_softcapping: 50 });
    expect(() => model(gemma2, 'model.text_config.sliding_windo=64')).toThrow('did you mean sliding_window?');
    expect(() => model('model.text_config.sliding_window=64')).toThrow('unknown field model.text_config.sliding_window; known fields are');
    expect(() => model('model.text_config.model_type=llama')).toThrow(
      'x.yaml: model.text_config.model_type: must be one of gemma, gemma2, gemma3_text (it is "llama")',
    );
  });

  it('missing fields', () => {
    expect(() => readRecipe('task: llava', 'x.yaml')).toThrow('x.yaml: model is missing');
    expect(() => readRecipe('seed: 1', 'x.yaml')).toThrow('and is missing');
  });

  it('scores without the data that they are of', () => {
    const data = 'data: {data_path: d.json, image_folder: i}';
    const text = `task: llava\nmodel: {vision_tower: a, language_model: b}\nstages: [{name: s, train: [language_model], ${data}}]\nevaluate: {}`;
    expect(() => readRecipe(text, 'x.yaml')).toThrow('evaluate: needs `data: {generate: emoji}`, whose splits it scores');
    expect(readRecipe(text.replace('evaluate: {}', ''), 'x.yaml')).not.toHaveProperty('evaluate');
  });

  it('generated data that are not generated', () => {
    const text = 'task: llava\nmodel: {vision_tower: a, language_model: b}\nstages: [{name: s, train: [language_model], data: captions}]';
    expect(() => readRecipe(text, 'x.yaml')).toThrow('stages.0.data: captions are generated data');
  });

  it('files that are not UTF-8', () => {
    const path = join(mkdtempSync(join(tmpdir(), 'recipe-')), 'x.yaml');
    writeFileSync(path, Buffer.from(`seed: 1\n# é\n${tiny}`, 'latin1'));
    expect(() => loadRecipe(path)).toThrow(`${path}: line 2 is not UTF-8 (it has the byte 0xE9)`);
    writeFileSync(path, `\ufeff${tiny}`);
    expect(loadRecipe(path)).toEqual(read());
  });

  it('files that are not recipes', () => {
    expect(() => loadRecipe('nowhere.yaml')).toThrow('recipe: there is nothing at nowhere.yaml');
    expect(() => loadRecipe(recipes)).toThrow('recipe: cannot read');
    expect(() => readRecipe('a: [1', 'x.yaml')).toThrow(/^x\.yaml: not YAML: .*$/);
    expect(() => readRecipe('- 1', 'x.yaml')).toThrow('must be a map');
    const path = join(mkdtempSync(join(tmpdir(), 'recipe-')), 'empty.yaml');
    writeFileSync(path, '');
    expect(() => loadRecipe(path)).toThrow('must be a map');
  });
});

it('finds paths from the working directory, or in the package', () => {
  expect(resolvePath(tmpdir(), 'x')).toBe(tmpdir());
  const here = process.cwd();
  process.chdir(tmpdir());
  try {
    expect(readFileSync(resolvePath('recipes/emoji-tiny.yaml', 'x'), 'utf8')).toBe(tiny);
  } finally {
    process.chdir(here);
  }
  expect(() => resolvePath('assets/none', 'model.vision_tower')).toThrow('model.vision_tower: there is nothing at assets/none');
});
