// What a command that fails says, and how its process ends.

import { CommanderError } from 'commander';
import { systemReason, UserError } from '../errors.ts';
import { InterruptedError } from './interrupt.ts';

/** What a failed command says on stderr, and its exit code. Stacks are for whoever asks with DEBUG=1. */
export function describeFailure(error: unknown): { text: string; code: number } {
  if (error instanceof CommanderError) return { text: '', code: error.exitCode };
  if (error instanceof InterruptedError) return { text: error.message, code: 130 };
  const { message, stack } = error instanceof Error ? error : new Error(String(error));
  if (process.env.DEBUG) return { text: stack ?? message, code: 1 };
  const reason = systemReason(error);
  const { path } = (error ?? {}) as NodeJS.ErrnoException;
  // a file that nobody expected to fail: the path and the reason say enough
  if (reason !== undefined) return { text: `error: ${path === undefined ? `${reason} (${message})` : `${path}: ${reason}`}`, code: 1 };
  // Messages of libraries may have many lines; one is shown.
  const line = `error: ${message.split('\n')[0]}`;
  return { text: error instanceof UserError ? `error: ${message}` : `${line}\n(unexpected; DEBUG=1 shows where it happened)`, code: 1 };
}
