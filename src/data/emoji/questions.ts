// Questions and captions about a scene, with the one right answer. Forms follow LLaVA's: short answers end
// with its response-format prompt (Liu et al., "Improved Baselines with Visual Instruction Tuning", table 7),
// existence follows POPE (Li et al., 2023: half of the answers are yes; wrong names are random, popular or
// adversarial).

import type { Random } from '../../random.ts';
import { shortAnswerPrompt } from '../../text/short-answer.ts';
import type { Concept, EmojiGlyphs } from './glyphs.ts';
import { type PlacedGlyph, places, type Scene } from './scene.ts';

/** `kind` is asked in training only: what `category` asks, without choices. */
export const tasks = ['existence', 'count', 'name', 'category', 'kind', 'colour', 'describe'] as const;
export type EmojiTask = (typeof tasks)[number];

export type NegativeKind = 'random' | 'popular' | 'adversarial';

export interface EmojiQuestion {
  task: EmojiTask;
  /** Without the `<image>` token. */
  question: string;
  answer: string;
  /** Existence only: where the name in the question comes from. */
  kind?: NegativeKind;
}

/** Kinds that category questions choose among. */
export const categories = ['animal', 'clothing', 'food', 'game', 'paper', 'place', 'plant', 'sky', 'tool', 'vehicle'] as const;

export const letterPrompt = "\nAnswer with the option's letter from the given choices directly.";
export const letters = ['A', 'B', 'C', 'D'] as const;

/** How the questions of a task may be put; the first phrasing is the one that evaluation uses. */
const phrasings = {
  existence: [
    (concept: Concept) => `${concept.plural ? 'Are' : 'Is'} there ${concept.phrase} in the picture?`,
    (concept: Concept) => `Does the picture show ${concept.phrase}?`,
    (concept: Concept) => `Can you see ${concept.phrase} in the picture?`,
    (concept: Concept) => `Do you see ${concept.phrase}?`,
    (concept: Concept) => `${concept.plural ? 'Are' : 'Is'} there ${concept.phrase}?`,
  ],
  count: [
    'How many things are in the picture?',
    'How many things do you see?',
    'How many things does the picture show?',
    'Count the things.',
    'How many things are there?',
    'How many are there?',
  ],
  name: [
    (place: string) => `What is at the ${place}?`,
    (place: string) => `What do you see at the ${place}?`,
    (place: string) => `What is shown at the ${place} of the picture?`,
    (place: string) => `Name the thing at the ${place}.`,
    (place: string) => `What is in the ${place} corner?`,
  ],
  /** Where there is but one drawing, its place may go without saying. */
  nameOfOne: ['What is this?', 'What do you see?', 'What is shown here?', 'Name the thing in the picture.'],
  category: [
    (place: string) => `Which kind of thing is at the ${place}?`,
    (place: string) => `What kind of thing is at the ${place}?`,
    (place: string) => `Which of these is at the ${place}?`,
  ],
  kind: [
    (place: string) => `What kind of thing is at the ${place}?`,
    (place: string) => `Which kind of thing is at the ${place}?`,
    (place: string) => `What kind of thing do you see at the ${place}?`,
  ],
  colour: [
    (place: string) => `What colour is the thing at the ${place}?`,
    (place: string) => `Which colour does the thing at the ${place} have?`,
    (place: string) => `What is the main colour of the thing at the ${place}?`,
  ],
  describe: [
    'Describe the picture.',
    'What is in the picture?',
    'Describe the image concisely.',
    'Write a short caption for the picture.',
    'What does the picture show?',
  ],
} as const;

/** How a question is put: the canonical phrasing (evaluation), or any (training). */
export type Phrasing = 'canonical' | 'any';

function choosePhrasing<T>(list: readonly T[], phrasing: Phrasing, random: Random): T {
  return phrasing === 'canonical' ? list[0] : random.pick(list);
}

/**
 * Share of training questions that ask without LLaVA's line about the form of the answer, as people do who
 * chat.
 */
