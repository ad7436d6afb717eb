// llama.cpp as a peer. Its logits of a text come from node-llama-cpp, which hands them out and reads no
// pictures; answers about pictures from @fugood/llama.node, whose binary has llama.cpp's mtmd.

import { existsSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { join } from 'node:path';
import { type GGUF_DTYPES, ggufFiles } from '../llama-cpp.ts';
import { importPeer, type PeerLoad, type PeerQuestion, peerVersion, serve, type Traced } from './serve.ts';

/** The parts of the two packages that are used. */
interface Sequence {
  clearHistory(): Promise<void>;
  controlledEvaluate(input: [number, object][]): Promise<({ next: { logits?: Map<number, number> } } | undefined)[]>;
}
interface NodeLlamaCpp {
  getLlama(options: object): Promise<{
    llamaCppRelease: { release: string };
    loadModel(options: object): Promise<{
      tokenize(text: string, specialTokens: boolean, trim?: 'trimLeadingSpace'): number[];
      createContext(options: object): Promise<{ getSequence(): Sequence }>;
    }>;
  }>;
}
interface Context {
  initMultimodal(options: object): boolean;
  clearCache(): void;
  completion(options: object): Promise<{ text: string }>;
}
interface LlamaNode {
  loadModel(options: object): Promise<Context>;
}

const [TEXT, PICTURES] = ['node-llama-cpp', '@fugood/llama.node'];
const CONTEXT = 2048;
// its threads wait for each other by spinning, which ends badly where something else runs too
const THREADS = Math.max(1, Math.floor(availableParallelism() / 2));
/** The cache as we have it, which is float16 by default. */
const exact = { flashAttention: false, experimentalKvCacheKeyType: 'F32', experimentalKvCacheValueType: 'F32' };
const MARKER = '<__media__>';

let files: { model: string; mmproj: string };
let peersFolder: string;
let context: Context;

async function openContext(): Promise<Context> {
  const library = await importPeer<LlamaNode>(peersFolder, PICTURES);
  const opened = await library.loadModel({ model: files.model, n_ctx: CONTEXT, n_gpu_layers: 0, n_parallel: 1, n_threads: THREADS });
  if (!opened.initMultimodal({ path: files.mmproj, use_gpu: false })) throw new Error(`${PICTURES} cannot read ${files.mmproj}`);
  return opened;
}

async function complete(options: object): Promise<string> {
  context.clearCache();
  return (await context.completion(options)).text;
}

async function textLogits(prompt: string): Promise<{ ids: number[]; logits: Float32Array }> {
  const { getLlama } = await importPeer<NodeLlamaCpp>(peersFolder, TEXT, 'dist', 'index.js');
  const llama = await getLlama({ gpu: false, build: 'never', skipDownload: true, progressLogs: false, logLevel: 'error' });
  const model = await llama.loadModel({ modelPath: files.model, gpuLayers: 0 });
  const ids = model.tokenize(prompt, true);
  const sequence = (await model.createContext({ contextSize: CONTEXT, ...exact })).getSequence();
  const rows = await sequence.controlledEvaluate(ids.map((id, i) => [id, { generateNext: { logits: i === ids.length - 1 } }]));
  const last = rows.at(-1)!.next.logits!;
  const size = [...last.keys()].reduce((most, id) => Math.max(most, id + 1), 0);
  const logits = new Float32Array(size).fill(-Infinity);
  for (const [id, value] of last) logits[id] = value;
  return { ids, logits };
}

serve({
  async load({ peers, folder, dtype }: PeerLoad) {
    const { model, mmproj } = ggufFiles(dtype as (typeof GGUF_DTYPES)[number]);
    files = { model: join(folder, model), mmproj: join(folder, mmproj) };
    for (const file of Object.values(files)) if (!existsSync(file)) throw new Error(`${file} is not there`);
    peersFolder = peers;
    context = await openContext();
    return `${TEXT} ${peerVersion(peers, TEXT)} and ${PICTURES} ${peerVersion(peers, PICTURES)}`;
  },
  async answer({ image, prompt }: PeerQuestion, maxNewTokens) {
    // the tokenizer writes <bos> itself
    const text = prompt.replace('<image>', MARKER).replace(/^<bos>/, '');
    const options = { prompt: text, media_paths: [image], n_predict: maxNewTokens, temperature: 0, penalty_repeat: 1, seed: 1 };
    return complete(options).catch(async (error: Error) => {
      // an answer that came before the call had returned is never taken for ended (1.7.15, LlamaContext.cpp)
      if (!error.message.includes('Another completion is in progress')) throw error;
      // the old one is still at work on what it refused: it is not to be released
      context = await openContext();
      return complete(options);
    });
  },
  async trace({ textPrompt }: PeerQuestion) {
    const { ids, logits } = await textLogits(textPrompt);
    return [
      { name: 'text_ids', data: Float32Array.from(ids) },
      { name: 'text_logits', data: logits },
    ] satisfies Traced[];
  },
});
