// A loaded model that answers many at a time: prompts that overlap share a batch which each joins and leaves
// by itself. Under greedy decoding the answers are those of a session that answers one after the other.

import { imageTokenCount } from '../models/llava.ts';
import type { Turn } from '../text/chat.ts';
import { createStopFilter } from '../text/stop-strings.ts';
import { createTextStream } from '../text/stream.ts';
import type { Tokenizer } from '../text/tokenizer.ts';
import { createBatchScheduler, type RowAnswer } from './batch-scheduler.ts';
import { greedySampling } from './defaults.ts';
import type { ChosenLogprob, TokenLogprob } from './logprobs.ts';
import { createPictureReader } from './picture-reader.ts';
import { MAX_NEW_TOKENS, promptIds, stopTokensOf, takeBreath } from './prompt.ts';
import type { Sampling } from './sampling.ts';
import type { AnsweringModel, Picture } from './session.ts';

export interface BatchPrompt {
  /** As for a session: beginning and ending with a question, with `<image>` where pictures stand. */
  turns: readonly Turn[];
  images?: readonly Picture[];
}

export interface BatchAnswerOptions {
  /** Longest answer in tokens. Default: 64. */
  maxNewTokens?: number;
  /** Greedy when absent, with the repetition penalty that the model's folder asks for. */
  sampling?: Sampling;
  /** Texts that end the answer and are not part of it. */
  stop?: readonly string[];
  /** Gives the log-probability of each token, beside so many of the likeliest. */
  logprobs?: number;
  /** Ends the answer, or the wait for it, with its reason. */
  signal?: AbortSignal;
}

/** A token with its log-probability, and its text. */
export interface TextLogprob {
  text: string;
  /** UTF-8; of a character that is spread over tokens, this token's part. */
  bytes: number[];
  logprob: number;
}

export interface AnswerPiece {
  text: string;
  /** Tokens that end in this piece, if they were asked for. */
  logprobs?: (TextLogprob & { top: TextLogprob[] })[];
}

export interface BatchAnswer {
  finish: RowAnswer['finish'];
  promptTokens: number;
  /** Of the prompt's tokens, those that had been read for an earlier one. */
  cachedTokens: number;
  tokens: number;
}

export interface BatchSession {
  /** Positions of the language model: prompt and answer together have no more. */
  readonly contextLength: number;
  /** Tokens of a prompt, those of its pictures included. */
  promptTokens(prompt: BatchPrompt): number;
  /**
   * Answers, piece by piece as tokens come. UserError for a picture that cannot be read, or a prompt that
   * does not fit its pictures or the context.
   */
  answer(prompt: BatchPrompt, options: BatchAnswerOptions, onPiece: (piece: AnswerPiece) => void): Promise<BatchAnswer>;
  /** Prompts that are being answered and that wait, and bytes kept of earlier ones. */
  readonly load: { running: number; waiting: number; prefixBytes: number };
}

export interface BatchSessionOptions {
  /** Prompts that are answered at a time. Default: 8. */
  slots?: number;
  /** Memory for what was read for earlier prompts, in bytes. Default: 256 MiB. */
  prefixBytes?: number;
  /** Pictures whose rows are kept, in case they are shown again. Default: 32. */
  picturesKept?: number;
}

export function createBatchSession(model: AnsweringModel, options: BatchSessionOptions = {}): BatchSession {
  const { slots = 8, prefixBytes = 2 ** 28, picturesKept = 32 } = options;
  const { generator, tokenizer } = model;
  const { config } = generator;
  const imageTokens = imageTokenCount(config);
  const stopTokenIds = stopTokensOf(tokenizer, model.generation);
  const greedy = greedySampling(model.generation?.repetitionPenalty);
  const scheduler = createBatchScheduler(generator, { slots, prefixBytes, breathe: takeBreath });
  const pictures = createPictureReader(model, picturesKept);

  let tickets = 0;

  const idsOf = ({ turns, images = [] }: BatchPrompt) => promptIds(tokenizer, turns, images.length, imageTokens);

  return {
    contextLength: config.text_config.max_position_embeddings,
    promptTokens: (prompt) => idsOf(prompt).length,
    async answer(prompt, { maxNewTokens = MAX_NEW_TOKENS, sampling = greedy, stop = [], logprobs, signal }, onPiece) {
      // pictures take their time: whoever came first is first all the same
      const ticket = tickets++;
      const inputIds = idsOf(prompt);
      const shown = await Promise.all((prompt.images ?? []).map((image) => pictures.read(image)));
      const pieces = createPieces(tokenizer, stop, onPiece);
      const { tokens, finish, cachedTokens } = await scheduler.answer({
        ticket,
        inputIds,
        pictures: shown,
        maxNewTokens,
        stopTokenIds,
        sampling,
        logprobs,
        signal,
        onToken: pieces.push,
      });
      pieces.end();
      return { finish, promptTokens: inputIds.length, cachedTokens, tokens: tokens.length };
    },
    get load() {
      return scheduler.load;
    },
  };
}

/** Turns tokens into pieces of text: whole characters, up to the first stop string. */
function createPieces(tokenizer: Tokenizer, stop: readonly string[], onPiece: (piece: AnswerPiece) => void) {
  const stream = createTextStream(tokenizer, { skipSpecialTokens: true });
  const filter = createStopFilter(stop);
  /** Tokens whose text is not out yet, with where in the whole text it begins. */
  let held: { at: number; logprob: ChosenLogprob }[] = [];
  let [made, given] = [0, 0];

  function give(text: string, isLast: boolean): void {
    given += text.length;
    // what a stop string has cut off is not part of the answer
    const out = held.filter(({ at }) => at < given || (isLast && !filter.found));
    held = held.filter((each) => !out.includes(each));
    if (text === '' && out.length === 0) return;
    onPiece({ text, ...(out.length > 0 ? { logprobs: out.map(({ logprob }) => described(tokenizer, logprob)) } : {}) });
  }

  return {
    push(token: number, logprob?: ChosenLogprob): boolean {
      if (logprob) held.push({ at: made, logprob });
      const text = stream.push(token);
      made += text.length;
      give(filter.push(text), false);
      return filter.found;
    },
    end(): void {
      if (filter.found) return;
      const rest = filter.push(stream.end());
      give(rest + filter.end(), true);
    },
  };
}

function described(tokenizer: Tokenizer, { top, ...chosen }: ChosenLogprob) {
  const of = ({ token, logprob }: TokenLogprob): TextLogprob => ({ ...tokenText(tokenizer, token), logprob });
  return { ...of(chosen), top: top.map(of) };
}

function tokenText(tokenizer: Tokenizer, id: number): Omit<TextLogprob, 'logprob'> {
  const token = tokenizer.token(id);
  const byte = /^<0x([0-9A-F]{2})>$/.exec(token);
  if (byte) {
    const value = Number.parseInt(byte[1], 16);
    return { text: value < 128 ? String.fromCharCode(value) : '\uFFFD', bytes: [value] };
  }
  const text = tokenizer.isSpecial(id) ? token : token.replaceAll('▁', ' ');
  return { text, bytes: [...new TextEncoder().encode(text)] };
}
