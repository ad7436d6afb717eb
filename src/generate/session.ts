// A loaded model that answers: turns and pictures go in, text comes out. How a prompt is laid out, where an
// answer ends, and how tokens become text is decided here and nowhere else: chat, evaluation and servers all
// ask a session.

import { concatFloat32 } from '../arrays.ts';
import { imageSize, imageTokenCount } from '../models/llava.ts';
import type { Turn } from '../text/chat.ts';
import { createTextStream } from '../text/stream.ts';
import type { Tokenizer } from '../text/tokenizer.ts';
import { type GenerationDefaults, greedySampling } from './defaults.ts';
import type { Prompt as EncodedPrompt, Generator, PrefixCache } from './generator.ts';
import { createBreather, MAX_NEW_TOKENS, promptIds, stopTokensOf } from './prompt.ts';
import type { Sampling } from './sampling.ts';

/** A picture as a session takes it: the path of a file, or a file's bytes. */
export type Picture = string | Uint8Array;

/**
 * What a session needs of a model; `loadModel` gives one. Decoding pictures is the model's part, so that a
 * session runs anywhere.
 */
export interface AnsweringModel {
  generator: Generator;
  tokenizer: Tokenizer;
  /** What its folder says of answering. */
  generation?: GenerationDefaults;
  /**
   * Pictures, encoded together, as rows for the language model: [imageTokens * hidden] each. UserError names
   * one that cannot be read.
   */
  imageRows(pictures: readonly Picture[]): Promise<Float32Array[]>;
  /** The same text for the same content, and another one for other content. */
  pictureKey(picture: Picture): Promise<string>;
}

/** A picture that a session has read. It stays what it was, whatever becomes of the file. */
export interface SeenPicture {
  /** [imageTokens * hidden]. */
  readonly rows: Float32Array;
}

export interface SessionPrompt {
  /**
   * Beginning and ending with a question. Pictures stand where the turns say `<image>`; where none does,
   * before the first question. Without pictures, `<image>` is text like any other.
   */
  turns: readonly Turn[];
  images?: readonly (Picture | SeenPicture)[];
}

export interface AnswerOptions {
  /** Longest answer in tokens. Default: 64. */
  maxNewTokens?: number;
  /** Greedy when absent, with the repetition penalty that the model's folder asks for. */
  sampling?: Sampling;
  /**
   * Ends the answer, or the wait for earlier ones, by throwing `signal.reason`. It is checked between tokens.
   */
  signal?: AbortSignal;
  /** Is told how an answer ended, before its last piece is given. */
  onEnd?(end: AnswerEnd): void;
}

/**
 * `length`: the longest answer that was allowed, or the end of the context. `tokens` are those of the
 * answer.
 */
export interface AnswerEnd {
  finish: 'stop' | 'length';
  promptTokens: number;
  tokens: number;
}

export interface AnswerAllOptions extends Omit<AnswerOptions, 'onEnd'> {
  /** Prompts that are answered at a time. Default: 64. */
  batchSize?: number;
  onProgress?(done: number, total: number): void;
  /** Called with the answers of each batch, as they come: in the order of their prompts' lengths. */
  onAnswers?(answers: readonly NumberedAnswer[]): void;
}

/** The answer to one of many prompts. */
export interface NumberedAnswer {
  /** Which of the prompts. */
  index: number;
  text: string;
  /** Tokens of the prompt, those of its pictures included, and of the answer. */
  promptTokens: number;
  tokens: number;
}

/**
 * Answers one prompt at a time: calls that overlap wait for each other in the order in which they came. What
 * was read for one prompt is not read again for the next that begins alike, such as the same conversation
 * with one question more.
 */
export interface Session {
  /** Positions of the language model: prompt and answer together have no more. */
  readonly contextLength: number;
  /** Tokens of a prompt, those of its pictures included. */
  promptTokens(prompt: SessionPrompt): number;
  /** Reads pictures ahead of the prompts that show them. */
  look(pictures: readonly Picture[]): Promise<SeenPicture[]>;
  /** A picture of the mean color, which shows nothing. */
  blankPicture(): Promise<SeenPicture>;
  /**
   * The answer, piece by piece while it is generated; a piece is one token's text or more. Generation begins
   * with the first piece that is asked for, and stops when the consumer leaves the loop. UserError for a
   * prompt that does not fit its pictures or the context.
   */
  generate(prompt: SessionPrompt, options?: AnswerOptions): AsyncGenerator<string, void, undefined>;
  /**
   * The whole answers to many prompts, in their order and without surrounding white space, computed in
   * batches.
   */
  answerAll(prompts: readonly SessionPrompt[], options?: AnswerAllOptions): Promise<string[]>;
}

