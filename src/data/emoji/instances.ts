// Batches for instance discrimination: scenes drawn afresh at every step, with the number of each drawing
// among all concepts by all artists. The numbers say which drawings are the same, and not what they show.

import { float32, type Value } from '../../engine/engine.ts';
import { createRandom } from '../../random.ts';
import { augmentedScenes, pixelInputs, type ReadScenes, readerOf, regionInputs } from './contrastive.ts';
import type { EmojiGlyphs } from './glyphs.ts';
import { renderScene } from './scene.ts';

/** How many drawings there are to tell apart. */
export const instanceCount = ({ concepts, artists }: Pick<ReadScenes, 'concepts' | 'artists'>): number => concepts.length * artists.length;

/**
 * The inputs of `instanceLoss` (models/instance-discrimination.ts) for one batch: a pure function of seed and
 * `key`, which names it.
 */
export function instanceBatch(
  seed: number,
  key: string,
  batchSize: number,
  glyphs: EmojiGlyphs,
  options: ReadScenes,
): Record<string, Value> {
  const { concepts, artists, imageSize, patchSize, mean, std } = options;
  const scenes = augmentedScenes(seed, ['instances', key], batchSize, glyphs, options);
  const numbers = new Map(concepts.map((concept, i) => [concept, i * artists.length]));
  const regions = regionInputs(
    scenes,
    ({ concept, artist }) => numbers.get(concept)! + artists.indexOf(artist),
    imageSize,
    patchSize,
    readerOf(createRandom(seed, 'reading', key), options),
  );
  return {
    pixel_values: pixelInputs(
      scenes.map((scene) => renderScene(scene, glyphs)),
      imageSize,
      mean,
      std,
    ),
    ...regions,
    region_scale: float32([1 / regions.region_rows.data.length], []),
  };
}
