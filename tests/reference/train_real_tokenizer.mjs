// Trains a small LLaVA over a language model that has Gemma's own tokenizer (256,000 tokens, none of them
// `<image>`) and no chat template, for ask_ours.mjs and ask_transformers.py. Run by hand after
// `npm run build` (README.md).
import { cpSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

const [tokenizer, out] = process.argv.slice(2);
if (out === undefined) throw new Error('give the folder of the tokenizer, and the folder to write to');
const load = (file) => import(new URL(`../../dist/${file}`, import.meta.url).href);

const { run } = await load('cli/main.js');
const { saveCheckpoint } = await load('checkpoint/checkpoint.js');
const { llavaConfigSchema } = await load('models/llava.js');
const { withCheckpoint } = await load('pretrained/folder.js');

const bundled = 'assets/models/tiny-llava';
// the bundled model's Gemma, which knows how to answer: each of Gemma's tokens gets the row of the same
// token there, others the mean row
const language = join(out, 'gemma');
mkdirSync(out, { recursive: true });
const vocabularyOf = (dir) => JSON.parse(readFileSync(join(dir, 'tokenizer.json'), 'utf8')).model.vocab;
const wanted = vocabularyOf(tokenizer);
const known = vocabularyOf(bundled);
await withCheckpoint(bundled, llavaConfigSchema, async ({ text_config: text, image_token_index: unknown }, checkpoint) => {
  const prefix = 'language_model.';
  const tensors = new Map();
  for (const name of checkpoint.names.filter((name) => name.startsWith(prefix)))
    tensors.set(name.slice(prefix.length), { shape: checkpoint.shape(name), data: await checkpoint.float32(name) });
  const table = tensors.get('model.embed_tokens.weight');
  const width = text.hidden_size;
  const rows = new Float32Array(256000 * width);
  for (const [token, id] of Object.entries(wanted)) {
    const from = known[token] ?? unknown;
    rows.set(table.data.subarray(from * width, (from + 1) * width), id * width);
  }
  tensors.set('model.embed_tokens.weight', { shape: [256000, width], data: rows });
  await saveCheckpoint(language, { config: { ...text, vocab_size: 256000, dtype: 'float32' }, tensors });
});
for (const name of ['tokenizer.json', 'tokenizer_config.json']) cpSync(join(tokenizer, name), join(language, name));

const recipe = {
  task: 'llava',
  model: { vision_tower: 'assets/models/tiny-clip', language_model: language, vision_feature_layer: -1 },
  data: { generate: 'emoji', folder: join(out, 'scenes'), train_scenes: 600, evaluation_scenes: 1 },
  stages: [
    { name: 'connector', train: ['multi_modal_projector'], data: 'captions', template: 'gemma', steps: 100, batch_size: 8, lr: 3e-3 },
    { name: 'all', train: ['multi_modal_projector', 'language_model'], data: 'captions', steps: 5, batch_size: 4, lr: 1e-4 },
  ].map((stage) => ({ ...stage, max_length: 256 })),
};
writeFileSync(join(out, 'recipe.yaml'), JSON.stringify(recipe));
const code = await run(['node', 'llava-gemma', 'train', join(out, 'recipe.yaml'), '--out', join(out, 'run'), '--overwrite']);
if (code !== 0) throw new Error('the training failed');