export interface SessionOptions {
  /** Pictures whose rows are kept, in case they are shown again. Default: 16. */
  picturesKept?: number;
}

/** Prompts answered together, and pictures encoded together. */
const BATCH = 64;
const ENCODED_TOGETHER = 32;

const isSeen = (image: Picture | SeenPicture): image is SeenPicture => typeof image === 'object' && 'rows' in image;

/** A session with `model`, which may serve several. */
export function createSession(model: AnsweringModel, { picturesKept = 16 }: SessionOptions = {}): Session {
  const { generator, tokenizer } = model;
  const { config } = generator;
  const imageTokens = imageTokenCount(config);
  const stopTokenIds = stopTokensOf(tokenizer, model.generation);
  const greedy = greedySampling(model.generation?.repetitionPenalty);
  const turn = createQueue();
  const prefix: PrefixCache = {};
  const pictures = createPictureCache(model, picturesKept);

  const idsOf = ({ turns, images = [] }: SessionPrompt) => promptIds(tokenizer, turns, images.length, imageTokens);

  const encode = (inputIds: number[], seen: readonly SeenPicture[]): EncodedPrompt => ({
    inputIds,
    imageRows: seen.length > 0 ? concatFloat32(seen.map(({ rows }) => rows)) : undefined,
  });

  /** Generates one answer, piece by piece. */
  async function answer(
    inputIds: number[],
    images: readonly (Picture | SeenPicture)[],
    push: (piece: string) => void,
    { maxNewTokens = MAX_NEW_TOKENS, sampling = greedy, signal, onEnd }: AnswerOptions,
  ) {
    const prompt = encode(inputIds, await pictures.look(images, 1));
    signal?.throwIfAborted();
    const stream = createTextStream(tokenizer, { skipSpecialTokens: true });
    const breathe = createBreather(signal);
    const options = {
      prefix,
      maxNewTokens,
      stopTokenIds,
      sampling,
      signal,
      onToken: (_row: number, token: number) => {
        push(stream.push(token));
        return breathe();
      },
    };
    const [{ length: tokens }] = await generator.generate([prompt], options);
    const isCut = tokens === maxNewTokens || inputIds.length + tokens === config.text_config.max_position_embeddings;
    onEnd?.({ finish: isCut ? 'length' : 'stop', promptTokens: inputIds.length, tokens });
    push(stream.end());
  }

  async function* generate(prompt: SessionPrompt, options: AnswerOptions = {}): AsyncGenerator<string, void, undefined> {
    const inputIds = idsOf(prompt);
    yield* streamed(
      (push, signal) => turn(() => answer(inputIds, prompt.images ?? [], push, { ...options, signal }), signal),
      options.signal,
    );
  }

  async function answerAll(prompts: readonly SessionPrompt[], options: AnswerAllOptions = {}): Promise<string[]> {
    const { batchSize = BATCH, maxNewTokens = MAX_NEW_TOKENS, sampling = greedy, signal, onProgress, onAnswers } = options;
    const ids = prompts.map(idsOf);
    const seen = await turn(() => pictures.lookAll(prompts, signal), signal);
    const answers = new Array<string>(prompts.length);
    // neighbors in length share a batch: little padding
    const order = [...prompts.keys()].sort((a, b) => ids[a].length - ids[b].length || a - b);
    const work = { maxNewTokens, stopTokenIds, sampling, signal, onToken: createBreather(signal) };
    for (let start = 0; start < order.length; start += batchSize) {
      signal?.throwIfAborted();
      const batch = order.slice(start, start + batchSize);
      const encoded = batch.map((i) => encode(ids[i], seen[i]));
      const rows = await turn(() => generator.generate(encoded, work), signal);
      const numbered = batch.map((index, row): NumberedAnswer => {
        const text = tokenizer.decode(rows[row], { skipSpecialTokens: true }).trim();
        return { index, text, promptTokens: ids[index].length, tokens: rows[row].length };
      });
      for (const { index, text } of numbered) answers[index] = text;
      onAnswers?.(numbered);
      onProgress?.(start + batch.length, order.length);
    }
    return answers;
  }

  return {
    contextLength: config.text_config.max_position_embeddings,
    promptTokens: (prompt) => idsOf(prompt).length,
    look: (shown) => turn(() => pictures.look(shown, 1)),
    blankPicture: () =>
      turn(async () => {
        // pixel values of zero: the mean color everywhere
        const blank = new Float32Array(3 * imageSize(config) ** 2);
        return { rows: await generator.imageRows(await generator.imageFeatures(blank)) };
      }),
    generate,
    answerAll,
  };
}

