// Trouble with servers that may soon be over: a request is repeated after growing pauses, as long as the
// server asks for if it says so.

import { setTimeout as pause } from 'node:timers/promises';

/** Longest pause that a server may ask for, in seconds. */
const LONGEST_PAUSE = 120;

/** Trouble that may soon be over: trying again is worthwhile. */
export class TransientError extends Error {
  override name = 'TransientError';
  /** Seconds that the server asks to wait. */
  retryAfter: number;
  constructor(message: string, retryAfter = 0) {
    super(message);
    this.retryAfter = retryAfter;
  }
}

/** Whether a response with this status may be another one soon (RFC 9110; 429: RFC 6585). */
export const isTransientStatus = (status: number): boolean => status === 408 || status === 429 || status >= 500;

/** Seconds that a server asks to wait: `Retry-After` in seconds or as a date. */
export function retryAfterOf(headers: Headers): number {
  const text = headers.get('retry-after')?.trim() ?? '';
  const seconds = /^\d+(\.\d+)?$/.test(text) ? Number(text) : (Date.parse(text) - Date.now()) / 1000;
  return Number.isFinite(seconds) ? Math.min(Math.max(seconds, 0), LONGEST_PAUSE) : 0;
}

/** What went wrong below fetch, which itself only says "fetch failed": the error at the bottom. */
export function networkErrorOf(error: unknown): NodeJS.ErrnoException {
  let found = error as Error;
  while (found.cause instanceof Error) {
    const { cause } = found;
    // one error an address, where a name has several
    found = cause instanceof AggregateError ? (cause.errors[0] as Error) : cause;
  }
  return found;
}

export interface Persistence {
  /** Seconds to wait before each further try. */
  pauses: readonly number[];
  signal?: AbortSignal;
  /** Whenever it has grown, there was progress and the count of tries restarts. */
  reached?(): number;
  onPause?(reason: string, seconds: number): void;
  /** The error to end with when the last try has failed. */
  gaveUp(reason: string, tries: number): Error;
}

/** Repeats `work` while it throws a `TransientError`. */
export async function persist<T>(work: () => Promise<T>, options: Persistence): Promise<T> {
  const { pauses, signal, reached = () => 0, onPause, gaveUp } = options;
  let best = reached();
  for (let failures = 0; ; failures++) {
    try {
      return await work();
    } catch (error) {
      signal?.throwIfAborted();
      if (!(error instanceof TransientError)) throw error;
      if (reached() > best) failures = 0;
      best = Math.max(best, reached());
      if (failures === pauses.length) throw gaveUp(error.message, pauses.length + 1);
      const seconds = Math.max(pauses[failures], error.retryAfter);
      onPause?.(error.message, seconds);
      await pause(seconds * 1000, undefined, { signal }).catch(() => signal?.throwIfAborted());
    }
  }
}
