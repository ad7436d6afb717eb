// Trains a tiny LLaVA over a language model that has Gemma's own tokenizer (256,000 tokens, none of them
// `<image>`) and no chat template, for ask_ours.mjs and ask_transformers.py. Run by hand after
// `npm run build` (README.md).
import { cpSync, mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

const [tokenizer, out] = process.argv.slice(2);
if (out === undefined) throw new Error('give the folder of the tokenizer, and the folder to write to');
const load = (file) => import(new URL(`../../dist/${file}`, import.meta.url).href);

const { run } = await load('cli/main.js');
const { saveCheckpoint } = await load('checkpoint/checkpoint.js');
const { languageConfigSchema } = await load('models/language.js');
const { modelParameters } = await load('models/model-parameters.js');
const { initialize } = await load('nn/parameters.js');
const { createRandom } = await load('random.js');

const language = join(out, 'gemma');
mkdirSync(out, { recursive: true });
const config = languageConfigSchema.parse({
  architectures: ['GemmaForCausalLM'],
  model_type: 'gemma',
  vocab_size: 256000,
  hidden_size: 48,
  intermediate_size: 128,
  num_hidden_layers: 2,
  num_attention_heads: 2,
  num_key_value_heads: 1,
  head_dim: 24,
});
const drawn = (parameter) => ({ shape: [...parameter.dims], data: initialize(parameter, createRandom(1, parameter.name)) });
await saveCheckpoint(language, {
  config,
  tensors: new Map(modelParameters(config).map((parameter) => [parameter.name, drawn(parameter)])),
});
for (const name of ['tokenizer.json', 'tokenizer_config.json']) cpSync(join(tokenizer, name), join(language, name));

const stage = { train: ['multi_modal_projector', 'language_model'], batch_size: 8, lr: 4e-3, max_length: 128 };
const recipe = {
  task: 'llava',
  model: { vision_tower: 'assets/models/tiny-clip', language_model: language, vision_feature_layer: -1 },
  data: { generate: 'emoji', folder: join(out, 'scenes'), train_scenes: 600, evaluation_scenes: 1 },
  // captions first, so that answers are more than a word
  stages: [
    { name: 'captions', data: 'captions', template: 'gemma', steps: 150, ...stage },
    { name: 'questions', data: 'questions', steps: 30, ...stage },
  ],
};
writeFileSync(join(out, 'recipe.yaml'), JSON.stringify(recipe));
const code = await run(['node', 'llava-gemma', 'train', join(out, 'recipe.yaml'), '--out', join(out, 'run'), '--overwrite']);
if (code !== 0) throw new Error('the training failed');
