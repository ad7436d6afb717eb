// Our own side of `npm run bench -- generate`: the library's generator on its ONNX Runtime engine, 4-bit
// weights.

import { createOrtEngine } from '../../src/engine/ort.ts';
import type { Generator } from '../../src/generate/generator.ts';
import { modelParameters } from '../../src/models/model-parameters.ts';
import { loadGenerator } from '../../src/pretrained/load.ts';
import { elementCount } from '../../src/weights/safetensors.ts';
import { picture, promptIds, seconds, serve, speeds } from './generate-peer.ts';

let generator: Generator;

/** When the prompts were handed over, and when each of the rows had its 1st, 2nd, ... token, in ms. */
async function generate(prompt: number, tokens: number, rows = 1): Promise<{ start: number; times: number[] }> {
  const { vocab_size } = generator.config.text_config;
  const inputIds = promptIds(prompt, vocab_size);
  const came: number[] = [];
  const start = performance.now();
  await generator.generate(
    Array.from({ length: rows }, () => ({ inputIds })),
    {
      maxNewTokens: tokens,
      // random weights must not stop by chance
      stopTokenIds: [],
      onToken: () => void came.push(performance.now()),
    },
  );
  return { start, times: Array.from({ length: tokens }, (_, i) => came[(i + 1) * rows - 1]) };
}

await serve({
  async load({ files, threads, spin }) {
    const start = performance.now();
    const loaded = await loadGenerator(files.ours, { engine: createOrtEngine({ threads, spin }) });
    generator = loaded.generator;
    return {
      version: 'llava-gemma',
      notes: [
        'language model in 4 bits, vision tower and connector in 8, blocks of 64',
        `loaded in ${((performance.now() - start) / 1000).toFixed(1)} s`,
      ],
      parameters: modelParameters(loaded.config)
        .filter(({ name }) => name.startsWith('language_model.'))
        .reduce((sum, { dims }) => sum + elementCount(dims), 0),
    };
  },
  async encode(images) {
    const size = generator.config.vision_config.image_size as number;
    const pictures = Array.from({ length: images }, (_, i) => picture(i, size));
    const time = await seconds(async () => {
      for (const pixels of pictures) await generator.imageRows(await generator.imageFeatures(pixels));
    });
    return time / images;
  },
  async prefill(tokens) {
    const { start, times } = await generate(tokens, 1);
    return speeds(tokens, start, times).prefill;
  },
  async decode(context, tokens) {
    const { start, times } = await generate(context, tokens + 1);
    return speeds(context, start, times).decode;
  },
  async decodeRows(context, tokens, rows) {
    const { start, times } = await generate(context, tokens + 1, rows);
    return rows * speeds(context, start, times).decode;
  },
});
