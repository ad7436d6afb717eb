// What the server and the process of a model say to each other.

import type { DeviceName } from '../engine/engine.ts';
import type { AnswerPiece, BatchAnswer } from '../generate/batch-session.ts';
import type { Quantization } from '../weights/quantize.ts';
import type { Ask, ModelDetails } from './ask.ts';

/** How the process of a model is to be run. */
export interface WorkerOptions {
  folder: string;
  quantize?: Quantization;
  device?: DeviceName;
  /** Answers at a time. */
  parallel: number;
  /** Threads inside one op; all cores when absent. */
  threads?: number;
  /** Memory for what was read for earlier prompts, in bytes. */
  prefixBytes: number;
  /** Pictures with more pixels are refused. */
  maxPixels: number;
}

export type ToWorker =
  | { type: 'load'; options: WorkerOptions }
  /** An answer, or the explanation of one. */
  | { type: 'ask' | 'explain'; id: number; ask: Ask }
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
export interface WorkerReport {
  /** Resident memory in bytes, and what of it holds earlier prompts. */
  rss: number;
  prefixBytes: number;
  /** Seconds of CPU time since it was started. */
  cpu: number;
}

/** Seconds of CPU time of this process. */
export function cpuSeconds(): number {
  const { user, system } = process.cpuUsage();
  return (user + system) / 1e6;
}
