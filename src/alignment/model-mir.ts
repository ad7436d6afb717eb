// MIR of a model: hidden states of prompts whose texts have nothing to do with their pictures, layer by
// layer.

import { encodeConversation } from '../text/labels.ts';
import type { Rows } from './matrices.ts';
import { layerMir, type Mir, type MirOptions, mirOf } from './mir.ts';
import { type AlignmentModel, gatherRows } from './model.ts';
import { createRowFiles } from './row-files.ts';

export interface ModelMirOptions extends MirOptions {
  /** One for each picture. */
  texts: readonly string[];
  signal?: AbortSignal;
  onProgress?: (text: string) => void;
}

/** MIR over pictures whose rows these are, as they enter the language model. */
export async function measureMir(
  model: AlignmentModel,
  pictures: readonly Rows[],
  { texts, compat, signal, onProgress }: ModelMirOptions,
): Promise<Mir> {
  const { config, tokenizer } = model;
  const layers = Array.from({ length: model.layers }, (_, i) => i + 1);
  const files = createRowFiles(config.text_config.hidden_size);
  try {
    for (const [i, imageRows] of pictures.entries()) {
      signal?.throwIfAborted();
      onProgress?.(`hidden states of prompt ${i + 1} of ${pictures.length}`);
      const turns = [
        { from: 'human' as const, value: '<image>\n' },
        { from: 'gpt' as const, value: texts[i] },
      ];
      const text = encodeConversation(tokenizer, turns, {
        imageTokens: imageRows.count,
        maxLength: config.text_config.max_position_embeddings,
        sampleId: `text ${i + 1}`,
      });
      const [{ states }] = await model.read(imageRows, [text], layers);
      // image rows, and whatever comes after them
      const places = [...text.inputIds.keys()];
      const isImage = (t: number) => text.inputIds[t] === config.image_token_index;
      const last = text.inputIds.lastIndexOf(config.image_token_index);
      for (const [layer, { data, width }] of states) {
        files.add(layer, 'image', gatherRows(data, width, places.filter(isImage)));
        const behind = places.filter((t) => t > last);
        files.add(layer, 'text', gatherRows(data, width, behind));
      }
    }
    const measured = [];
    for (const layer of layers) {
      signal?.throwIfAborted();
      onProgress?.(`distance of image and text rows in layer ${layer} of ${layers.length}`);
      measured.push(layerMir({ layer, image: files.read(layer, 'image'), text: files.read(layer, 'text') }, { compat }));
    }
    return mirOf(measured);
  } finally {
    files.remove();
  }
}
