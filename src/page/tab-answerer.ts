// The tab as the one who answers: a model of the server, whose files are fetched into a worker of the page.
// There it can be trained too.

import { type ClientLoadOptions, type ModelWorker, openWorker } from '../browser/client.ts';
import type { AnswerEvent, Answerer, ModelInfo, Question, ServerAnswerer } from './answerer.ts';
import { Problem, sentence } from './problems.ts';

/** A picture, and the answer that is to be learnt to a question about it. */
export interface Lesson {
  picture: Blob;
  question: string;
  answer: string;
}

export interface LearningStep {
  /** From 1. */
  step: number;
  steps: number;
  /** Nats per token. */
  loss: number;
}

export interface Learning {
  steps: number;
  onStep(step: LearningStep): void;
  /** Ends it after a step; what was learnt stays. */
  signal: AbortSignal;
}

/** All throw a Problem where they cannot. */
export interface TabAnswerer extends Answerer {
  /** Settles when a model is loaded, in place of the one before; at once where it is there. */
  load(model: string): Promise<void>;
  /** Teaches the connector of the model that is loaded. */
  train(lessons: readonly Lesson[], learning: Learning): Promise<void>;
  /** What the model that is loaded says by now, at its likeliest. */
  recite(asked: Pick<Lesson, 'picture' | 'question'>, signal: AbortSignal): Promise<string>;
  /** The model as it is now, its folder in a zip file. */
  download(): Promise<Blob>;
  /** Ends the worker: gives all memory back, and forgets what was learnt. */
  close(): void;
}

/** As in docs/browser.md: few pictures, a quick success. */
const BATCH = 8;
const LEARNING_RATE = 3e-3;
/** Tokens of an answer that is recited, at most. */
const RECITED = 16;
/** Milliseconds between measurements of memory: the browser collects garbage for each. */
const MEMORY_PAUSE = 10_000;
/** Milliseconds that the server has to say which models there are. */
const PATIENCE = 10_000;

interface Current {
  id: string;
  worker: ModelWorker;
  state: ModelInfo['state'];
  progress: number;
  ready: Promise<void>;
}

/** What a browser that is isolated tells of a page and its workers. */
interface Measuring {
  measureUserAgentSpecificMemory?(): Promise<{ bytes: number }>;
}

const bytesOf = async (picture: Blob) => new Uint8Array(await picture.arrayBuffer());

