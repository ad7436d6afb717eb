// Batches of language-model pretraining: text made afresh, in packed rows.

import { readTokenizerFiles } from '../../checkpoint/tokenizer-files.ts';
import { loadEmojiGlyphs } from '../../data/emoji/glyphs.ts';
import { loadGlosses, type TextOptions, textBatch } from '../../data/emoji/texts.ts';
import { packSamples } from '../../data/packing.ts';
import { UserError } from '../../errors.ts';
import { createTokenizer } from '../../text/tokenizer.ts';
import { type BatchSource, packedBatch, plainSource } from '../batch.ts';

export interface LanguageModelSource extends Pick<TextOptions, 'concepts' | 'artists' | 'gridSide' | 'mixture'> {
  task: 'language-model';
  seed: number;
  /** Keeps the texts of stages apart. */
  stage: string;
  /** Folder of the tokenizer. */
  tokenizer: string;
  /** Rows in a batch. */
  batchSize: number;
  /** Tokens in a row. */
  maxLength: number;
  /** Positions that the model has. */
  positions: number;
}

/** UserError where the tokenizer cannot be read. */
export async function languageModelSource(description: LanguageModelSource): Promise<BatchSource> {
  const { seed, stage, batchSize, maxLength, positions, concepts, artists, gridSide, mixture } = description;
  const files = await readTokenizerFiles(description.tokenizer);
  const tokenizer = createTokenizer(files.tokenizerJson, files.tokenizerConfig);
  const [glyphs, glosses] = await Promise.all([loadEmojiGlyphs(), loadGlosses()]);
  const texts = { glyphs, glosses, tokenizer, concepts, artists, gridSide, mixture };
  return plainSource(async (index) => {
    const samples = textBatch(seed, `${stage} ${index}`, batchSize * maxLength, texts);
    const longest = Math.max(...samples.map(({ inputIds }) => inputIds.length));
    if (longest > positions)
      throw new UserError(
        `stage ${stage}: its mixture has texts of ${longest} tokens, but the model has ${positions} positions: give more max_position_embeddings`,
      );
    return packedBatch(packSamples(samples, maxLength, positions));
  });
}
