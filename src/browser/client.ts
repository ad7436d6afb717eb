// A model in a worker of its own: what a page asks of it. A page that imports this module alone loads the
// rest in the worker.

import { UserError } from '../errors.ts';
import type { FolderOrigin } from './folder.ts';
import type { AnswerRequest, CallName, Calls, FromWorker, LoadedInfo, LoadRequest, TrainRequest } from './messages.ts';

export type { LoadedInfo } from './messages.ts';

export interface ClientLoadOptions extends Omit<LoadRequest, 'origin'> {
  /** Is told how much of the weights has been read, in bytes. */
  onProgress?(done: number, total: number): void;
  signal?: AbortSignal;
}

export interface ClientAnswerOptions extends Omit<AnswerRequest, 'turns' | 'images'> {
  /** Is called with each piece of text as it comes. */
  onPiece?(text: string): void;
  signal?: AbortSignal;
}

export interface ClientTrainOptions extends Omit<TrainRequest, 'examples'> {
  onStep?(step: Calls['train']['event']): void;
  /** Ends training after a step, by throwing its reason; what was learnt stays. */
  signal?: AbortSignal;
}

/** Functions as of llava-gemma/browser, of one model. They throw UserError as those do. */
export interface ModelWorker {
  /** Loads a model, in place of the one before. */
  load(origin: FolderOrigin, options?: ClientLoadOptions): Promise<LoadedInfo>;
  /** Answers the last of the turns; `images` are the bytes of picture files. */
  answer(
    prompt: Pick<AnswerRequest, 'turns'> & Partial<Pick<AnswerRequest, 'images'>>,
    options?: ClientAnswerOptions,
  ): Promise<Calls['answer']['result']>;
  /** Trains the connector; answers in the middle of it are those of what it has learnt so far. */
  train(examples: TrainRequest['examples'], options: ClientTrainOptions): Promise<void>;
  /** The files of the model as it is now. */
  files(): Promise<Map<string, Blob>>;
  /** The same as one zip file. */
  zip(name?: string): Promise<Blob>;
  /** Ends the worker, which gives all memory back. */
  close(): void;
}

interface Waiting {
  tell(event: unknown): void;
  resolve(result: unknown): void;
  reject(error: unknown): void;
}

/** Starts a worker. `url`: where llava-gemma-worker.js is served, if not beside this module. */
export function openWorker(url?: string | URL): ModelWorker {
  const worker =
    url === undefined
      ? new Worker(new URL('./llava-gemma-worker.js', import.meta.url), { type: 'module' })
      : new Worker(url, { type: 'module' });
  const waiting = new Map<number, Waiting>();
  let calls = 0;

  worker.addEventListener('message', ({ data }: MessageEvent<FromWorker>) => {
    const call = waiting.get(data.id);
    if (!call) return;
    if ('event' in data) return call.tell(data.event);
    waiting.delete(data.id);
    if ('error' in data) call.reject(revived(data.error));
    else call.resolve(data.result);
  });
  let ended: Error | undefined;
  const failAll = (error: Error) => {
    ended ??= error;
    for (const call of waiting.values()) call.reject(error);
    waiting.clear();
  };
  worker.addEventListener('error', ({ message }) =>
    failAll(new UserError(`the model's worker has died: ${message ?? 'it could not be loaded'}`)),
  );

  function ask<N extends CallName>(
    call: N,
    request: Calls[N]['request'],
    tell: (event: Calls[N]['event']) => void = () => {},
    signal?: AbortSignal,
  ): Promise<Calls[N]['result']> {
    signal?.throwIfAborted();
    // nobody would answer
    if (ended) return Promise.reject(ended);
    const id = ++calls;
    const abort = () => worker.postMessage({ id, call: 'abort' });
    signal?.addEventListener('abort', abort);
    return new Promise<Calls[N]['result']>((resolve, reject) => {
      waiting.set(id, {
        tell: tell as Waiting['tell'],
        resolve: resolve as Waiting['resolve'],
        reject: (error) => reject(signal?.aborted ? signal.reason : error),
      });
      worker.postMessage({ id, call, request });
    }).finally(() => signal?.removeEventListener('abort', abort));
  }

  return {
    async load(origin, { onProgress, signal, runtime, ...options } = {}) {
      const absolute = (url: string | URL) => new URL(url, location.href).href;
      const from = typeof origin === 'string' || origin instanceof URL ? absolute(origin) : origin;
      const request = { ...options, origin: from, ...(runtime === undefined ? {} : { runtime: absolute(runtime) }) };
      return ask('load', request, ({ done, total }) => onProgress?.(done, total), signal);
    },
    answer: async ({ turns, images = [] }, { onPiece, signal, ...options } = {}) =>
      ask('answer', { ...options, turns, images }, onPiece, signal),
    train: async (examples, { onStep, signal, ...options }) => ask('train', { ...options, examples }, onStep, signal),
    files: () => ask('files', undefined),
    zip: (name) => ask('zip', name),
    close() {
      worker.terminate();
      failAll(new UserError('the model was closed'));
    },
  };
}

function revived({ name, message }: { name: string; message: string }): Error {
  if (name === 'UserError') return new UserError(message);
  return Object.assign(new Error(message), { name });
}
