// Runs a PyTorch peer as a separate server process.

import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { UserError } from '../../src/errors.ts';
import { startServer } from './server.ts';

const VENV_PYTHON = process.platform === 'win32' ? '.venv/Scripts/python.exe' : '.venv/bin/python';

/**
 * The Python to compare against: `asked`, else the one in .venv, else python3. Throws a UserError if it has
 * no PyTorch.
 */
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

export async function startTorch(python: string, script: string, threads: number, args: readonly string[] = []): Promise<TorchServer> {
  const server = startServer('PyTorch', python, [script, '--threads', String(threads), ...args]);
  const { torch } = await server.greeting<{ torch: string }>();
  return { version: torch, request: (message) => server.request(message), stop: () => server.stop() };
}
