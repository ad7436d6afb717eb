// The other end of a thread of ours: takes requests and answers them.

import { parentPort } from 'node:worker_threads';
import { UserError } from '../errors.ts';
import type { Answer, Failure, Request } from './thread.ts';

/**
 * The memory of the arrays in a value: each was made for this answer alone, and is handed over instead of
 * copied.
 */
function buffersOf(value: unknown, found = new Set<ArrayBuffer>()): Set<ArrayBuffer> {
  if (ArrayBuffer.isView(value)) found.add(value.buffer as ArrayBuffer);
  else if (typeof value === 'object' && value !== null) for (const part of Object.values(value)) buffersOf(part, found);
  return found;
}

const failureOf = (error: unknown): Failure =>
  error instanceof Error
    ? { message: error.message, stack: error.stack, user: error instanceof UserError }
    : { message: String(error), user: false };

/**
 * Answers the requests that this thread gets with what `handle` gives. One begins when those before it are
 * done; requests of which `isAtOnce` is true go on beside each other.
 */
export function answerRequests(
  handle: (method: string, parameters: readonly unknown[]) => Promise<unknown>,
  isAtOnce: (method: string) => boolean = () => false,
): void {
  const port = parentPort!;
  const answer = async ({ id, method, parameters }: Request) => {
    try {
      const value = await handle(method, parameters);
      port.postMessage({ id, value } satisfies Answer, [...buffersOf(value)]);
    } catch (error) {
      port.postMessage({ id, failure: failureOf(error) } satisfies Answer);
    }
  };
  // the end of the last request that goes by itself, and those behind it
  let last: Promise<void> = Promise.resolve();
  let beside: Promise<void>[] = [];
  port.on('message', (request: Request) => {
    if (isAtOnce(request.method)) {
      beside.push(last.then(() => answer(request)));
      return;
    }
    const before = Promise.all([last, ...beside]);
    beside = [];
    last = before.then(() => answer(request));
  });
}
