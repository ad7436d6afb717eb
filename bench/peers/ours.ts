// Our own side of `npm run bench -- generate`: the library's generator on its ONNX Runtime engine, weights in
// 4 bits.

import { createOrtEngine } from '../../src/engine/ort.ts';
import type { Generator } from '../../src/generate/generator.ts';
import { modelParameters } from '../../src/models/model-parameters.ts';
import { loadGenerator } from '../../src/pretrained/load.ts';
import { elementCount } from '../../src/weights/safetensors.ts';
import { picture, promptIds, seconds, serve, speeds } from './generate-peer.ts';

let generator: Generator;

async function generate(prompt: number, tokens: number): Promise<ReturnType<typeof speeds>> {
  const times: number[] = [];
  const inputIds = promptIds(prompt, generator.config.text_config.vocab_size);
  const start = performance.now();
  await generator.generate([{ inputIds }], {
    maxNewTokens: tokens,
    // random weights must not stop where chance has it
    stopTokenIds: [],
    onToken: () => void times.push(performance.now()),
  });
  return speeds(prompt, start, times);
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
  prefill: async (tokens) => (await generate(tokens, 1)).prefill,
  decode: async (context, tokens) => (await generate(context, tokens + 1)).decode,
});
