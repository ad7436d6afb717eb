// Batches of instance discrimination: scenes drawn afresh, with the number of each drawing.

import type { ReadScenes } from '../../data/emoji/contrastive.ts';
import { loadEmojiGlyphs } from '../../data/emoji/glyphs.ts';
import { instanceBatch } from '../../data/emoji/instances.ts';
import { type BatchSource, plainSource } from '../batch.ts';

export interface InstanceDiscriminationSource extends ReadScenes {
  task: 'instance-discrimination';
  seed: number;
  /** Keeps the scenes of stages apart. */
  stage: string;
  /** Scenes in a batch. */
  batchSize: number;
}

export async function instanceDiscriminationSource(description: InstanceDiscriminationSource): Promise<BatchSource> {
  const { seed, stage, batchSize, ...options } = description;
  const glyphs = await loadEmojiGlyphs();
  // what the encoder reads: its patches and the class token
  const tokens = batchSize * (Math.floor(options.imageSize / options.patchSize) ** 2 + 1);
  return plainSource(async (index) => ({
    inputs: instanceBatch(seed, `${stage} ${index}`, batchSize, glyphs, options),
    weight: 1,
    tokens,
  }));
}
