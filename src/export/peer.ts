// Starts the software that an export is for, in a process of its own, and asks it.

import { type ChildProcess, fork } from 'node:child_process';
import { existsSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
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

/** Node 20 runs no TypeScript: tests start what was built. */
function peerFile(name: string): string {
  const isSource = import.meta.url.endsWith('.ts');
  return fileURLToPath(new URL(isSource ? `../../dist/export/peers/${name}.js` : `./peers/${name}.js`, import.meta.url));
}

/** Starts the peer in peers/`name`. What it refuses is a UserError that names it. */
export function startPeer(name: string): RunningPeer {
  const child: ChildProcess = fork(peerFile(name), { serialization: 'advanced', stdio: ['ignore', 'ignore', 'pipe', 'ipc'] });
  let said = '';
  child.stderr!.setEncoding('utf8').on('data', (text: string) => {
    said = (said + text).slice(-2000);
  });
  let waiting: { resolve: (reply: PeerReply) => void } | undefined;
  const settle = (reply: PeerReply) => {
    waiting?.resolve(reply);
    waiting = undefined;
  };
  child.on('message', (reply: PeerReply) => settle(reply));
  child.on('exit', (code, signal) => settle({ error: `it ended (${signal ?? code}): ${said.trim().split('\n').at(-1)}` }));
  child.on('error', (error) => settle({ error: error.message }));
  const call = async <M extends keyof Peer>(method: M, parameters: Parameters<Peer[M]>): Promise<Awaited<ReturnType<Peer[M]>>> => {
    const reply = await new Promise<PeerReply>((resolve) => {
      waiting = { resolve };
      if (child.exitCode !== null || !child.connected) settle({ error: 'it has ended' });
      else child.send({ method, parameters } as PeerCall);
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
