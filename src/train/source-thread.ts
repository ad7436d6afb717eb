// The thread that prepares the data of a run while the main one computes. It has one source open, that of the
// stage, and answers one request after the other.

import { parentPort } from 'node:worker_threads';
import { UserError } from '../errors.ts';
import type { BatchSource } from './batch.ts';
import { openSource, type SourceDescription } from './source.ts';

export interface Request {
  id: number;
  method: 'open' | keyof BatchSource;
  parameters: unknown[];
}

/** What went wrong, in values that pass between threads. */
export interface Failure {
  message: string;
  stack?: string;
  /** Whether it was a UserError. */
  user: boolean;
}

export type Answer = { id: number; value: unknown } | { id: number; failure: Failure };

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

const port = parentPort!;
let source: Promise<BatchSource> | undefined;

async function resultOf({ method, parameters }: Request): Promise<unknown> {
  if (method === 'open') {
    source = openSource(parameters[0] as SourceDescription);
    // whoever asks it first is told why it could not be opened
    source.catch(() => {});
    return undefined;
  }
  const opened = await source!;
  return (opened[method] as (...given: unknown[]) => Promise<unknown>)(...parameters);
}

async function answer(request: Request): Promise<void> {
  const { id } = request;
  try {
    const value = await resultOf(request);
    port.postMessage({ id, value } satisfies Answer, [...buffersOf(value)]);
  } catch (error) {
    port.postMessage({ id, failure: failureOf(error) } satisfies Answer);
  }
}

let last: Promise<void> = Promise.resolve();
port.on('message', (request: Request) => {
  last = last.then(() => answer(request));
});
