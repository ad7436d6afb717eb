// transformers.js as a side of `npm run bench -- serve --peer`: what a server made of it would do, one answer
// after the other, from the picture's file on. Its own processor, its own generate().

import { basename, dirname } from 'node:path';
import { answerRequests } from './generate-peer.ts';
import { importPeer, peerVersion } from './install.ts';

interface Tensor {
  dims: number[];
}

type Inputs = Record<'input_ids' | 'attention_mask' | 'pixel_values', Tensor>;

interface Processor {
  (image: unknown, text: string): Promise<Inputs>;
  apply_chat_template(messages: object[], options: object): string;
}

/** The part of the package that is used. */
interface TransformersJs {
  env: { allowRemoteModels: boolean; localModelPath: string };
  RawImage: { read(path: string): Promise<unknown> };
  BaseStreamer: new () => object;
  AutoProcessor: { from_pretrained(name: string): Promise<Processor> };
  LlavaForConditionalGeneration: {
    from_pretrained(name: string, options: object): Promise<{ generate(options: object): Promise<Tensor> }>;
  };
}

export type ServePeerRequest =
  | { op: 'load'; folder: string; threads: number }
  | { op: 'answer'; image: string; text: string; maxTokens: number }
  | { op: 'cpu' };

/** When the first token came and the answer ended, in ms since it was begun. */
export interface ServePeerAnswer {
  first: number;
  done: number;
  tokens: number;
}

const PACKAGE = '@huggingface/transformers';

async function load(folder: string, threads: number) {
  const library = await importPeer<TransformersJs>(PACKAGE, 'dist', 'transformers.node.mjs');
  library.env.allowRemoteModels = false;
  library.env.localModelPath = `${dirname(folder)}/`;
  const processor = await library.AutoProcessor.from_pretrained(basename(folder));
  const model = await library.LlavaForConditionalGeneration.from_pretrained(basename(folder), {
    device: 'cpu',
    dtype: 'fp32',
    // threads that spin would count as CPU time
    session_options: { intraOpNumThreads: threads, interOpNumThreads: 1, extra: { session: { intra_op: { allow_spinning: '0' } } } },
  });
  return { library, processor, model };
}

let state: Awaited<ReturnType<typeof load>>;

async function answer(image: string, text: string, maxTokens: number): Promise<ServePeerAnswer> {
  const { library, processor, model } = state;
  const start = performance.now();
  const content = [{ type: 'image' }, { type: 'text', text }];
  const prompt = processor.apply_chat_template([{ role: 'user', content }], { add_generation_prompt: true });
  const inputs = await processor(await library.RawImage.read(image), prompt);
  const times: number[] = [];
  const streamer = Object.assign(new library.BaseStreamer(), { put: () => void times.push(performance.now() - start), end: () => {} });
  await model.generate({ ...inputs, max_new_tokens: maxTokens, do_sample: false, streamer });
  // a streamer receives the prompt first
  return { first: times[1], done: performance.now() - start, tokens: times.length - 1 };
}

await answerRequests<ServePeerRequest>(async (request) => {
  if (request.op === 'load') {
    state = await load(request.folder, request.threads);
    return { version: `${PACKAGE} ${peerVersion(PACKAGE)}` };
  }
  if (request.op === 'answer') return answer(request.image, request.text, request.maxTokens);
  const { user, system } = process.cpuUsage();
  return { cpu: (user + system) / 1e6 };
});
