// How a prompt is laid out and where an answer ends: the same for one answer at a time and for many.

import { UserError } from '../errors.ts';
import { encodePrompt, imagePlaces, type Turn, withImages } from '../text/chat.ts';
import type { Tokenizer } from '../text/tokenizer.ts';
import type { GenerationDefaults } from './defaults.ts';

/** Longest answer in tokens where nobody says another. */
export const MAX_NEW_TOKENS = 64;
/** Milliseconds of generating after which the event loop gets a turn. */
const PATIENCE = 10;

/**
 * The ids of a prompt that shows so many pictures of `imageTokens` rows each. UserError where the turns have
 * places for another number of them.
 */
export function promptIds(tokenizer: Tokenizer, turns: readonly Turn[], pictures: number, imageTokens: number): number[] {
  if (pictures === 0) return encodePrompt(tokenizer, turns, 0);
  const places = imagePlaces(turns);
  const placed = places === 0 ? withImages(turns, pictures) : turns;
  if (places > 0 && places !== pictures)
    throw new UserError(`the turns have ${places} <image> tokens, but the prompt has ${pictures} pictures`);
  return encodePrompt(tokenizer, placed, imageTokens);
}

/** Tokens that end an answer. */
export function stopTokensOf(tokenizer: Tokenizer, generation?: GenerationDefaults): number[] {
  return [tokenizer.endOfTurnTokenId, tokenizer.eosTokenId, ...(generation?.stopTokenIds ?? [])];
}

/** Gives the event loop a turn: an engine may block it while it runs. */
export function takeBreath(): Promise<void> {
  return new Promise<void>((resolve) => {
    // browsers have no setImmediate; their setTimeout does, if more slowly
    if (typeof setImmediate === 'function') setImmediate(resolve);
    else setTimeout(resolve);
  });
}

/**
 * To be called between tokens: throws the reason of a `signal` that has aborted. An engine may block the
 * event loop while it runs, so every few milliseconds the loop gets a turn, in which sockets, timers and
 * Ctrl-C are seen.
 */
export function createBreather(signal: AbortSignal | undefined): () => Promise<void> {
  let breathedAt = performance.now();
  return async () => {
    if (performance.now() - breathedAt > PATIENCE) {
      await takeBreath();
      breathedAt = performance.now();
    }
    signal?.throwIfAborted();
  };
}
