// What a model computes for a question before the first token of its answer, by the names that peers have.

import { int32 } from '../engine/engine.ts';
import { createOrtEngine } from '../engine/ort.ts';
import { type ForwardInputs, forward } from '../generate/forward.ts';
import type { PrefixCache } from '../generate/generator.ts';
import { readPixelValues } from '../images/processor.ts';
import { imageSize, imageTokenCount, llavaConfigSchema } from '../models/llava.ts';
import { cacheName } from '../models/programs.ts';
import { withCheckpoint } from '../pretrained/folder.ts';
import type { LoadedModel } from '../pretrained/load.ts';
import { type RunWeights, readRunWeights } from '../pretrained/run-weights.ts';
import { encodeText } from '../text/chat.ts';
import type { PeerQuestion } from './peers/serve.ts';

/**
 * The stages of `model`, loaded from `dir`: pixel_values, input_ids, image_features, present.N, logits and
 * those of the text alone.
 */
export async function ownTrace(dir: string, model: LoadedModel, question: PeerQuestion): Promise<Map<string, Float32Array>> {
  const { config, generator, tokenizer, processor } = model;
  const ids = encodeText(tokenizer, question.prompt, imageTokenCount(config));
  const textIds = encodeText(tokenizer, question.textPrompt, 0);
  const pixels = await readPixelValues([question.image], processor);
  const rows = await generator.imageRows(await generator.imageFeatures(pixels));
  const prefix: PrefixCache = {};
  await generator.generate([{ inputIds: ids, imageRows: rows }], { maxNewTokens: 1, stopTokenIds: [], prefix });
  const side = imageSize(config);
  const stages = new Map([
    ['pixel_values', pixels],
    ['input_ids', Float32Array.from(ids)],
    ['text_ids', Float32Array.from(textIds)],
    ['image_features', rows],
    ['logits', await lastLogits(dir, ids, { pixel_values: { dtype: 'float32', dims: [1, 3, side, side], data: pixels } })],
    ['text_logits', await lastLogits(dir, textIds)],
  ]);
  for (let layer = 0; layer < config.text_config.num_hidden_layers; layer++)
    for (const kind of ['key', 'value'] as const) {
      const { data } = await prefix.cache!.state[cacheName(layer, kind)].read();
      stages.set(`present.${layer}.${kind}`, Float32Array.from(data as Float32Array));
    }
  return stages;
}

/** Logits [vocab] behind the last of `ids`. */
function lastLogits(dir: string, ids: readonly number[], pictures: Pick<ForwardInputs, 'pixel_values'> = {}): Promise<Float32Array> {
  return withCheckpoint(dir, llavaConfigSchema, async (config, checkpoint) => {
    const opened: RunWeights[] = [];
    const source = {
      read: async (parameters: Parameters<typeof readRunWeights>[1]) => {
        opened.push(await readRunWeights(checkpoint, parameters));
        return opened.at(-1)!.values;
      },
    };
    try {
      const inputs = { input_ids: int32([...ids], [1, ids.length]), ...pictures };
      const outputs = await forward(createOrtEngine(), { kind: 'llava', config }, source, inputs);
      let last = new Float32Array(0);
      for await (const piece of outputs.get('logits')!.pieces()) last = Float32Array.from(piece.slice(-config.text_config.vocab_size));
      return last;
    } finally {
      for (const weights of opened) await weights.release();
    }
  });
}