const plainShare = 0.35;

/** The line about the form of the answer: always there in evaluation, mostly in training. */
function formPrompt(prompt: string, phrasing: Phrasing, random: Random): string {
  return phrasing === 'any' && random.uniform() < plainShare ? '' : prompt;
}

function joinAnd(parts: readonly string[]): string {
  return parts.length < 2 ? parts.join('') : `${parts.slice(0, -1).join(', ')} and ${parts.at(-1)}`;
}

/** "a red apple at the top left and a dog at the bottom right." */
export function captionOf(scene: Scene, glyphs: EmojiGlyphs): string {
  return `${joinAnd(scene.glyphs.map(({ concept, cell }) => `${glyphs.concepts[concept].phrase} at the ${places[cell]}`))}.`;
}

/**
 * The scene written out in raster order: "top left: red apple. top right: nothing. ...". Teaches a language
 * model to answer from a context.
 */
export function sceneInWords(scene: Scene, glyphs: EmojiGlyphs): string {
  return places
    .map((place, cell) => {
      const glyph = scene.glyphs.find((candidate) => candidate.cell === cell);
      return `${place}: ${glyph ? glyphs.concepts[glyph.concept].name : 'nothing'}.`;
    })
    .join(' ');
}

/** The drawing's dominant color, or null where none covers enough of it. */
export function colorOf(placed: PlacedGlyph, glyphs: EmojiGlyphs): string | null {
  return glyphs.concepts[placed.concept].colour[placed.artist];
}

/** Glyphs of the scene about which a category question can be asked. */
export function categorised(scene: Scene, glyphs: EmojiGlyphs): PlacedGlyph[] {
  return scene.glyphs.filter((placed) => glyphs.concepts[placed.concept].category !== null);
}

/** Glyphs of the scene about which a color question can be asked. */
export function colored(scene: Scene, glyphs: EmojiGlyphs): PlacedGlyph[] {
  return scene.glyphs.filter((placed) => colorOf(placed, glyphs) !== null);
}

export function describeQuestion(scene: Scene, glyphs: EmojiGlyphs, phrasing: Phrasing, random: Random): EmojiQuestion {
  return { task: 'describe', question: choosePhrasing(phrasings.describe, phrasing, random), answer: captionOf(scene, glyphs) };
}

export function countQuestion(scene: Scene, phrasing: Phrasing, random: Random): EmojiQuestion {
  const question = choosePhrasing(phrasings.count, phrasing, random) + formPrompt(shortAnswerPrompt, phrasing, random);
  return { task: 'count', question, answer: String(scene.glyphs.length) };
}

/**
 * What is at a place; in training, about a `placed` that is `alone` in its scene, also without naming the
 * place.
 */
export function nameQuestion(placed: PlacedGlyph, glyphs: EmojiGlyphs, phrasing: Phrasing, random: Random, alone = false): EmojiQuestion {
  const withoutPlace = alone && phrasing === 'any' && random.uniform() < 0.5;
  const question = withoutPlace ? random.pick(phrasings.nameOfOne) : choosePhrasing(phrasings.name, phrasing, random)(places[placed.cell]);
  return {
    task: 'name',
    question: question + formPrompt(shortAnswerPrompt, phrasing, random),
    answer: glyphs.concepts[placed.concept].name,
  };
}

/**
 * The kind of what is at a place, in a word. Throws for a concept without a category: ask `categorised`
 * first.
 */
export function kindQuestion(placed: PlacedGlyph, glyphs: EmojiGlyphs, phrasing: Phrasing, random: Random): EmojiQuestion {
  const question = choosePhrasing(phrasings.kind, phrasing, random)(places[placed.cell]) + formPrompt(shortAnswerPrompt, phrasing, random);
  return { task: 'kind', question, answer: categoryOf(placed, glyphs) };
}

