// Our own side of `npm run bench -- generate`: the library's generator on its ONNX Runtime engine, weights in float32.

import { totalmem } from 'node:os';
import { createOrtEngine } from '../../src/engine/ort.ts';
import { createGenerator, type Generator } from '../../src/generate/generator.ts';
import { modelParameters } from '../../src/models/model-parameters.ts';
import { elementCount } from '../../src/weights/safetensors.ts';
import { benchShapes } from '../generate/shapes.ts';
import { floatsOf } from '../generate/weights.ts';
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
  async load({ shape, threads, spin }) {
    const { config } = benchShapes[shape];
    const parameters = modelParameters(config);
    const count = parameters.reduce((sum, { dims }) => sum + elementCount(dims), 0);
    // the weights, and the engine's own copy of them
    const bytes = 2 * 4 * count;
    if (bytes > 0.8 * totalmem())
      throw new Error(`float32 weights of shape ${shape} take ${Math.round(bytes / 1e9)} GB while loading; --no-ours leaves them out`);
    const values = new Map<string, Float32Array>();
    for (const { name, dims, initialiser } of parameters) {
      const size = elementCount(dims);
      values.set(
        name,
        initialiser.kind === 'normal' ? floatsOf(size, name) : new Float32Array(size).fill(initialiser.kind === 'ones' ? 1 : 0),
      );
    }
    generator = await createGenerator(createOrtEngine({ threads, spin }), config, values);
    return {
      version: 'llava-gemma',
      notes: ['weights in float32'],
      parameters: parameters
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
