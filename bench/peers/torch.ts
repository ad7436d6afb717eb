// Runs a PyTorch peer as a server beside us: one JSON request a line in, one JSON answer a line out. It sleeps while it waits.

import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { createInterface } from 'node:readline';
import type { Readable, Writable } from 'node:stream';
import { UserError } from '../../src/errors.ts';

const VENV_PYTHON = process.platform === 'win32' ? '.venv/Scripts/python.exe' : '.venv/bin/python';

/** The Python to compare against: `asked`, else the one in .venv, else python3. Throws a UserError when it has no PyTorch. */
export function torchPython(asked?: string): string {
  const python = asked ?? (existsSync(VENV_PYTHON) ? VENV_PYTHON : 'python3');
  if (spawnSync(python, ['-c', 'import torch'], { stdio: 'ignore' }).status !== 0)
    throw new UserError(
      `${python} has no PyTorch to compare against: python3 -m venv .venv && .venv/bin/pip install 'torch==2.13.*' ` +
        '(or --torch <python> with one that has it)',
    );
  return python;
}

export interface TorchServer {
  version: string;
  request<T>(message: object): Promise<T>;
  stop(): void;
}

export async function startTorch(python: string, script: string, threads: number): Promise<TorchServer> {
  const child: ChildProcess = spawn(python, [script, '--threads', String(threads)], { stdio: ['pipe', 'pipe', 'inherit'] });
  const lines = createInterface({ input: child.stdout as Readable })[Symbol.asyncIterator]();
  const answer = async () => {
    const { value, done } = await lines.next();
    if (done) throw new UserError(`the PyTorch side (${python} ${script}) ended; its message is above`);
    return JSON.parse(value);
  };
  const { torch } = await answer();
  return {
    version: torch,
    async request(message) {
      (child.stdin as Writable).write(`${JSON.stringify(message)}\n`);
      return answer();
    },
    stop: () => void child.kill(),
  };
}