/**
 * Runs one piece of work at a time, in order. A wait that `signal` ends throws its reason, and the work is
 * never begun.
 */
function createQueue(): <T>(work: () => Promise<T>, signal?: AbortSignal) => Promise<T> {
  let last: Promise<unknown> = Promise.resolve();
  return (work, signal) => {
    const before = last;
    const result = (async () => {
      await settledOrAborted(before, signal);
      signal?.throwIfAborted();
      return work();
    })();
    // whoever comes next waits for both: this work may have left the queue early
    last = Promise.allSettled([before, result]).then(() => {});
    return result;
  };
}

async function settledOrAborted(promise: Promise<unknown>, signal: AbortSignal | undefined): Promise<void> {
  if (!signal) return void (await promise);
  signal.throwIfAborted();
  let onAbort = () => {};
  const aborted = new Promise<void>((resolve) => {
    onAbort = resolve;
  });
  signal.addEventListener('abort', onAbort);
  await Promise.race([promise, aborted]);
  signal.removeEventListener('abort', onAbort);
}

/**
 * Text that `work` pushes, as an AsyncGenerator. The signal that `work` gets aborts with `outer`, and when
 * the consumer leaves. What is not yet asked for waits: answers are short.
 */
async function* streamed(
  work: (push: (piece: string) => void, signal: AbortSignal) => Promise<void>,
  outer: AbortSignal | undefined,
): AsyncGenerator<string, void, undefined> {
  const stopping = new AbortController();
  const stop = () => stopping.abort(outer?.reason);
  if (outer?.aborted) stop();
  outer?.addEventListener('abort', stop);

  const waiting: string[] = [];
  let hasEnded = false;
  let wake = () => {};
  const push = (piece: string) => {
    if (piece !== '') waiting.push(piece);
    wake();
  };
  const running = work(push, stopping.signal).finally(() => {
    hasEnded = true;
    wake();
  });
  running.catch(() => {});
  try {
    while (!hasEnded || waiting.length > 0) {
      outer?.throwIfAborted();
      if (waiting.length > 0) yield waiting.shift()!;
      else
        await new Promise<void>((resolve) => {
          wake = resolve;
        });
    }
    await running;
  } finally {
    outer?.removeEventListener('abort', stop);
    stopping.abort();
    // nothing goes on after the consumer has left: it may dispose of the model
    await running.catch(() => {});
  }
}

/** Rows of the pictures that were shown last; equal ones are encoded once. */
function createPictureCache(model: AnsweringModel, kept: number) {
  /** By key, the least recently shown first. */
  const known = new Map<string, SeenPicture>();

  /** Rows of all images, `together` of them encoded at a time. */
  async function look(images: readonly (Picture | SeenPicture)[], together: number, signal?: AbortSignal): Promise<SeenPicture[]> {
    const keys = await Promise.all(images.map((image) => (isSeen(image) ? undefined : model.pictureKey(image))));
    const found = new Map<string, SeenPicture>();
    const missing = new Map<string, Picture>();
    images.forEach((image, i) => {
      const key = keys[i];
      if (isSeen(image) || key === undefined) return;
      const picture = known.get(key);
      if (picture) found.set(key, picture);
      else missing.set(key, image);
    });
    const queue = [...missing];
    for (let start = 0; start < queue.length; start += together) {
      signal?.throwIfAborted();
      const batch = queue.slice(start, start + together);
      const rows = await model.imageRows(batch.map(([, picture]) => picture));
      batch.forEach(([key], i) => {
        found.set(key, { rows: rows[i] });
      });
    }
    for (const [key, picture] of found) {
      known.delete(key);
      known.set(key, picture);
    }
    for (const key of [...known.keys()].slice(0, Math.max(0, known.size - kept))) known.delete(key);
    return images.map((image, i) => (isSeen(image) ? image : found.get(keys[i]!)!));
  }

  return {
    look,
    /** The pictures of many prompts. */
    async lookAll(prompts: readonly SessionPrompt[], signal?: AbortSignal): Promise<SeenPicture[][]> {
      const shown = prompts.flatMap(({ images = [] }) => images);
      const seen = await look(shown, ENCODED_TOGETHER, signal);
      let at = 0;
      return prompts.map(({ images = [] }) => {
        at += images.length;
        return seen.slice(at - images.length, at);
      });
    },
  };
}
