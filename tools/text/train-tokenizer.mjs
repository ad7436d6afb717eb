// Writes assets/tokenizer/: the tokenizer of the tiny models, trained on the embedded glosses and on
// questions and captions of emoji scenes. The output is always the same bytes, in about half a minute. From
// the root of a clone:
//
//     node tools/text/train-tokenizer.mjs
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { gunzipSync } from 'node:zlib';
import { build, install } from '../../scripts/setup.mjs';

install();
build();
const { loadEmojiGlyphs, sharedConcepts } = await import('../../dist/data/emoji/glyphs.js');
const questions = await import('../../dist/data/emoji/questions.js');
const { sampleScene } = await import('../../dist/data/emoji/scene.js');
const { createRandom } = await import('../../dist/random.js');
const { trainTokenizer } = await import('../../dist/text/bpe-trainer.js');
const { createTokenizer } = await import('../../dist/text/tokenizer.js');

const root = join(dirname(fileURLToPath(import.meta.url)), '..', '..');
const vocabSize = 4096;
const sceneCount = 4000;
/** Counts of each concept's name: enough for a word that is not in any gloss to become one token. */
const sharedNameWeight = 60;
const otherNameWeight = 20;

const glyphs = await loadEmojiGlyphs();
const shared = sharedConcepts(glyphs);
const isShared = new Set(shared);

/** A scene's caption, its description in words, and one question of each task in any phrasing. */
function textsAbout(scene, random) {
  const list = [questions.describeQuestion(scene, glyphs, 'any', random), questions.countQuestion(scene, 'any', random)];
  list.push(questions.nameQuestion(random.pick(scene.glyphs), glyphs, 'any', random));
  const names = { all: shared, popular: shared };
  list.push(questions.existenceQuestion(scene, glyphs, random.uniform() < 0.5, 'random', names, 'any', random));
  for (const placed of questions.categorised(scene, glyphs).slice(0, 1)) {
    list.push(questions.categoryQuestion(placed, glyphs, random.integer(4), 'any', random));
  }
  for (const placed of questions.colored(scene, glyphs).slice(0, 1)) list.push(questions.colorQuestion(placed, glyphs, 'any', random));
  return [questions.sceneInWords(scene, glyphs), ...list.flatMap(({ question, answer }) => [question, answer])];
}

const texts = gunzipSync(readFileSync(join(root, 'assets', 'text', 'glosses.txt.gz')))
  .toString('utf8')
  .split('\n')
  .map((text) => ({ text }));
const asked = [];
for (let i = 0; i < sceneCount; i++) {
  const random = createRandom(42, 'tokenizer', i);
  asked.push(textsAbout(sampleScene(random, glyphs, { concepts: shared, artists: glyphs.artists }), random));
}
texts.push(...asked.flat().map((text) => ({ text })));
for (const [index, concept] of glyphs.concepts.entries()) {
  const weight = isShared.has(index) ? sharedNameWeight : otherNameWeight;
  texts.push({ text: ` ${concept.phrase} ${concept.name}`, weight });
  // An answer begins with its first word, without a space before it: that word needs a token without `▁`.
  texts.push({ text: concept.name, weight });
}
texts.push(...['user', 'model', ...questions.categories].map((text) => ({ text, weight: 1000 })));

const { tokenizerJson, tokenizerConfig } = trainTokenizer(texts, { vocabSize });
const folder = join(root, 'assets', 'tokenizer');
mkdirSync(folder, { recursive: true });
writeFileSync(join(folder, 'tokenizer.json'), `${JSON.stringify(tokenizerJson, null, 1)}\n`);
writeFileSync(join(folder, 'tokenizer_config.json'), `${JSON.stringify(tokenizerConfig, null, 2)}\n`);

const tokenizer = createTokenizer(tokenizerJson, tokenizerConfig);
const lengths = (list) => list.map((text) => tokenizer.encode(text).length);
const mean = (list) => (list.reduce((sum, value) => sum + value, 0) / list.length).toFixed(2);
const histogram = (list) => {
  const counts = {};
  for (const value of list) counts[value] = (counts[value] ?? 0) + 1;
  return JSON.stringify(counts);
};
const report = (what, list) => console.log(`${what}: ${mean(lengths(list))} tokens on average, ${histogram(lengths(list))}`);
const names = (list) => list.map((index) => glyphs.concepts[index].name);
report(
  `names of the ${shared.length} shared concepts, after a space`,
  names(shared).map((name) => ` ${name}`),
);
report('the same as an answer', names(shared));
report(
  `names of all ${glyphs.concepts.length} concepts, after a space`,
  glyphs.concepts.map(({ name }) => ` ${name}`),
);
report(
  'scenes in words',
  asked.map(([words]) => words),
);
report(
  'questions',
  asked.flatMap(([, ...list]) => list.filter((_, i) => i % 2 === 0)),
);
report(
  'answers',
  asked.flatMap(([, ...list]) => list.filter((_, i) => i % 2 === 1)),
);
const glossLengths = lengths(texts.slice(0, 2000).map(({ text }) => text));
console.log(
  `glosses: ${mean(glossLengths)} tokens on average, ${mean(texts.slice(0, 2000).map(({ text }, i) => text.length / Math.max(1, glossLengths[i])))} characters a token`,
);
