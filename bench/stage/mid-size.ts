// The mid-size model of the training benchmarks, which two cores can bear: CLIP ViT-B/16 and a Gemma of 253 M
// parameters, of which 197 M are an embedding of 256,000 words; and conversations about drawn scenes.

import { existsSync, readFileSync } from 'node:fs';
import { mkdir, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { buildEmojiDataset, type Entry } from '../../src/data/emoji/build.ts';
import { type ModelConfig, shapeNamed } from '../../src/models/shapes.ts';
import { writeFreshCheckpoint } from '../../src/pretrained/fresh.ts';
import type { FloatType } from '../../src/weights/dtype.ts';

/** The Gemma of 253 M. */
export const midSizeLanguage: ModelConfig = {
  ...shapeNamed('gemma-2b').config,
  hidden_size: 768,
  intermediate_size: 2048,
  num_hidden_layers: 8,
  num_attention_heads: 12,
  num_key_value_heads: 12,
  head_dim: 64,
};

/** CLIP ViT-B/16. */
export const midSizeVision = shapeNamed('clip-vit-base-patch16').config;

/** Writes a model with random weights, unless it is there; returns its folder. */
export async function freshModel(
  out: string,
  config: ModelConfig,
  tokenizer: string | undefined,
  log: (line: string) => void,
  { dtype = 'float32' }: { dtype?: FloatType } = {},
) {
  if (existsSync(out)) return out;
  log(`making ${out}`);
  await mkdir(dirname(out), { recursive: true });
  const options = { dtype, seed: 1, maxShardSize: 5e9, tokenizer, signal: new AbortController().signal };
  await writeFreshCheckpoint(config, out, { ...options, onDrawn: () => {} });
  return out;
}

/**
 * One conversation a picture: its caption and those of the pictures after it, 30 to 86 words, so that some 80
 * tokens a sample have labels.
 */
export async function writeConversations(folder: string, count: number): Promise<{ data_path: string; image_folder: string }> {
  const { captions, imageFolder } = await buildEmojiDataset({ seed: 1, out: join(folder, 'emoji'), trainScenes: count, splits: [] });
  const entries = JSON.parse(readFileSync(captions, 'utf8')) as Entry[];
  const words = entries.map(({ conversations }) => conversations[1].value.split(' '));
  const samples = entries.map((entry, i) => {
    const following = Array.from({ length: 30 }, (_, j) => words[(i + j) % words.length]).flat();
    const answer = { from: 'gpt', value: following.slice(0, 30 + 8 * (i % 8)).join(' ') };
    return { ...entry, conversations: [entry.conversations[0], answer] };
  });
  const path = join(folder, 'conversations.json');
  await writeFile(path, JSON.stringify(samples));
  return { data_path: path, image_folder: imageFolder };
}
