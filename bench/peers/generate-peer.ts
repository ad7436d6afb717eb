// What a side of `npm run bench -- generate` can be asked, and the loop that answers: the process of a side
// imports this and calls `serve`.

import { writeSync } from 'node:fs';
import { createInterface } from 'node:readline';
import { processMb } from '../../src/runs/memory.ts';

/** What a side needs to know before it can be measured. */
export interface LoadRequest {
  /** Name in `benchShapes`. */
  shape: string;
  /** Folder with the shape's files, as `makeFiles` returns them. */
  files: Readonly<Record<string, string>>;
  /** Tokens that the context must hold. */
  context: number;
  threads: number;
  /** Whether idle threads of ONNX Runtime spin before they sleep. */
  spin: boolean;
  /** dtype of transformers.js' encoder: q4 or fp32. */
  vision: string;
}

export interface LoadAnswer {
  /** Name and version of what computes. */
  version: string;
  /**
   * What else a reader of the numbers should know: which instructions the binary uses, what differs from the
   * others.
   */
  notes: string[];
  /** What is measured, but stands for less than the side can do, so that no ratio is made of it. */
  incomparable?: string[];
  /** Weights of the language model, where the side counts them itself. */
  parameters?: number;
}

export interface MemoryAnswer {
  /** Most that the process has held in RAM at once, files that are mapped included, in 2^20 bytes. */
  peak_mb: number;
  /** What it holds now and could not give back: mapped files left out. Linux only. */
  anonymous_mb?: number;
}

export interface Peer {
  load(request: LoadRequest): Promise<LoadAnswer>;
  /** Seconds an image, from pixels to rows for the language model. */
  encode(images: number): Promise<number>;
  /** Tokens a second from the prompt being handed over to its first token. */
  prefill(tokens: number): Promise<number>;
  /** Tokens a second after the first one, greedy, behind a prompt of `context` tokens. */
  decode(context: number, tokens: number): Promise<number>;
  /** The same of so many prompts at once: tokens of all rows a second. Our own side has it. */
  decodeRows?(context: number, tokens: number, rows: number): Promise<number>;
  /** Memory of processes of its own. */
  memory?(): Promise<MemoryAnswer>;
}

/** Ids of a prompt: any do, and those of the letters and special tokens are left out. */
export function promptIds(tokens: number, vocabulary: number): number[] {
  return Array.from({ length: tokens }, (_, i) => 300 + ((i * 7919) % (vocabulary - 400)));
}

/** Pixels of picture number `index`, float32 [3 * size * size] about 0. */
export function picture(index: number, size: number): Float32Array {
  return Float32Array.from({ length: 3 * size * size }, (_, i) => Math.sin((i + 1) * (index + 1)));
}

/** Seconds of `run`. */
export async function seconds(run: () => unknown): Promise<number> {
  const start = performance.now();
  await run();
  return (performance.now() - start) / 1000;
}

/**
 * Tokens a second of prefill and of decoding by when the prompt was given and when each token came, in ms.
 */
export function speeds(prompt: number, start: number, times: readonly number[]): { prefill: number; decode: number } {
  return { prefill: (1000 * prompt) / (times[0] - start), decode: (1000 * (times.length - 1)) / (times[times.length - 1] - times[0]) };
}

export function processMemory(): MemoryAnswer {
  // maxRSS begins, on Linux, with that of the process that started this one; VmHWM does not
  const peak = processMb('VmHWM') ?? process.resourceUsage().maxRSS / 1024;
  const anonymous = processMb('RssAnon');
  return { peak_mb: Math.round(peak), ...(anonymous === undefined ? {} : { anonymous_mb: Math.round(anonymous) }) };
}

interface Request extends LoadRequest {
  op: 'load' | 'encode' | 'prefill' | 'decode' | 'memory';
  images: number;
  tokens: number;
  rows?: number;
}

/**
 * Answers requests from stdin, on descriptor 3 (`startServer` with `apart`), until stdin ends or says stop.
 */
export async function answerRequests<R extends { op: string }>(answerTo: (request: R) => Promise<object>): Promise<never> {
  for await (const line of createInterface({ input: process.stdin })) {
    const request = JSON.parse(line) as R | { op: 'stop' };
    if (request.op === 'stop') break;
    const answer = await answerTo(request as R).catch((error: unknown) => ({
      error: error instanceof Error ? error.message : String(error),
    }));
    writeSync(3, `${JSON.stringify(answer)}\n`);
  }
  process.exit();
}

/** Serves a side of `npm run bench -- generate`. */
export async function serve(peer: Peer): Promise<void> {
  const answerTo = async (request: Request): Promise<object> => {
    if (request.op === 'load') return peer.load(request);
    if (request.op === 'encode') return { seconds_per_image: await peer.encode(request.images) };
    if (request.op === 'prefill') return { tokens_per_s: await peer.prefill(request.tokens) };
    if (request.op === 'decode') {
      const { context, tokens, rows = 1 } = request;
      if (rows === 1) return { tokens_per_s: await peer.decode(context, tokens) };
      if (!peer.decodeRows) throw new Error('this side decodes one row at a time');
      return { tokens_per_s: await peer.decodeRows(context, tokens, rows) };
    }
    if (request.op !== 'memory') throw new Error(`no op ${JSON.stringify(request.op)}`);
    const [own, others] = [processMemory(), await peer.memory?.()];
    if (!others) return own;
    return { peak_mb: own.peak_mb + others.peak_mb, anonymous_mb: (own.anonymous_mb ?? 0) + (others.anonymous_mb ?? 0) };
  };
  await answerRequests(answerTo);
}
