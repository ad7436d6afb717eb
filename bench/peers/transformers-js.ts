// transformers.js as a side of `npm run bench -- generate`: its own LlavaForConditionalGeneration, its own
// generate(), on onnxruntime-node. Tensors are handed to the model class directly; resizing pictures and
// tokenizing are nobody's part of the measurement.

import { basename, dirname } from 'node:path';
import { benchShapes } from '../generate/shapes.ts';
import { type LoadRequest, picture, promptIds, seconds, serve, speeds } from './generate-peer.ts';
import { importPeer, peerVersion } from './install.ts';

interface Tensor {
  dims: number[];
}

interface Model {
  encode_image(inputs: { pixel_values: Tensor }): Promise<Tensor>;
  generate(options: object): Promise<Tensor>;
}

/** What is used of the package. */
interface TransformersJs {
  env: { allowRemoteModels: boolean; localModelPath: string };
  Tensor: new (type: string, data: Float32Array | BigInt64Array, dims: number[]) => Tensor;
  BaseStreamer: new () => object;
  LlavaForConditionalGeneration: { from_pretrained(name: string, options: object): Promise<Model> };
}

async function load({ shape, files, threads, spin, vision }: LoadRequest) {
  const library = await importPeer<TransformersJs>('@huggingface/transformers', 'dist', 'transformers.node.mjs');
  library.env.allowRemoteModels = false;
  library.env.localModelPath = `${dirname(files.transformersJs)}/`;
  const model = await library.LlavaForConditionalGeneration.from_pretrained(basename(files.transformersJs), {
    device: 'cpu',
    dtype: { vision_encoder: vision, embed_tokens: 'q4', decoder_model_merged: 'q4' },
    session_options: {
      intraOpNumThreads: threads,
      interOpNumThreads: 1,
      extra: { session: { intra_op: { allow_spinning: spin ? '1' : '0' }, force_spinning_stop: '1' } },
    },
  });
  return { library, model, config: benchShapes[shape].config };
}

let state: Awaited<ReturnType<typeof load>>;

/** Greedy tokens behind a prompt: when each came, in ms, and when the prompt was given. */
async function generate(prompt: number, tokens: number): Promise<ReturnType<typeof speeds>> {
  const { library, model, config } = state;
  const times: number[] = [];
  const ids = BigInt64Array.from(promptIds(prompt, config.text_config.vocab_size), BigInt);
  const streamer = Object.assign(new library.BaseStreamer(), { put: () => void times.push(performance.now()), end: () => {} });
  const start = performance.now();
  const result = await model.generate({
    input_ids: new library.Tensor('int64', ids, [1, prompt]),
    attention_mask: new library.Tensor('int64', new BigInt64Array(prompt).fill(1n), [1, prompt]),
    max_new_tokens: tokens,
    do_sample: false,
    streamer,
  });
  if (result.dims[1] !== prompt + tokens) throw new Error(`${result.dims[1] - prompt} tokens came, ${tokens} were asked for`);
  // a streamer is handed the prompt first
  return speeds(prompt, start, times.slice(1));
}

await serve({
  async load(request) {
    state = await load(request);
    return {
      version: `@huggingface/transformers ${peerVersion('@huggingface/transformers')}, onnxruntime-node ${peerVersion('onnxruntime-node')}`,
      notes: [`language model q4, encoder ${request.vision}`],
    };
  },
  async encode(images) {
    const { library, model, config } = state;
    const size = config.vision_config.image_size;
    const tensors = Array.from({ length: images }, (_, i) => new library.Tensor('float32', picture(i, size), [1, 3, size, size]));
    const time = await seconds(async () => {
      for (const pixel_values of tensors) await model.encode_image({ pixel_values });
    });
    return time / images;
  },
  prefill: async (tokens) => (await generate(tokens, 1)).prefill,
  decode: async (context, tokens) => (await generate(context, tokens + 1)).decode,
});
