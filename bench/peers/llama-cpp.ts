// llama.cpp as a side of `npm run bench -- generate`. The language model runs in node-llama-cpp, whose npm
// package brings llama.cpp built for each generation of CPUs. It cannot read images; these go to a process of
// their own (llama-cpp-vision.ts), and memory is that of both.

import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { benchShapes } from '../generate/shapes.ts';
import { type LoadAnswer, type LoadRequest, type MemoryAnswer, promptIds, serve, speeds } from './generate-peer.ts';
import { importPeer, peerVersion } from './install.ts';
import { type Server, startServer } from './server.ts';

/** What is used of node-llama-cpp. */
interface Sequence {
  clearHistory(): Promise<void>;
  evaluate(ids: number[], options: { temperature: number; yieldEogToken: boolean }): AsyncIterable<number>;
}

interface Llama {
  systemInfo: string;
  llamaCppRelease: { release: string };
  loadModel(options: object): Promise<{
    createContext(options: object): Promise<{ currentThreads: number; getSequence(): Sequence }>;
  }>;
}

interface NodeLlamaCpp {
  getLlama(options: object): Promise<Llama>;
}

let sequence: Sequence;
let vocabulary: number;
let vision: Server;
/** What the vision process has printed since the last request. */
let printed = '';

async function load(request: LoadRequest): Promise<LoadAnswer> {
  const { getLlama } = await importPeer<NodeLlamaCpp>('node-llama-cpp', 'dist', 'index.js');
  const llama = await getLlama({
    gpu: false,
    build: 'never',
    skipDownload: true,
    progressLogs: false,
    logLevel: 'error',
    maxThreads: request.threads,
  });
  const model = await llama.loadModel({ modelPath: request.files.text, gpuLayers: 0 });
  const context = await model.createContext({ contextSize: request.context, threads: { ideal: request.threads, min: request.threads } });
  sequence = context.getSequence();
  vocabulary = benchShapes[request.shape].config.text_config.vocab_size;
  vision = startServer('its vision', process.execPath, [fileURLToPath(new URL('llama-cpp-vision.js', import.meta.url))], {
    apart: true,
    onPrint: (text) => {
      printed += text;
    },
  });
  const { version, notes, incomparable } = await vision.request<LoadAnswer>({ ...request, op: 'load' });
  return {
    version: `node-llama-cpp ${peerVersion('node-llama-cpp')} (llama.cpp ${llama.llamaCppRelease.release}), images by ${version}`,
    notes: [`language model: ${llama.systemInfo.trim()}`, ...notes],
    incomparable,
  };
}

async function generate(prompt: number, tokens: number): Promise<ReturnType<typeof speeds>> {
  // else it would find the prompt in its cache
  await sequence.clearHistory();
  const times: number[] = [];
  const start = performance.now();
  for await (const _ of sequence.evaluate(promptIds(prompt, vocabulary), { temperature: 0, yieldEogToken: true })) {
    times.push(performance.now());
    if (times.length === tokens) break;
  }
  return speeds(prompt, start, times);
}

/** Seconds an image as llama.cpp prints them, in whole milliseconds. */
async function encode(images: number): Promise<number> {
  printed = '';
  await vision.request({ op: 'encode', images });
  for (let wait = 0; wait < 100; wait++) {
    const times = [...printed.matchAll(/slice encoded in (\d+) ms/g)].map(([, time]) => Number(time) / 1000);
    if (times.length >= images) return times.reduce((a, b) => a + b, 0) / images;
    // the answer may come before what was printed
    await sleep(20);
  }
  throw new Error('@fugood/llama.node does not print how long encoding took');
}

await serve({
  load,
  encode,
  prefill: async (tokens) => (await generate(tokens, 1)).prefill,
  decode: async (context, tokens) => (await generate(context, tokens + 1)).decode,
  memory: () => vision.request<MemoryAnswer>({ op: 'memory' }),
});
