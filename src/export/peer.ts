// Starts the software that an export is for, in a process of its own, and asks it.

import { type ChildProcess, fork, spawn, spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { UserError } from '../errors.ts';
import type { Peer, PeerCall, PeerReply } from './peers/serve.ts';

/** A peer that runs. `stop` ends it. */
export interface RunningPeer extends Peer {
  stop(): void;
}

/** The folder, `from` or one above it, in whose node_modules all `packages` are; undefined where none is. */
export function findPeers(packages: readonly string[], from: readonly string[]): string | undefined {
  for (const start of from) {
    for (let folder = resolve(start); ; folder = dirname(folder)) {
      if (packages.every((name) => existsSync(join(folder, 'node_modules', name, 'package.json')))) return folder;
      if (folder === dirname(folder)) break;
    }
  }
  return undefined;
}

/**
 * The Python, of the virtual environment `environment` or else of the system, that has all `modules`;
 * undefined where none has.
 */
export function findPython(modules: readonly string[], environment: string | undefined): string | undefined {
  const candidates =
    environment === undefined ? ['python3', 'python'] : ['bin/python', 'Scripts/python.exe'].map((path) => join(environment, path));
  return candidates.find((python) => spawnSync(python, ['-c', `import ${modules.join(', ')}`], { stdio: 'ignore' }).status === 0);
}

/** Node 20 runs no TypeScript: tests start what was built. */
function peerFile(name: string): string {
  const isSource = import.meta.url.endsWith('.ts');
  return fileURLToPath(new URL(isSource ? `../../dist/export/peers/${name}` : `./peers/${name}`, import.meta.url));
}

/** A process, and how it is spoken to. */
interface Channel {
  child: ChildProcess;
  send(call: PeerCall): void;
  onReply(listener: (reply: PeerReply) => void): void;
}

function nodeChannel(name: string): Channel {
  const child = fork(peerFile(`${name}.js`), { serialization: 'advanced', stdio: ['ignore', 'ignore', 'pipe', 'ipc'] });
  return {
    child,
    send: (call) => void child.send(call),
    onReply: (listener) => void child.on('message', (reply: PeerReply) => listener(reply)),
  };
}

/** What a line of Python's says: an answer, or one of the parts that it is given in. */
type PythonLine = PeerReply | { part: unknown };

/** Lines of JSON each way, with tensors in base64. */
function pythonChannel(name: string, python: string): Channel {
  const child = spawn(python, [peerFile(`${name}.py`)], { stdio: ['pipe', 'pipe', 'pipe'] });
  // what is said to one that has ended: `exit` tells
  child.stdin.on('error', () => {});
  const tensors = (key: string, value: unknown): unknown =>
    key === 'data' && typeof value === 'string' ? new Float32Array(Uint8Array.from(Buffer.from(value, 'base64')).buffer) : value;
  return {
    child,
    send: (call) => void child.stdin.write(`${JSON.stringify(call)}\n`),
    onReply(listener) {
      let parts: unknown[] = [];
      createInterface(child.stdout).on('line', (line) => {
        const said = parsed(line, tensors);
        if (said && 'part' in said) parts.push(said.part);
        if (!said || 'part' in said) return;
        listener('value' in said && parts.length > 0 ? { value: parts } : said);
        parts = [];
      });
    },
  };
}

/** Nothing for what is no JSON: what others print, or what was cut off when the process ended. */
function parsed(line: string, reviver: (key: string, value: unknown) => unknown): PythonLine | undefined {
  try {
    const said = JSON.parse(line, reviver) as unknown;
    return typeof said === 'object' && said !== null ? (said as PythonLine) : undefined;
  } catch {
    return undefined;
  }
}

/**
 * Starts the peer in peers/`name`: a module in Node, or a script in `python`. What it refuses is a UserError
 * that names it.
 */
export function startPeer(name: string, python?: string): RunningPeer {
  const { child, send, onReply } = python === undefined ? nodeChannel(name) : pythonChannel(name, python);
  let said = '';
  child.stderr!.setEncoding('utf8').on('data', (text: string) => {
    said = (said + text).slice(-2000);
  });
  let waiting: { resolve: (reply: PeerReply) => void } | undefined;
  const settle = (reply: PeerReply) => {
    waiting?.resolve(reply);
    waiting = undefined;
  };
  onReply(settle);
  child.on('exit', (code, signal) => settle({ error: `it ended (${signal ?? code}): ${said.trim().split('\n').at(-1)}` }));
  child.on('error', (error) => settle({ error: error.message }));
  const call = async <M extends keyof Peer>(method: M, parameters: Parameters<Peer[M]>): Promise<Awaited<ReturnType<Peer[M]>>> => {
    const reply = await new Promise<PeerReply>((resolve) => {
      waiting = { resolve };
      if (child.exitCode !== null || child.signalCode !== null) settle({ error: 'it has ended' });
      else send({ method, parameters } as PeerCall);
    });
    if ('error' in reply) throw new UserError(`${name}: ${reply.error}`);
    return reply.value as Awaited<ReturnType<Peer[M]>>;
  };
  return {
    load: (...parameters) => call('load', parameters),
    answer: (...parameters) => call('answer', parameters),
    trace: (...parameters) => call('trace', parameters),
    stop: () => void child.kill(),
  };
}
