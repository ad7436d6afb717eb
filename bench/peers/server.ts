// A side of a benchmark as a separate process: one JSON request per line in, one JSON answer per line out. It
// sleeps while it waits, and its memory is its own.

import { type ChildProcess, spawn } from 'node:child_process';
import { mkdirSync, rmSync } from 'node:fs';
import { createInterface } from 'node:readline';
import type { Readable, Writable } from 'node:stream';
import { UserError } from '../../src/errors.ts';

export interface Server {
  /** The one answer that the process sends unasked, once it has started. */
  greeting<T>(): Promise<T>;
  request<T>(message: object): Promise<T>;
  stop(): void;
}

/** Characters of a process's messages that are kept in case it dies. */
const TAIL = 3000;

export interface ServerOptions {
  /**
   * Answers come on descriptor 3, and what the process prints is held back until it ends: native libraries
   * print in the middle of lines, on both channels.
   */
  apart?: boolean;
  /** Where the process runs: a folder that is emptied, or made. Default: here. */
  cwd?: string;
  /** Called with what a process with `apart` prints on stderr. */
  onPrint?: (text: string) => void;
}

/** Starts `command`; `side` names it in errors. An answer with a field `error` is thrown as a UserError. */
export function startServer(
  side: string,
  command: string,
  args: readonly string[],
  { apart = false, cwd, onPrint = () => {} }: ServerOptions = {},
): Server {
  if (cwd !== undefined) {
    rmSync(cwd, { recursive: true, force: true });
    mkdirSync(cwd, { recursive: true });
  }
  const child: ChildProcess = spawn(command, args, {
    cwd,
    stdio: apart ? ['pipe', 'ignore', 'pipe', 'pipe'] : ['pipe', 'pipe', 'inherit'],
  });
  let tail = 'its message is above';
  if (apart) {
    tail = '';
    (child.stderr as Readable).setEncoding('utf8').on('data', (text: string) => {
      tail = (tail + text).slice(-TAIL);
      onPrint(text);
    });
  }
  // the missing answer reports what went wrong
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
