// What encoders are pretrained on: scenes of drawings, without the artist who is held out.

import type { ReadScenes } from '../../data/emoji/contrastive.ts';
import { loadEmojiConcepts } from '../../data/emoji/glyphs.ts';
import { splitConcepts, trainingArtists } from '../../data/emoji/split.ts';
import { imageProcessorFor } from '../../pretrained/processor.ts';
import type { ContrastiveRecipe } from '../recipe.ts';

/** The scenes, but for what a stage says of them, and the processor that makes their pixels. */
export async function encoderScenes(
  data: Pick<ContrastiveRecipe['data'], 'held_out_artist' | 'drawings'>,
  { image_size: imageSize, patch_size: patchSize }: { image_size: number; patch_size: number },
) {
  const processor = imageProcessorFor(imageSize);
  const emoji = await loadEmojiConcepts();
  const scenes: Omit<ReadScenes, 'augmentation' | 'singlePatchChance'> = {
    concepts: splitConcepts(emoji).seen,
    artists: trainingArtists(emoji, data.held_out_artist),
    counts: data.drawings,
    imageSize,
    patchSize,
    mean: processor.image_mean,
    std: processor.image_std,
  };
  return { processor, scenes };
}
