// Text to pretrain the language model on: WordNet glosses, and the questions and captions of the pictures
// with the scene written out in words where the image will stand. A model that has learned to answer from a
// context gives the connector something to map onto.

import { readFile } from 'node:fs/promises';
import { gunzipSync } from 'node:zlib';
import { createRandom, type Random } from '../../random.ts';
import type { Turn } from '../../text/chat.ts';
import { encodeConversation, ignoreIndex } from '../../text/labels.ts';
import { shortAnswerPrompt } from '../../text/short-answer.ts';
import { imageToken, type Tokenizer } from '../../text/tokenizer.ts';
import type { EncodedSample } from '../packing.ts';
import { questionsAbout } from './build.ts';
import type { EmojiGlyphs } from './glyphs.ts';
import { describeQuestion, letteredChoices, letterPrompt, letters, sceneInWords } from './questions.ts';
import { places, type Scene, sampleScene } from './scene.ts';

export const textSources = ['glosses', 'kinds', 'captions', 'places', 'questions-in-words', 'questions-in-grids'] as const;
export type TextSource = (typeof textSources)[number];

const glossFile = new URL('../../../assets/text/glosses.txt.gz', import.meta.url);

/** The glosses, one sentence each. */
export async function loadGlosses(): Promise<string[]> {
  return gunzipSync(await readFile(glossFile))
    .toString('utf8')
    .split('\n')
    .filter((line) => line !== '');
}

export interface TextOptions {
  glyphs: EmojiGlyphs;
  tokenizer: Tokenizer;
  glosses: readonly string[];
  /** Concepts that scenes show and questions name. */
  concepts: readonly number[];
  artists: readonly string[];
  /** Patches along a side of a picture that is written as a grid of words. */
  gridSide: number;
  mixture: readonly { source: TextSource; weight: number }[];
}

function glossSample(random: Random, { glosses, tokenizer }: TextOptions, id: string): EncodedSample {
  const inputIds = [tokenizer.bosTokenId, ...tokenizer.encode(random.pick(glosses)), tokenizer.eosTokenId];
  return { id, inputIds, labels: [ignoreIndex, ...inputIds.slice(1)], prefixLength: 0, images: [] };
}

/** Largest share of a grid's patches of drawings that say a wrong name. */
const gridNoise = 0.5;

/**
 * The scene as a grid of words, one token a patch, where the image will stand: each patch of a drawing says
 * some token of its name, the others say "nothing". What a connector must learn of a patch is then one vector
 * that does not depend on its neighbours. Some patches are wrong, a share that differs from scene to scene:
 * an encoder's are too, and all patches of a drawing must be weighed together. Every other wrong patch of a
 * drawing says a part of the same wrong name, as an encoder's errors agree where a drawing looks like
 * something else.
 */
function sceneInGrid(random: Random, { glyphs: placed }: Scene, { glyphs, tokenizer, gridSide, concepts }: TextOptions): number[] {
  const noise = random.uniform() * gridNoise;
  const nothing = tokenizer.encode('nothing');
  const anyName = () => tokenizer.encode(glyphs.concepts[random.pick(concepts)].name);
  const mistaken = places.map(anyName);
  const cells = places.map((_, cell) => {
    const glyph = placed.find((candidate) => candidate.cell === cell);
    return glyph ? tokenizer.encode(glyphs.concepts[glyph.concept].name) : nothing;
  });
  return Array.from({ length: gridSide * gridSide }, (_, patch) => {
    const down = Math.floor(patch / gridSide) >= gridSide / 2;
    const right = patch % gridSide >= gridSide / 2;
    const cell = (down ? 2 : 0) + (right ? 1 : 0);
    if (cells[cell] === nothing || random.uniform() >= noise) return random.pick(cells[cell]);
    return random.pick(random.uniform() < 0.5 ? mistaken[cell] : anyName());
  });
}

/**
 * What kind of thing something is, said openly; which letter stands for a kind; and the two put together, as
 * category questions do.
 */
