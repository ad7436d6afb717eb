// What the processes of the peers share: each loads software that others made, in a process of its own, and
// does what it is asked. Two copies of ONNX Runtime, or of llama.cpp, in one process would get in each
// other's way.

import { createRequire } from 'node:module';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';

/** Numbers of a tensor, row-major. */
export interface Traced {
  name: string;
  data: Float32Array;
}

/** One question about one picture. */
export interface PeerQuestion {
  /** Path of the picture. */
  image: string;
  /** The words of the question. */
  text: string;
  /** The prompt as the chat template lays it out, `<image>` in the place of the picture. */
  prompt: string;
  /** The same without the picture. */
  textPrompt: string;
}

export interface PeerLoad {
  /** The folder that holds node_modules with the peer; of one in Python, nothing. */
  peers: string;
  /** The folder that was exported. */
  folder: string;
  dtype: string;
  /** Of transformers.js: what it runs on. Default: the CPU. */
  device?: 'cpu' | 'webgpu';
  /** Of adapters: the folder of the model that they go over. */
  base?: string;
}

/** What a peer does. */
export interface Peer {
  /** Name and version. */
  load(request: PeerLoad): Promise<string>;
  answer(question: PeerQuestion, maxNewTokens: number): Promise<string>;
  /**
   * What it computes for a question before the first token of the answer, in the order in which it is
   * computed.
   */
  trace(question: PeerQuestion): Promise<Traced[]>;
}

export type PeerCall = { [M in keyof Peer]: { method: M; parameters: Parameters<Peer[M]> } }[keyof Peer];
export type PeerReply = { value: unknown } | { error: string };

/** Answers the calls of the parent process, one at a time, until it lets go. */
export function serve(peer: Peer): void {
  process.on('message', async ({ method, parameters }: PeerCall) => {
    const reply = await (peer[method] as (...parameters: unknown[]) => Promise<unknown>)(...parameters).then(
      (value): PeerReply => ({ value }),
      (error: unknown): PeerReply => ({ error: error instanceof Error ? error.message : String(error) }),
    );
    process.send!(reply);
  });
  process.on('disconnect', () => process.exit());
}

/** Of a package's files, by their path in it: its ES module, or, without a path, its CommonJS. */
export async function importPeer<T>(peers: string, name: string, ...path: string[]): Promise<T> {
  if (path.length === 0) return createRequire(join(peers, 'package.json'))(name) as T;
  return (await import(pathToFileURL(join(peers, 'node_modules', name, ...path)).href)) as T;
}

export const peerVersion = (peers: string, name: string): string =>
  (createRequire(join(peers, 'package.json'))(join(peers, 'node_modules', name, 'package.json')) as { version: string }).version;
