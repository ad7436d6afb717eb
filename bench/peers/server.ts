// A side of a benchmark as a process beside us: one JSON request a line in, one JSON answer a line out. It
// sleeps while it waits, and its memory is its own.

import { type ChildProcess, spawn } from 'node:child_process';
import { createInterface } from 'node:readline';
import type { Readable, Writable } from 'node:stream';
import { UserError } from '../../src/errors.ts';

export interface Server {
  /** One answer that the process gives unasked, when it has started. */
  greeting<T>(): Promise<T>;
  request<T>(message: object): Promise<T>;
  stop(): void;
}

/** Characters of a process's messages that are kept for the case that it ends. */
const TAIL = 3000;

export interface ServerOptions {
  /**
   * Answers come on descriptor 3, and what the process prints is kept back until it ends: native libraries
   * print in the midst of lines, on both channels.
   */
  apart?: boolean;
  /** Called with what a process apart prints on stderr. */
  onPrint?: (text: string) => void;
}

/** Starts `command`; `side` names it in errors. An answer with a field `error` is thrown as a UserError. */
export function startServer(
  side: string,
  command: string,
  args: readonly string[],
  { apart = false, onPrint = () => {} }: ServerOptions = {},
): Server {
  const child: ChildProcess = spawn(command, args, { stdio: apart ? ['pipe', 'ignore', 'pipe', 'pipe'] : ['pipe', 'pipe', 'inherit'] });
  let tail = 'its message is above';
  if (apart) {
    tail = '';
    (child.stderr as Readable).setEncoding('utf8').on('data', (text: string) => {
      tail = (tail + text).slice(-TAIL);
      onPrint(text);
    });
  }
  // what went wrong is told by the answer that does not come
  child.on('error', (error) => {
    tail = error.message;
  });
  (child.stdin as Writable).on('error', () => {});
  const lines = createInterface({ input: child.stdio[apart ? 3 : 1] as Readable })[Symbol.asyncIterator]();
  const answer = async () => {
    const { value, done } = await lines.next();
    if (done) throw new UserError(`${side} (${[command, ...args].join(' ')}) ended: ${tail.trim()}`);
    const parsed = JSON.parse(value);
    if (parsed.error !== undefined) throw new UserError(`${side}: ${parsed.error}`);
    return parsed;
  };
  return {
    greeting: answer,
    async request(message) {
      (child.stdin as Writable).write(`${JSON.stringify(message)}\n`);
      return answer();
    },
    stop: () => void child.kill(),
  };
}
