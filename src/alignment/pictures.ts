// What alignment is measured on: pictures with captions. Emoji scenes that nobody was trained on, drawn
// when they are needed, or pictures of a LLaVA JSON.

import { type EmojiGlyphs, loadEmojiGlyphs } from '../data/emoji/glyphs.ts';
import { describeQuestion } from '../data/emoji/questions.ts';
import { renderScene, type Scene, sampleScene } from '../data/emoji/scene.ts';
import { defaultHeldOutArtist, splitConcepts, trainingArtists } from '../data/emoji/split.ts';
import { readLlavaJson } from '../data/llava-json.ts';
import { UserError } from '../errors.ts';
import { type ImageProcessorConfig, processImage, readPixelValues } from '../images/processor.ts';
import { createRandom } from '../random.ts';
import type { Turn } from '../text/chat.ts';

export interface Caption {
  /** The sample as it is trained on. */
  turns: Turn[];
  /** The first answer alone. */
  text: string;
}

export interface CaptionedPicture {
  id: string;
  /** float32 [3, size, size]. UserError for a file that is no picture. */
  pixels(processor: ImageProcessorConfig): Promise<Float32Array>;
  /** One at least. */
  captions: Caption[];
  /** Where its drawings are, of a drawn one. */
  scene?: Scene;
}

/** Times that a scene is drawn anew, should its caption be that of another. */
const TRIES = 100;

/**
 * Scenes of the concepts and artists of training that no data set has, one to four drawings each, no two
 * with the same caption.
 */
export async function emojiPictures(count: number, seed: number): Promise<CaptionedPicture[]> {
  const glyphs = await loadEmojiGlyphs();
  const from = { concepts: splitConcepts(glyphs).seen, artists: trainingArtists(glyphs, defaultHeldOutArtist) };
  const known = new Set<string>();
  return Array.from({ length: count }, (_, i) => {
    for (let tries = 0; tries < TRIES; tries++) {
      const random = createRandom(seed, 'alignment', i, tries);
      const scene = sampleScene(random, glyphs, { ...from, counts: [1 + (i % 4)] });
      const { question, answer } = describeQuestion(scene, glyphs, 'canonical', random);
      if (known.has(answer)) continue;
      known.add(answer);
      const turns: Turn[] = [
        { from: 'human', value: `<image>\n${question}` },
        { from: 'gpt', value: answer },
      ];
      return { id: `scene ${i}`, scene, pixels: async (processor) => drawn(scene, glyphs, processor), captions: [{ turns, text: answer }] };
    }
    throw new UserError(`there are no ${count} scenes with captions of their own; ask for fewer`);
  });
}

/** Pixel values of a scene. */
export const drawn = (scene: Scene, glyphs: EmojiGlyphs, processor: ImageProcessorConfig) =>
  processImage(renderScene(scene, glyphs), processor);

/**
 * `count` pictures of a file, chosen by `seed`, each with the samples that show it and no other. UserError
 * where there are fewer.
 */
export async function llavaPictures(path: string, imageFolder: string, count: number, seed: number): Promise<CaptionedPicture[]> {
  const byPicture = new Map<string, Caption[]>();
  for (const { images, conversations: turns } of await readLlavaJson(path, imageFolder)) {
    const text = turns.find(({ from }) => from === 'gpt')?.value.trim();
    if (images.length !== 1 || !text) continue;
    byPicture.set(images[0], [...(byPicture.get(images[0]) ?? []), { turns, text }]);
  }
  if (byPicture.size < count)
    throw new UserError(`${path}: it has ${byPicture.size} pictures with captions, and ${count} are to be measured; give --samples`);
  const chosen = createRandom(seed, 'alignment pictures')
    .shuffle([...byPicture])
    .slice(0, count);
  return chosen.map(([file, captions]) => ({ id: file, pixels: (processor) => readPixelValues([file], processor), captions }));
}