function categoryOf(placed: PlacedGlyph, glyphs: EmojiGlyphs): string {
  const { category, name } = glyphs.concepts[placed.concept];
  if (category === null) throw new Error(`${name} has no category`);
  return category;
}

/** Throws for a drawing without one clear color: ask `colored` first. */
export function colorQuestion(placed: PlacedGlyph, glyphs: EmojiGlyphs, phrasing: Phrasing, random: Random): EmojiQuestion {
  const answer = colorOf(placed, glyphs);
  if (answer === null) throw new Error(`${glyphs.concepts[placed.concept].name} by ${placed.artist} has no one color`);
  const question =
    choosePhrasing(phrasings.colour, phrasing, random)(places[placed.cell]) + formPrompt(shortAnswerPrompt, phrasing, random);
  return { task: 'colour', question, answer };
}

/** Four kinds in random order as lettered lines, the right one under `letter` (0 to 3). */
export function letteredChoices(right: string, letter: number, random: Random): string {
  const options: string[] = random.shuffle(categories.filter((category) => category !== right)).slice(0, 3);
  options.splice(letter, 0, right);
  return options.map((option, i) => `\n${letters[i]}. ${option}`).join('');
}

/**
 * Four kinds in random order, the right one under `letter` (0 to 3). Throws for a concept without a category:
 * ask `categorised` first.
 */
export function categoryQuestion(
  placed: PlacedGlyph,
  glyphs: EmojiGlyphs,
  letter: number,
  phrasing: Phrasing,
  random: Random,
): EmojiQuestion {
  const choices = letteredChoices(categoryOf(placed, glyphs), letter, random);
  const asked = choosePhrasing(phrasings.category, phrasing, random)(places[placed.cell]);
  const question = asked + choices + formPrompt(letterPrompt, phrasing, random);
  return { task: 'category', question, answer: letters[letter] };
}

/**
 * An existence question, answered by `yes` or `no` as asked for. A wrong name comes from `names` (concepts
 * that may be asked for): any (random), one of the `popular`, or (adversarial) one of the same finer kind as
 * something in the scene, failing that of the same kind. It is never a near-duplicate of anything in the
 * scene.
 */
export function existenceQuestion(
  scene: Scene,
  glyphs: EmojiGlyphs,
  present: boolean,
  kind: NegativeKind,
  names: { all: readonly number[]; popular: readonly number[] },
  phrasing: Phrasing,
  random: Random,
): EmojiQuestion {
  const concept = present ? random.pick(scene.glyphs).concept : absentConcept(scene, glyphs, kind, names, random);
  const asked = choosePhrasing(phrasings.existence, phrasing, random)(glyphs.concepts[concept]);
  const question = asked + formPrompt(shortAnswerPrompt, phrasing, random);
  return { task: 'existence', question, answer: present ? 'yes' : 'no', kind };
}

function absentConcept(
  scene: Scene,
  glyphs: EmojiGlyphs,
  kind: NegativeKind,
  names: { all: readonly number[]; popular: readonly number[] },
  random: Random,
): number {
  const { concepts } = glyphs;
  const families = new Set(scene.glyphs.map((placed) => concepts[placed.concept].family));
  const absent = (list: readonly number[]) => list.filter((index) => !families.has(concepts[index].family));
  if (kind === 'adversarial') {
    for (const placed of random.shuffle(scene.glyphs)) {
      const { subgroup, category } = concepts[placed.concept];
      const siblings = absent(names.all.filter((index) => concepts[index].subgroup === subgroup));
      if (siblings.length > 0) return random.pick(siblings);
      const cousins = absent(names.all.filter((index) => category !== null && concepts[index].category === category));
      if (cousins.length > 0) return random.pick(cousins);
    }
  }
  if (kind === 'popular') {
    const popular = absent(names.popular);
    if (popular.length > 0) return random.pick(popular);
  }
  const any = absent(names.all);
  if (any.length === 0) throw new Error('every known concept is in the scene');
  return random.pick(any);
}
