// Asks a LLaVA folder 200 questions about held-out scenes, every other picture cut to an oblong, and writes
// what ask_transformers.py compares: prompt ids and answers of all, logits of some. Run by hand after
// `npm run build` (README.md).
import { mkdirSync, writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import sharp from 'sharp';

const [folder, out] = process.argv.slice(2);
if (out === undefined) throw new Error('give the model folder, and the folder to write to');
const load = (file) => import(new URL(`../../dist/${file}`, import.meta.url).href);

const { createOrtEngine, float32, int32, writeSafetensors } = await load('index.js');
const { buildEmojiDataset } = await load('data/emoji/build.js');
const { answerQuestions } = await load('evaluate/evaluate.js');
const { readQuestions } = await load('evaluate/questions.js');
const { forward } = await load('generate/forward.js');
const { imageTokenCount, llavaConfigSchema, llavaParameters } = await load('models/llava.js');
const { withCheckpoint } = await load('pretrained/folder.js');
const { loadModel } = await load('pretrained/load.js');
const { pixelValuesOf } = await load('pretrained/processor.js');
const { readRunWeights } = await load('pretrained/run-weights.js');
const { encodePrompt } = await load('text/chat.js');

const QUESTIONS = 200;
const WITH_LOGITS = 24;
const MAX_NEW_TOKENS = 24;

mkdirSync(join(out, 'pictures'), { recursive: true });
const scenes = join(out, 'scenes');
const drawn = { seed: 11, out: scenes, trainScenes: 0, splits: ['unseen-artist'], evaluationScenes: 60 };
const { evaluation, imageFolder } = await buildEmojiDataset(drawn);
const questions = (await readQuestions(evaluation['unseen-artist'], imageFolder)).slice(0, QUESTIONS);
for (const [i, question] of questions.entries()) {
  const picture = sharp(question.imagePaths[0]);
  question.imagePaths = [resolve(out, 'pictures', `${i}.png`)];
  await (i % 2 ? picture.extract({ left: 0, top: 10, width: 96, height: 61 }) : picture).png().toFile(question.imagePaths[0]);
}

const model = await loadModel(folder);
const samples = await answerQuestions(model, questions, { batchSize: 32, maxNewTokens: MAX_NEW_TOKENS, blind: false });
const ids = questions.map(({ prompt }) => encodePrompt(model.tokenizer, prompt, imageTokenCount(model.config)));
writeFileSync(
  join(out, 'answers.json'),
  JSON.stringify({
    maxNewTokens: MAX_NEW_TOKENS,
    questions: questions.map(({ imagePaths, prompt }, i) => ({
      image: imagePaths[0],
      // the place of the picture is the processor's affair
      text: prompt[0].value.replace('<image>\n', ''),
      ids: ids[i],
      answer: samples[i].answer,
    })),
  }),
);
await model.generator.dispose();

const logits = new Map();
await withCheckpoint(folder, llavaConfigSchema, async (config, checkpoint) => {
  const engine = createOrtEngine();
  const { values } = await readRunWeights(checkpoint, llavaParameters(config), {});
  const source = { read: async () => values };
  for (let i = 0; i < WITH_LOGITS; i++) {
    const size = model.processor.crop_size.height;
    const inputs = {
      input_ids: int32(Int32Array.from(ids[i]), [1, ids[i].length]),
      pixel_values: float32(await pixelValuesOf(questions[i].imagePaths, model.processor), [1, 3, size, size]),
    };
    const outputs = await forward(engine, { kind: 'llava', config }, source, inputs);
    const { dims, pieces } = outputs.get('logits');
    let last;
    for await (const piece of pieces()) last = piece.slice(-dims[2]);
    logits.set(String(i), { dtype: 'F32', shape: [dims[2]], data: new Uint8Array(last.buffer) });
  }
});
await writeSafetensors(join(out, 'logits.safetensors'), logits);
