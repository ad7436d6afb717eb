// What a page and the worker of its model say to each other.

import type { DeviceName } from '../engine/engine.ts';
import type { WebEngineOptions } from '../engine/web.ts';
import type { SamplingWishes } from '../generate/defaults.ts';
import type { AnswerEnd } from '../generate/session.ts';
import type { Turn } from '../text/chat.ts';
import type { ConnectorStep } from '../train/connector.ts';
import type { Quantization } from '../weights/quantize.ts';
import type { FolderOrigin } from './folder.ts';

export interface LoadRequest extends WebEngineOptions {
  /** URLs are absolute. */
  origin: Exclude<FolderOrigin, URL>;
  files?: readonly string[];
  headers?: Readonly<Record<string, string>>;
  device?: DeviceName;
  quantize?: Quantization;
}

export interface AnswerRequest {
  turns: readonly Turn[];
  images: readonly Uint8Array[];
  /** Default: as the model's folder says, else 64. */
  maxNewTokens?: number;
  /** What is not said is as the model's folder says. */
  sampling?: SamplingWishes;
}

export interface TrainRequest {
  examples: readonly { picture: Uint8Array; turns: readonly Turn[] }[];
  steps: number;
  batchSize?: number;
  learningRate?: number;
  template?: 'gemma' | 'plain';
  seed?: number;
  fresh?: number;
}

/** What is known of a model that was loaded. */
export interface LoadedInfo {
  /** Of its folder. */
  name: string;
  /** What it runs on: ort-wasm or ort-webgpu. */
  engine: string;
  /** Bytes of its files. */
  bytes: number;
  /** Positions of its language model. */
  contextLength: number;
}

/** What each call takes, what it tells on the way, and what it gives. */
export interface Calls {
  load: { request: LoadRequest; event: { done: number; total: number }; result: LoadedInfo };
  answer: { request: AnswerRequest; event: string; result: AnswerEnd };
  train: { request: TrainRequest; event: ConnectorStep; result: undefined };
  files: { request: undefined; event: never; result: Map<string, Blob> };
  zip: { request: string | undefined; event: never; result: Blob };
}

export type CallName = keyof Calls;

/** To the worker. */
export type ToWorker =
  | { [N in CallName]: { id: number; call: N; request: Calls[N]['request'] } }[CallName]
  /** Ends call `id`. */
  | { id: number; call: 'abort' };

/** From the worker, about call `id`. */
export type FromWorker =
  | { id: number; event: unknown }
  | { id: number; result: unknown }
  | { id: number; error: { name: string; message: string } };