function kindSamples(random: Random, { glyphs, tokenizer, concepts }: TextOptions, id: string): EncodedSample[] {
  const { phrase, plural, category } =
    glyphs.concepts[random.pick(concepts.filter((concept) => glyphs.concepts[concept].category !== null))];
  const letter = random.integer(4);
  const choices = letteredChoices(category!, letter, random);
  const be = plural ? 'are' : 'is';
  const conversations = [
    [`What kind of thing ${be} ${phrase}?${shortAnswerPrompt}`, category!],
    [`Which of these says ${category}?${choices}${letterPrompt}`, letters[letter]],
    [`Which kind of thing ${be} ${phrase}?${choices}${letterPrompt}`, letters[letter]],
  ];
  return conversations.map(([question, answer]) => {
    const turns = [
      { from: 'human' as const, value: question },
      { from: 'gpt' as const, value: answer },
    ];
    const { inputIds, labels } = encodeConversation(tokenizer, turns, { imageTokens: 0, sampleId: id });
    return { id, inputIds, labels, prefixLength: 0, images: [] };
  });
}

/**
 * The samples about one scene. They share the tokens up to the first that differs, so that packing reads the
 * scene once.
 */
function sceneSamples(random: Random, seed: number, source: TextSource, options: TextOptions, id: string): EncodedSample[] {
  const { glyphs, tokenizer, concepts, artists } = options;
  const scene = sampleScene(random, glyphs, { concepts, artists });
  const words = sceneInWords(scene, glyphs);
  const names = { all: concepts, popular: [], kinds: ['random', 'adversarial'] as const };
  const asked = (question: string, answer: string): Turn[][] => [
    [
      { from: 'human', value: `${imageToken}\n${question}` },
      { from: 'gpt', value: answer },
    ],
  ];
  const description = describeQuestion(scene, glyphs, 'any', random);
  const conversations =
    source === 'captions'
      ? asked(description.question, description.answer)
      : source === 'places'
        ? asked('Say what is where.', random.shuffle(words.split(/(?<=\.) /)).join(' '))
        : questionsAbout(seed, id, [scene], glyphs, names, true, 'any').map((entry) => entry.conversations);
  const inGrid = source === 'questions-in-grids';
  const grid = inGrid ? sceneInGrid(random, scene, options) : [];
  const all = inGrid ? [...conversations, ...asked(description.question, description.answer)] : conversations;
  const encoded = all.map((conversation) => {
    const turns = inGrid ? conversation : conversation.map((turn) => ({ ...turn, value: turn.value.replace(imageToken, words) }));
    const { inputIds, labels } = encodeConversation(tokenizer, turns, { imageTokens: grid.length, sampleId: id });
    const imageStart = inputIds.indexOf(tokenizer.imageTokenId);
    return { inputIds: inputIds.map((token, i) => (token === tokenizer.imageTokenId ? grid[i - imageStart] : token)), labels };
  });
  const firstAnswer = Math.min(...encoded.map(({ labels }) => labels.findIndex((label) => label !== ignoreIndex)));
  let prefixLength = 0;
  if (encoded.length > 1) {
    const [first] = encoded;
    while (prefixLength < firstAnswer && encoded.every(({ inputIds }) => inputIds[prefixLength] === first.inputIds[prefixLength]))
      prefixLength++;
  }
  return encoded.map(({ inputIds, labels }) => ({ id, inputIds, labels, prefixLength, images: [id] }));
}

function pickSource(random: Random, mixture: TextOptions['mixture']): TextSource {
  let ticket = random.uniform() * mixture.reduce((sum, { weight }) => sum + weight, 0);
  for (const { source, weight } of mixture) {
    if (ticket < weight) return source;
    ticket -= weight;
  }
  return mixture[mixture.length - 1].source;
}

function samplesOf(random: Random, seed: number, source: TextSource, options: TextOptions, id: string): EncodedSample[] {
  if (source === 'glosses') return [glossSample(random, options, id)];
  if (source === 'kinds') return kindSamples(random, options, id);
  return sceneSamples(random, seed, source, options, id);
}

/**
 * Samples of about `tokens` tokens in all for one batch: a pure function of seed and `key`, which names it.
 */
export function textBatch(seed: number, key: string, tokens: number, options: TextOptions): EncodedSample[] {
  const random = createRandom(seed, 'texts', key);
  const samples: EncodedSample[] = [];
  for (let length = 0, item = 0; length < tokens; item++) {
    const source = pickSource(random, options.mixture);
    const id = `${key} ${item}`;
    const group = samplesOf(random, seed, source, options, id);
    const [{ prefixLength }] = group;
    length += prefixLength + group.reduce((sum, { inputIds }) => sum + inputIds.length - prefixLength, 0);
    samples.push(...group);
  }
  return samples;
}
