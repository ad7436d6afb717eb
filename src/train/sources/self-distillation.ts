// Batches of self-distillation: views of scenes drawn afresh.

import { loadEmojiGlyphs } from '../../data/emoji/glyphs.ts';
import { type ViewOptions, viewBatch } from '../../data/emoji/views.ts';
import { type BatchSource, plainSource } from '../batch.ts';

export interface SelfDistillationSource extends ViewOptions {
  task: 'self-distillation';
  seed: number;
  /** Keeps the scenes of stages apart. */
  stage: string;
  /** Scenes in a batch. */
  batchSize: number;
}

export async function selfDistillationSource({ seed, stage, batchSize, ...options }: SelfDistillationSource): Promise<BatchSource> {
  const glyphs = await loadEmojiGlyphs();
  const { imageSize, localSize, localCrops, patchSize } = options;
  // what the student reads: patches and class tokens
  const rows = (side: number) => Math.floor(side / patchSize) ** 2 + 1;
  const tokens = batchSize * (2 * rows(imageSize) + localCrops * rows(localSize));
  return plainSource(async (index) => ({ inputs: viewBatch(seed, `${stage} ${index}`, batchSize, glyphs, options), weight: 1, tokens }));
}