export function createTabAnswerer(server: ServerAnswerer): TabAnswerer {
  let known: readonly ModelInfo[] = [];
  let current: Current | undefined;
  let memory: number | undefined;
  let measuredAt = Number.NEGATIVE_INFINITY;

  function close(): void {
    current?.worker.close();
    current = undefined;
    memory = undefined;
  }

  /** Of `work` of a model: what a person can mend, as a sentence. */
  async function saying<T>(work: () => Promise<T>): Promise<T> {
    const whose = current;
    try {
      return await work();
    } catch (error) {
      if (!(error instanceof Error) || error.name !== 'UserError') throw error;
      // a dead worker never answers, and a lost device takes the weights along: the next question loads them
      // again
      if (/worker has died|WebGPU device was lost/.test(error.message) && current === whose) close();
      throw new Problem('other', sentence(error.message));
    }
  }

  async function listed(signal = AbortSignal.timeout(PATIENCE)): Promise<readonly ModelInfo[]> {
    known = (await server.models(signal)).filter(({ files }) => files !== undefined);
    return known;
  }

  /** What is loaded, packed as on the server: so it answers as there. */
  async function whatToLoad(id: string): Promise<Pick<ClientLoadOptions, 'files' | 'quantize'>> {
    const model = (await listed()).find((model) => model.id === id);
    if (!model?.files) throw new Problem('other', 'This model cannot run in the tab. Choose another one, or the server.');
    return { files: model.files, quantize: model.quantize };
  }

  function load(id: string): Promise<void> {
    if (current?.id === id && current.state !== 'failed') return current.ready;
    close();
    const own: Current = { id, worker: openWorker(), state: 'loading', progress: 0, ready: Promise.resolve() };
    const onProgress = (done: number, total: number) => {
      own.progress = done / total;
    };
    const read = async () => {
      const options = { ...(await whatToLoad(id)), headers: server.credentials(), runtime: '/onnxruntime/', onProgress };
      await own.worker.load(`/models/${encodeURIComponent(id)}/`, options);
    };
    own.ready = saying(read).then(
      () => {
        own.state = 'ready';
      },
      (error: unknown) => {
        own.state = 'failed';
        // another model, or none, is wanted by now
        if (current === own || !(error instanceof Problem)) throw error;
      },
    );
    own.ready.catch(() => {});
    current = own;
    return own.ready;
  }

  /** The worker of a model that is loaded. */
  function worker(): ModelWorker {
    if (current?.state !== 'ready') throw new Problem('other', 'The model is not loaded yet. Try again in a moment.');
    return current.worker;
  }

  async function* answer({ model, messages, picture, settings }: Question, signal: AbortSignal): AsyncGenerator<AnswerEvent> {
    await orAborted(load(model), signal);
    const turns = messages.map(({ role, text }) => ({ from: role === 'user' ? ('human' as const) : ('gpt' as const), value: text }));
    const images = picture ? [await bytesOf(picture)] : [];
    const { maxTokens: maxNewTokens, ...sampling } = settings;
    const pieces: string[] = [];
    let isOver = false;
    let wake = () => {};
    const onPiece = (text: string) => {
      pieces.push(text);
      wake();
    };
    const whole = saying(() => worker().answer({ turns, images }, { maxNewTokens, sampling, onPiece, signal })).finally(() => {
      isOver = true;
      wake();
    });
    // it is looked at below, when its pieces have been given
    whole.catch(() => {});
    for (;;) {
      for (const text of pieces.splice(0)) yield { type: 'text', text };
      if (isOver) break;
      await new Promise<void>((resolve) => {
        wake = resolve;
      });
    }
    const { finish, tokens } = await whole;
    yield { type: 'end', finish, tokens };
  }

  return {
    load,
    answer,
    close,
    async models(signal) {
      try {
        await listed(signal);
      } catch (error) {
        // a model that is here answers without the server
        if (!(error instanceof Problem && error.kind === 'away') || current?.state !== 'ready') throw error;
      }
      return known.map((model) => {
        const isHere = model.id === current?.id;
        return { ...model, state: isHere ? current!.state : 'idle', progress: isHere ? current!.progress : undefined };
      });
    },
    async memory() {
      const { measureUserAgentSpecificMemory } = performance as Measuring;
      if (measureUserAgentSpecificMemory && performance.now() - measuredAt > MEMORY_PAUSE) {
        measuredAt = performance.now();
        // it may take until the next collection of garbage
        measureUserAgentSpecificMemory.call(performance).then(
          ({ bytes }) => {
            memory = bytes;
          },
          () => {},
        );
      }
      return memory;
    },
    async recite({ picture, question }, signal) {
      const turns = [{ from: 'human' as const, value: question }];
      const images = [await bytesOf(picture)];
      let text = '';
      const onPiece = (piece: string) => {
        text += piece;
      };
      await saying(() => worker().answer({ turns, images }, { maxNewTokens: RECITED, sampling: { temperature: 0 }, onPiece, signal }));
      return text.trim();
    },
    async train(lessons, { steps, onStep, signal }) {
      const examples = await Promise.all(
        lessons.map(async ({ picture, question, answer }) => ({
          picture: await bytesOf(picture),
          turns: [
            { from: 'human' as const, value: question },
            { from: 'gpt' as const, value: answer },
          ],
        })),
      );
      const options = { steps, batchSize: Math.min(BATCH, examples.length), learningRate: LEARNING_RATE, onStep, signal };
      await saying(async () => worker().train(examples, options));
    },
    download: () => saying(async () => worker().zip(current!.id)),
  };
}

/** What `work` comes to, or what `signal` was aborted with before. */
function orAborted<T>(work: Promise<T>, signal: AbortSignal): Promise<T> {
  return new Promise((resolve, reject) => {
    const abort = () => reject(signal.reason);
    if (signal.aborted) abort();
    signal.addEventListener('abort', abort);
    work.then(resolve, reject).finally(() => signal.removeEventListener('abort', abort));
  });
}
