// Questions about one drawing among several, with the box where it is: for maps that should point at it.

import sharp from 'sharp';
import { UserError } from '../../errors.ts';
import { createRandom } from '../../random.ts';
import type { EvaluationSplit } from './build.ts';
import { loadEmojiGlyphs } from './glyphs.ts';
import { categorised, categoryQuestion, colored, colorQuestion, type EmojiQuestion, existenceQuestion, nameQuestion } from './questions.ts';
import { canvasSize, type PlacedGlyph, renderScene, sampleScene } from './scene.ts';
import { defaultHeldOutArtist, splitConcepts, trainingArtists } from './split.ts';

/** In shares of the picture's side, from the top left. */
export interface DrawingBox {
  left: number;
  top: number;
  right: number;
  bottom: number;
}

export interface PointingQuestion {
  id: string;
  /** Number of the scene, which several questions share. */
  scene: number;
  /** PNG. */
  picture: Uint8Array;
  task: EmojiQuestion['task'];
  /** Without `<image>`. */
  question: string;
  answer: string;
  /** Of the drawing that is asked about, and of all drawings. */
  box: DrawingBox;
  drawings: number;
}

const boxOf = ({ x, y, size }: PlacedGlyph, canvas: number): DrawingBox => ({
  left: (x - size / 2) / canvas,
  top: (y - size / 2) / canvas,
  right: (x + size / 2) / canvas,
  bottom: (y + size / 2) / canvas,
});

/**
 * `count` questions about scenes of two to four drawings of a held-out split, in turn about its name, whether
 * it is there (it is; its place is not named), its color and its category, each where it can be asked.
 */
export async function pointingQuestions(
  count: number,
  seed: number,
  split: EvaluationSplit = 'unseen-scenes',
): Promise<PointingQuestion[]> {
  if (split === 'unseen-concepts') throw new UserError('--split unseen-concepts: its drawings have no names that a model could know');
  const glyphs = await loadEmojiGlyphs();
  const { seen } = splitConcepts(glyphs);
  const artists = split === 'unseen-artist' ? [defaultHeldOutArtist] : trainingArtists(glyphs, defaultHeldOutArtist);
  const names = { all: seen, popular: [] };
  const questions: PointingQuestion[] = [];
  for (let index = 0; questions.length < count; index++) {
    const random = createRandom(seed, 'pointing', split, index);
    const scene = sampleScene(random, glyphs, { concepts: seen, artists, counts: [2, 3, 4] });
    const { data, width, height, channels } = renderScene(scene, glyphs);
    const picture = await sharp(data, { raw: { width, height, channels } }).png().toBuffer();
    const asked: [PlacedGlyph, EmojiQuestion][] = [];
    const ask = (from: readonly PlacedGlyph[], question: (placed: PlacedGlyph) => EmojiQuestion) => {
      if (from.length === 0) return;
      const placed = random.pick(from);
      asked.push([placed, question(placed)]);
    };
    ask(scene.glyphs, (placed) => nameQuestion(placed, glyphs, 'canonical', random));
    ask(scene.glyphs, (placed) => existenceQuestion({ ...scene, glyphs: [placed] }, glyphs, true, 'random', names, 'canonical', random));
    ask(colored(scene, glyphs), (placed) => colorQuestion(placed, glyphs, 'canonical', random));
    ask(categorised(scene, glyphs), (placed) => categoryQuestion(placed, glyphs, index % 4, 'canonical', random));
    for (const [placed, { task, question, answer }] of asked.slice(0, count - questions.length))
      questions.push({
        id: `${split}-${index}-${task}`,
        scene: index,
        picture,
        task,
        question,
        answer,
        box: boxOf(placed, canvasSize),
        drawings: scene.glyphs.length,
      });
  }
  return questions;
}
