// Batches of contrastive pretraining: scenes drawn afresh, with the names of their drawings and a caption.

import { readTokenizerFiles } from '../../checkpoint/tokenizer-files.ts';
import { type ContrastiveOptions, contrastiveBatch } from '../../data/emoji/contrastive.ts';
import { loadEmojiGlyphs } from '../../data/emoji/glyphs.ts';
import { createTokenizer } from '../../text/tokenizer.ts';
import { type BatchSource, plainSource } from '../batch.ts';

export interface ContrastiveSource extends ContrastiveOptions {
  task: 'contrastive';
  seed: number;
  /** Keeps the scenes of stages apart. */
  stage: string;
  /** Folder of the tokenizer. */
  tokenizer: string;
  /** Scenes in a batch. */
  batchSize: number;
}

/** UserError where the tokenizer cannot be read. */
export async function contrastiveSource({ seed, stage, tokenizer, batchSize, ...options }: ContrastiveSource): Promise<BatchSource> {
  const files = await readTokenizerFiles(tokenizer);
  const words = createTokenizer(files.tokenizerJson, files.tokenizerConfig);
  const glyphs = await loadEmojiGlyphs();
  // what the image encoder reads: its patches and the class token
  const patches = (options.imageSize / options.patchSize) ** 2 + 1;
  return plainSource(async (index) => ({
    inputs: contrastiveBatch(seed, `${stage} ${index}`, batchSize, glyphs, words, options),
    weight: 1,
    tokens: batchSize * patches,
  }));
}
