// Writes the emoji scenes as LLaVA JSON and an image folder: training captions (stage 1), training questions
// (stage 2) and three held-out evaluation files. The same options give the same bytes.

import { createHash, randomUUID } from 'node:crypto';
import { existsSync } from 'node:fs';
import { readFile, rename, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import sharp from 'sharp';
import { makeFolder } from '../../disk.ts';
import { UserError } from '../../errors.ts';
import { createRandom, type Random } from '../../random.ts';
import type { Turn } from '../../text/chat.ts';
import { type EmojiGlyphs, loadEmojiGlyphs } from './glyphs.ts';
import {
  categorised,
  categoryQuestion,
  colored,
  colorOf,
  colorQuestion,
  countQuestion,
  describeQuestion,
  type EmojiQuestion,
  existenceQuestion,
  kindQuestion,
  type NegativeKind,
  nameQuestion,
  type Phrasing,
} from './questions.ts';
import { type Augmentation, augmentScene, canvasSize, type PlacedGlyph, renderScene, type Scene, sampleScene } from './scene.ts';
import { defaultHeldOutArtist, splitConcepts, trainingArtists } from './split.ts';

export const evaluationSplits = ['unseen-scenes', 'unseen-artist', 'unseen-concepts'] as const;
export type EvaluationSplit = (typeof evaluationSplits)[number];

export interface EmojiDatasetOptions {
  seed: number;
  /** Folder to write into; made if need be. */
  out: string;
  /**
   * Default 4,000. With 0, only the evaluation splits are made; their popular wrong names are those of the
   * default's scenes.
   */
  trainScenes?: number;
  /** Evaluation splits to make; all unless given. */
  splits?: readonly EvaluationSplit[];
  /** Scenes in each evaluation split; each gives up to six questions. */
  evaluationScenes?: number;
  /** Side of a scene in pixels. */
  size?: number;
  heldOutArtist?: string;
  /** How the drawings of training scenes are varied; not at all if not given. Evaluation scenes never are. */
  augmentation?: Augmentation;
}

export interface EmojiDataset {
  /** Root of the paths in the JSON files' `image` fields. */
  imageFolder: string;
  /** Paths of the JSON files; those of splits that were not asked for are not there. */
  captions: string;
  questions: string;
  evaluation: Record<EvaluationSplit, string>;
}

/** One entry of a LLaVA JSON file, with our extra fields. */
export interface Entry {
  id: string;
  image: string;
  task: string;
  kind?: NegativeKind;
  conversations: Turn[];
}

const defaultTrainScenes = 4000;

/** Side in pixels. */
const LARGEST_SCENE = 4096;

/**
 * Builds the data set; 4,000 training scenes take about ten seconds. UserError for scenes that are too large.
 */
export async function buildEmojiDataset(options: EmojiDatasetOptions): Promise<EmojiDataset> {
  const {
    seed,
    out,
    trainScenes = defaultTrainScenes,
    splits = evaluationSplits,
    evaluationScenes = 200,
    size = canvasSize,
    heldOutArtist = defaultHeldOutArtist,
  } = options;
  if (size > LARGEST_SCENE) throw new UserError(`scenes of ${size} pixels are too large: the largest have ${LARGEST_SCENE}`);
  const glyphs = await loadEmojiGlyphs();
  const { seen, unseen } = splitConcepts(glyphs);
  const trainArtists = trainingArtists(glyphs, heldOutArtist);
  const { imageFolder, captions: captionsFile, questions: questionsFile, evaluation } = emojiDataset(out);

  const sampleTraining = (length: number) => sampleScenes(seed, 'train', length, { glyphs, concepts: seen, artists: trainArtists, size });
  const plain = sampleTraining(trainScenes);
  const { augmentation } = options;
  const train = augmentation ? plain.map((scene, i) => augmentScene(createRandom(seed, 'augmentation', i), scene, augmentation)) : plain;
  await writeImages(imageFolder, 'train', train, glyphs);
  const captions = train.map((scene, index) => {
    const random = createRandom(seed, 'captions', index);
    return entry('train', index, [describeQuestion(scene, glyphs, 'any', random)], 'describe');
  });
  await writeEntries(captionsFile, captions);
  // Wrong names that are drawn as the right ones are keep the wording of a question from giving the answer
  // away: no popular ones here.
  const trainNames = { all: seen, popular: [], kinds: ['random', 'adversarial'] as const };
  await writeEntries(questionsFile, questionsAbout(seed, 'train', train, glyphs, trainNames, true, 'any'));

  const popular = mostFrequent(trainScenes > 0 ? plain : sampleTraining(defaultTrainScenes), 30);
  const sources = {
    'unseen-scenes': { concepts: seen, artists: trainArtists },
    'unseen-artist': { concepts: seen, artists: [heldOutArtist] },
    'unseen-concepts': { concepts: unseen, artists: trainArtists },
  };
  for (const split of splits) {
    const { concepts, artists } = sources[split];
    const scenes = sampleScenes(seed, split, evaluationScenes, { glyphs, concepts, artists, size });
    await writeImages(imageFolder, split, scenes, glyphs);
    // Where the names were never seen, none is popular, and none can be the answer.
    const known = split !== 'unseen-concepts';
    const names = known
      ? { all: concepts, popular, kinds: ['random', 'popular', 'adversarial'] as const }
      : { all: concepts, popular: [], kinds: ['random', 'adversarial'] as const };
    await writeEntries(evaluation[split], questionsAbout(seed, split, scenes, glyphs, names, known, 'canonical'));
  }
  return emojiDataset(out);
}

/** Where a data set in the folder `out` has its files. */
export function emojiDataset(out: string): EmojiDataset {
  const file = (name: string) => join(out, `${name}.json`);
  return {
    imageFolder: join(out, 'images'),
    captions: file('train_captions'),
    questions: file('train_questions'),
    evaluation: {
      'unseen-scenes': file('eval_unseen-scenes'),
      'unseen-artist': file('eval_unseen-artist'),
      'unseen-concepts': file('eval_unseen-concepts'),
    },
  };
}

/** `length` values that take each of `values` equally often (but for a random remainder), in random order. */
function balanced<T>(random: Random, values: readonly T[], length: number): T[] {
  const order = random.shuffle(values);
  return random.shuffle(Array.from({ length }, (_, index) => order[index % order.length]));
}

function sampleScenes(
  seed: number,
  split: string,
  length: number,
  from: { glyphs: EmojiGlyphs; concepts: readonly number[]; artists: readonly string[]; size: number },
): Scene[] {
  const { glyphs, concepts, artists, size } = from;
  const counts = balanced(createRandom(seed, split, 'counts'), [1, 2, 3, 4], length);
  return counts.map((count, index) =>
    sampleScene(createRandom(seed, split, 'scene', index), glyphs, { concepts, artists, counts: [count], size }),
  );
}

/** The concepts that the scenes show most often. */
function mostFrequent(scenes: readonly Scene[], length: number): number[] {
  const counts = new Map<number, number>();
  for (const scene of scenes) for (const { concept } of scene.glyphs) counts.set(concept, (counts.get(concept) ?? 0) + 1);
  return [...counts]
    .sort((a, b) => b[1] - a[1] || a[0] - b[0])
    .slice(0, length)
    .map(([concept]) => concept);
}

/** Picks the drawing whose answer was asked for least so far, so that no answer is a good guess. */
function leastAsked(
  random: Random,
  candidates: readonly PlacedGlyph[],
  answerOf: (placed: PlacedGlyph) => string,
  asked: Map<string, number>,
) {
  const times = (placed: PlacedGlyph) => asked.get(answerOf(placed)) ?? 0;
  const fewest = Math.min(...candidates.map(times));
  const chosen = random.pick(candidates.filter((placed) => times(placed) === fewest));
  asked.set(answerOf(chosen), fewest + 1);
  return chosen;
}

/** Share of training scenes that are also talked about in several turns. */
const talkShare = 0.3;

/**
 * Training or evaluation questions about scenes: existence twice, count, names, category and color where
 * they can be asked. Training adds the kind in a word, and for some scenes a conversation of three of the
 * questions.
 */
export function questionsAbout(
  seed: number,
  split: string,
  scenes: readonly Scene[],
  glyphs: EmojiGlyphs,
  names: { all: readonly number[]; popular: readonly number[]; kinds: readonly NegativeKind[] },
  askNames: boolean,
  phrasing: Phrasing,
): Entry[] {
  const letters = balanced(createRandom(seed, split, 'letters'), [0, 1, 2, 3], scenes.length);
  const kinds = balanced(createRandom(seed, split, 'kinds'), names.kinds, scenes.length);
  const askedCategories = new Map<string, number>();
  const askedColors = new Map<string, number>();
  return scenes.flatMap((scene, index) => {
    const random = createRandom(seed, split, 'questions', index);
    const questions: EmojiQuestion[] = [
      existenceQuestion(scene, glyphs, true, kinds[index], names, phrasing, random),
      existenceQuestion(scene, glyphs, false, kinds[index], names, phrasing, random),
      countQuestion(scene, phrasing, random),
    ];
    if (askNames) {
      // Two names a scene to learn from, one to be tested on: tested names should be independent pictures.
      const asked = random.shuffle(scene.glyphs).slice(0, phrasing === 'any' ? 2 : 1);
      const alone = scene.glyphs.length === 1;
      questions.push(...asked.map((placed) => nameQuestion(placed, glyphs, phrasing, random, alone)));
    }
    const withCategory = categorised(scene, glyphs);
    if (withCategory.length > 0) {
      const placed = leastAsked(random, withCategory, ({ concept }) => glyphs.concepts[concept].category!, askedCategories);
      questions.push(categoryQuestion(placed, glyphs, letters[index], phrasing, random));
      if (phrasing === 'any') questions.push(kindQuestion(random.pick(withCategory), glyphs, phrasing, random));
    }
    const withColor = colored(scene, glyphs);
    if (withColor.length > 0) {
      const placed = leastAsked(random, withColor, (candidate) => colorOf(candidate, glyphs)!, askedColors);
      questions.push(colorQuestion(placed, glyphs, phrasing, random));
    }
    const seenTasks = new Map<string, number>();
    const entries = questions.map((question) => {
      const nth = seenTasks.get(question.task) ?? 0;
      seenTasks.set(question.task, nth + 1);
      return entry(split, index, [question], `${question.task}-${nth + 1}`);
    });
    if (phrasing === 'any' && random.uniform() < talkShare)
      entries.push(entry(split, index, random.shuffle(questions).slice(0, 3), 'conversation'));
    return entries;
  });
}

const imageName = (split: string, index: number) => `${split}/${String(index).padStart(6, '0')}.png`;

function entry(split: string, index: number, questions: readonly EmojiQuestion[], suffix: string): Entry {
  const [{ task, kind }] = questions;
  return {
    id: `${split}-${String(index).padStart(6, '0')}-${suffix}`,
    image: imageName(split, index),
    ...(questions.length === 1 ? { task, ...(kind ? { kind } : {}) } : { task: 'conversation' }),
    conversations: questions.flatMap(({ question, answer }, turn): Turn[] => [
      { from: 'human', value: turn === 0 ? `<image>\n${question}` : question },
      { from: 'gpt', value: answer },
    ]),
  };
}

async function writeEntries(path: string, entries: readonly Entry[]): Promise<void> {
  const text = `[\n${entries.map((one) => JSON.stringify(one)).join(',\n')}\n]\n`;
  await writeWhole(path, Buffer.from(text));
}

/** Writes a file whole or not at all; the same one is left alone: another run may be reading it. */
async function writeWhole(path: string, bytes: Buffer): Promise<void> {
  if (existsSync(path) && (await readFile(path)).equals(bytes)) return;
  const fresh = `${path}.${randomUUID()}.tmp`;
  await writeFile(fresh, bytes);
  await rename(fresh, path);
}

/**
 * The same in a folder of its own below `folder`, found again by whoever asks for the same scenes: another
 * command that needs others at the same time does not draw over them.
 */
export function cachedEmojiDataset(folder: string, options: Omit<EmojiDatasetOptions, 'out'>): Promise<EmojiDataset> {
  return buildEmojiDataset({ ...options, out: join(folder, scenesDigest(options)) });
}

/** A name of what scenes show: 16 hexadecimal digits. */
export function scenesDigest({ out: _, splits: __, ...shown }: Partial<EmojiDatasetOptions>): string {
  // neither the folder nor which splits are made changes the scenes of a split
  const sorted = Object.entries(shown).sort(([a], [b]) => (a < b ? -1 : 1));
  return createHash('sha256').update(JSON.stringify(sorted)).digest('hex').slice(0, 16);
}

async function writeImages(folder: string, split: string, scenes: readonly Scene[], glyphs: EmojiGlyphs): Promise<void> {
  makeFolder(join(folder, split));
  const atOnce = 32;
  for (let start = 0; start < scenes.length; start += atOnce) {
    await Promise.all(
      scenes.slice(start, start + atOnce).map(async (scene, offset) => {
        const { data, width, height, channels } = renderScene(scene, glyphs);
        const png = await sharp(data, { raw: { width, height, channels } }).png({ compressionLevel: 3 }).toBuffer();
        await writeWhole(join(folder, imageName(split, start + offset)), png);
      }),
    );
  }
}
