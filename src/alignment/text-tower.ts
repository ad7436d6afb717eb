// What the encoder's own text tower retrieves, where there is one: a line of reference for retrieval
// through the connector, which can hardly know more of a picture than its encoder.

import { existsSync } from 'node:fs';
import { concatFloat32 } from '../arrays.ts';
import { readTokenizerFiles } from '../checkpoint/tokenizer-files.ts';
import { textInputs } from '../data/emoji/contrastive.ts';
import { type Engine, float32 } from '../engine/engine.ts';
import { createOrtEngine } from '../engine/ort.ts';
import { clipConfigSchema } from '../models/clip.ts';
import { clipImageGraph, clipTextGraph } from '../models/contrastive.ts';
import { compileGraph } from '../models/programs.ts';
import { bundledEncoder, resolvePath } from '../paths.ts';
import { openModel, withCheckpoint } from '../pretrained/folder.ts';
import { readRunWeights } from '../pretrained/run-weights.ts';
import { createTokenizer } from '../text/tokenizer.ts';
import type { Rows } from './matrices.ts';

/** A weight that tells one encoder from another. */
const PATCHES = 'vision_model.embeddings.patch_embedding.weight';

/** The bundled CLIP, if the vision tower of the LLaVA in `dir` is its encoder, weight by weight. */
export async function bundledTowerOf(dir: string): Promise<string | undefined> {
  const clip = resolvePath(bundledEncoder, 'the bundled encoder');
  if (!existsSync(clip)) return undefined;
  const [model, encoder] = await Promise.all([openModel(dir), openModel(clip)]);
  try {
    const name = `vision_tower.${PATCHES}`;
    if (!model.has(name) || `${model.shape(name)}` !== `${encoder.shape(PATCHES)}`) return undefined;
    const [own, other] = await Promise.all([model.float32(name), encoder.float32(PATCHES)]);
    return own.every((value, i) => value === other[i]) ? clip : undefined;
  } finally {
    await model.close();
    await encoder.close();
  }
}

/** Pictures and texts that go through a tower at a time. */
const TOGETHER = 16;

/**
 * Embeddings by the CLIP in the folder `dir` of pictures, given as pixel values [3, size, size], and of
 * texts, one row each. Texts are cut where the tower ends. UserError for another model, or for pixels of
 * another size.
 */
export function towerEmbeddings(
  dir: string,
  pixels: readonly Float32Array[],
  texts: readonly string[],
  engine: Engine = createOrtEngine(),
): Promise<{ pictures: Rows[]; texts: Rows[] }> {
  return withCheckpoint(dir, clipConfigSchema, async (config, checkpoint) => {
    const { tokenizerJson, tokenizerConfig } = await readTokenizerFiles(dir);
    const tokenizer = createTokenizer(tokenizerJson, tokenizerConfig);
    const [imageGraph, textGraph] = [clipImageGraph(config), clipTextGraph(config)];
    const weights = await readRunWeights(checkpoint, [...imageGraph.parameters, ...textGraph.parameters]);
    const compile = async () =>
      [await compileGraph(engine, imageGraph, weights.values), await compileGraph(engine, textGraph, weights.values)] as const;
    const [image, text] = await compile().finally(weights.release);
    const { image_size: size } = config.vision_config;
    const width = config.projection_dim;
    const rowsOf = (data: Float32Array): Rows[] =>
      Array.from({ length: data.length / width }, (_, i) => ({ data: data.slice(i * width, (i + 1) * width), count: 1, width }));
    const inBatches = async <T>(list: readonly T[], embed: (some: readonly T[]) => Promise<Float32Array>) => {
      const rows: Rows[] = [];
      for (let at = 0; at < list.length; at += TOGETHER) rows.push(...rowsOf(await embed(list.slice(at, at + TOGETHER))));
      return rows;
    };
    try {
      return {
        pictures: await inBatches(pixels, async (some) => {
          return (await image.run({ pixel_values: float32(concatFloat32(some), [some.length, 3, size, size]) })).embeds
            .data as Float32Array;
        }),
        texts: await inBatches(texts, async (some) => {
          const inputs = textInputs(tokenizer, 'caption', some, config.text_config.max_position_embeddings);
          return (await text.run(inputs)).embeds.data as Float32Array;
        }),
      };
    } finally {
      await image.dispose();
      await text.dispose();
    }
  });
}
