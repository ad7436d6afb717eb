// A model in a process of its own, which is started when the model is asked and ended when its memory is
// wanted for another. When it dies, whoever was being answered is told so, those in the queue wait on, and it
// is started again.

import { type ChildProcess, fork } from 'node:child_process';
import { statSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { UserError } from '../errors.ts';
import type { AnswerPiece, BatchAnswer } from '../generate/batch-session.ts';
import type { Ask, ExplainAsk, ModelDetails, ModelState, ServedModel } from './ask.ts';
import { ApiError } from './errors.ts';
import type { Failure, FromWorker, ToWorker, WorkerOptions, WorkerReport } from './messages.ts';
import type { ModelPool, Resident } from './model-pool.ts';

export interface ModelProcessOptions extends WorkerOptions {
  id: string;
  /** Requests that may wait. */
  queue: number;
  /** Where there is room for the process. */
  pool: ModelPool;
  /** Told when the process has died. */
  onDeath?(id: string): void;
  /** Told what the process says of itself; `undefined` when it is gone. */
  onReport?(report: WorkerReport | undefined): void;
}

export interface ModelProcess extends ServedModel {
  /** Loads the model; the UserError says why it cannot be. */
  start(): Promise<void>;
  /** Ends the process, whatever it is doing. */
  stop(): Promise<void>;
  /** Of the process, while there is one. */
  readonly pid: number | undefined;
}

/** What a request wants. */
type Work = { type: 'ask'; ask: Ask } | { type: 'explain'; ask: ExplainAsk };

interface Waiting {
  work: Work;
  onPiece(piece: AnswerPiece): void;
  resolve(answer: BatchAnswer | object): void;
  reject(error: Error): void;
}

/** Milliseconds before a process that has died is started again: after each further death the double. */
const PAUSE = 100;
const LONGEST_PAUSE = 10_000;
/** A process that has lived so long has not died of its start. */
const STABLE = 10_000;
/** Deaths, none of which it was ready before, after which nobody is kept waiting. */
const MOST_DEATHS = 3;

/** Node 20 runs no TypeScript: tests start what was built. */
const workerFile = fileURLToPath(new URL(import.meta.url.endsWith('.ts') ? '../../dist/serve/worker.js' : './worker.js', import.meta.url));

const STARTLESS = 'the process of the model ends again and again while it is being loaded';
const DIED = 'the process of the model has ended unexpectedly and is being started again; try again';

function errorOf(failure: Failure, message: string): ApiError {
  if (failure === 'internal') return new ApiError(500, 'the model failed while it answered', { code: 'internal_error' });
  if (failure === 'length') return new ApiError(400, message, { param: 'messages', code: 'context_length_exceeded' });
  if (failure === 'image') return new ApiError(400, `Invalid image: ${message}`, { param: 'messages', code: 'invalid_image' });
  return new ApiError(400, message, { param: 'messages', code: 'invalid_value' });
}

export function createModelProcess(options: ModelProcessOptions): ModelProcess {
  const { id, queue, pool, onDeath, onReport, ...work } = options;
  const created = Math.floor(statSync(join(work.folder, 'config.json')).mtimeMs / 1000);
  let child: ChildProcess | undefined;
  let state: ModelState = 'idle';
  let details: ModelDetails | undefined;
  let loading: Promise<void> | undefined;
  let pause = PAUSE;
  let restart: NodeJS.Timeout | undefined;
  let isDown = false;
  /** Since it was ready. */
  let deaths = 0;
  let isStopped = false;
  let requests = 0;
  const running = new Map<number, Waiting>();
  const waiting: Waiting[] = [];
  /** While its memory is wanted: who is answered before, and what is told when nobody is left. */
  let leaving: { owed: Set<Waiting>; onEmpty(): void } | undefined;

  const tell = (message: ToWorker) => child?.send(message, () => {});

  /** Hands over what waits, one request more than can be answered for each two that can. */
  function handOver(): void {
    const ahead = work.parallel + Math.ceil(work.parallel / 2);
    const isServed = (who: Waiting | undefined) => who !== undefined && (!leaving || leaving.owed.has(who));
    while (state === 'ready' && running.size < ahead && isServed(waiting[0])) {
      const next = waiting.shift()!;
      const number = ++requests;
      running.set(number, next);
      tell({ ...next.work, id: number });
    }
    if (leaving && running.size === 0 && !isServed(waiting[0])) leaving.onEmpty();
  }

  function finish(number: number, how: (who: Waiting) => void): void {
    const who = running.get(number);
    if (!who) return;
    running.delete(number);
    how(who);
    handOver();
  }

  function hear(message: FromWorker): void {
    if (message.type === 'piece') running.get(message.id)?.onPiece(message.piece);
    else if (message.type === 'done') finish(message.id, ({ resolve }) => resolve(message.answer));
    else if (message.type === 'explained') finish(message.id, ({ resolve }) => resolve(message.explanation));
    else if (message.type === 'failed') finish(message.id, ({ reject }) => reject(errorOf(message.failure, message.message)));
    else if (message.type === 'report') onReport?.(message);
  }

  /** Starts the process; settles when the model is loaded or cannot be. */
  function launch(): Promise<void> {
    const started = performance.now();
    const process = fork(workerFile, [], { serialization: 'advanced', stdio: ['ignore', 'ignore', 'inherit', 'ipc'], execArgv: [] });
    child = process;
    const loaded = new Promise<void>((resolve, reject) => {
      process.on('message', (messages: FromWorker[]) => {
        if (child !== process) return;
        for (const message of messages) {
          if (message.type === 'ready') {
            state = 'ready';
            isDown = false;
            deaths = 0;
            details = message.details;
            resolve();
            handOver();
          } else if (message.type === 'unloadable') {
            reject(message.isUser ? new UserError(message.message) : new Error(message.message));
            fail(new ApiError(503, 'the model cannot be loaded', { code: 'model_unavailable' }));
          } else hear(message);
        }
      });
      const end = (error: Error) => {
        reject(error);
        if (child === process) died(performance.now() - started);
      };
      // one that cannot be started has no exit
      process.on('error', (error) => process.pid === undefined && end(error));
      process.on('exit', () => end(new Error('the process of the model ended while it was being loaded')));
    });
    tell({ type: 'load', options: work });
    return loaded;
  }

  function died(lived: number): void {
    child = undefined;
    onReport?.(undefined);
    endRunning(new ApiError(503, DIED, { code: 'worker_died', retryAfter: 1 }));
    if (isStopped || state === 'failed') return;
    onDeath?.(id);
    state = 'loading';
    isDown = true;
    const error = ++deaths < MOST_DEATHS ? undefined : new ApiError(503, STARTLESS, { code: 'model_unavailable', retryAfter: 10 });
    if (error && !details) {
      fail(error);
      return;
    }
    if (error) refuse(error);
    pause = lived > STABLE ? PAUSE : Math.min(pause * 2, LONGEST_PAUSE);
    restart = setTimeout(() => launch().catch(() => {}), pause).unref();
  }

  function endRunning(error: ApiError): void {
    const lost = [...running.values()];
    running.clear();
    for (const { reject } of lost) reject(error);
  }

  /** Nobody waits any more. */
  function refuse(error: ApiError): void {
    for (const { reject } of waiting.splice(0)) reject(error);
    handOver();
  }

  /** The model cannot be loaded. */
  function fail(error: ApiError): void {
    state = 'failed';
    child?.kill('SIGKILL');
    pool.leave(resident);
    refuse(error);
  }

  /** Waits for room, and starts the process. */
  async function enter(): Promise<void> {
    await pool.enter(resident);
    if (!isStopped) await launch();
  }

  function start(): Promise<void> {
    if (!loading) {
      state = 'loading';
      loading = enter();
    }
    return loading;
  }

  const resident: Resident = {
    get isBusy() {
      return state === 'loading' || running.size > 0 || waiting.length > 0;
    },
    async vacate() {
      await loading?.catch(() => {});
      await new Promise<void>((resolve) => {
        leaving = { owed: new Set(waiting), onEmpty: resolve };
        handOver();
      });
      leaving = undefined;
      if (state === 'failed' || isStopped) return;
      state = 'idle';
      isDown = false;
      loading = undefined;
      await end();
      if (waiting.length > 0) start().catch(() => {});
    },
  };

  /** Ends the process, whatever it is doing: that is no death. */
  async function end(): Promise<void> {
    clearTimeout(restart);
    const process = child;
    if (!process) return;
    child = undefined;
    onReport?.(undefined);
    const gone = new Promise((resolve) => process.once('exit', resolve));
    process.kill('SIGKILL');
    await gone;
  }

  function request(work: Work, onPiece: (piece: AnswerPiece) => void, signal: AbortSignal): Promise<BatchAnswer | object> {
    if (state === 'failed') throw new ApiError(503, 'the model cannot be loaded', { code: 'model_unavailable' });
    if (waiting.length >= queue)
      throw new ApiError(429, `too many requests: ${waiting.length} wait already; try again later`, { code: 'queue_full', retryAfter: 1 });
    signal.throwIfAborted();
    start().catch(() => {});
    pool.touch(resident);
    let onAbort = () => {};
    const answered = new Promise<BatchAnswer | object>((resolve, reject) => {
      const own: Waiting = { work, onPiece, resolve, reject };
      onAbort = () => cancel(own, signal.reason);
      signal.addEventListener('abort', onAbort);
      waiting.push(own);
      handOver();
    });
    return answered.finally(() => signal.removeEventListener('abort', onAbort));
  }

  function cancel(own: Waiting, reason: unknown): void {
    own.reject(reason as Error);
    const at = waiting.indexOf(own);
    if (at >= 0) waiting.splice(at, 1);
    if (leaving) handOver();
    for (const [number, who] of running)
      if (who === own) {
        tell({ type: 'cancel', id: number });
        finish(number, () => {});
      }
  }

  return {
    id,
    created,
    quantize: work.quantize,
    get isDown() {
      return isDown;
    },
    get state() {
      return state;
    },
    get details() {
      return details;
    },
    get load() {
      return { running: Math.min(running.size, work.parallel), waiting: waiting.length + Math.max(0, running.size - work.parallel) };
    },
    get pid() {
      return child?.pid;
    },
    start,
    answer: async (ask, onPiece, signal) => request({ type: 'ask', ask }, onPiece, signal) as Promise<BatchAnswer>,
    explain: async (ask, signal) => request({ type: 'explain', ask }, () => {}, signal),
    async stop() {
      isStopped = true;
      const error = new ApiError(503, 'the server is shutting down', { code: 'shutting_down', retryAfter: 5 });
      for (const { reject } of waiting.splice(0)) reject(error);
      endRunning(error);
      handOver();
      await end();
    },
  };
}
