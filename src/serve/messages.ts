// What the server and the process of a model say to each other.

import type { DeviceName } from '../engine/engine.ts';
import type { AnswerPiece, BatchAnswer } from '../generate/batch-session.ts';
import type { Quantization } from '../weights/quantize.ts';
import type { Ask, ExplainAsk, ModelDetails } from './ask.ts';

/** How the process of a model is to be run. */
export interface WorkerOptions {
  folder: string;
  quantize?: Quantization;
  device?: DeviceName;
  /** Answers at a time. */
  parallel: number;
  /** Threads inside one op; all cores when absent. */
  threads?: number;
  /** Whether threads of the CPU spin for a moment while they wait for each other. */
  spin?: boolean;
  /** Memory for what was read for earlier prompts, in bytes. */
  prefixBytes: number;
  /** Pictures with more pixels are refused. */
  maxPixels: number;
}

export type ToWorker =
  | { type: 'load'; options: WorkerOptions }
  | { type: 'ask'; id: number; ask: Ask }
  | { type: 'explain'; id: number; ask: ExplainAsk }
  | { type: 'cancel'; id: number };

/** Why an answer failed: what the client gave, a picture, the length, or nothing that the client can mend. */
export type Failure = 'request' | 'image' | 'length' | 'internal';

export type FromWorker =
  | { type: 'ready'; details: ModelDetails }
  /** The model cannot be loaded; `isUser` where the message is meant for whoever started the server. */
  | { type: 'unloadable'; message: string; isUser: boolean }
  | { type: 'piece'; id: number; piece: AnswerPiece }
  | { type: 'done'; id: number; answer: BatchAnswer }
  | { type: 'explained'; id: number; explanation: object }
  | { type: 'failed'; id: number; failure: Failure; message: string }
  | ({ type: 'report' } & WorkerReport);

/** What a process says of itself every second. */
export interface WorkerReport extends ProcessFigures {
  /** Memory that holds earlier prompts, in bytes. */
  prefixBytes: number;
}

/** What a process takes. */
export interface ProcessFigures {
  /** Resident memory in bytes; of it JavaScript's heap, and buffers beside that which JavaScript holds. */
  rss: number;
  heap: number;
  external: number;
  /** Seconds of CPU time since it was started. */
  cpu: number;
}

/** Of this process. */
export function processFigures(): ProcessFigures {
  const { rss, heapTotal: heap, external } = process.memoryUsage();
  const { user, system } = process.cpuUsage();
  return { rss, heap, external, cpu: (user + system) / 1e6 };
}
