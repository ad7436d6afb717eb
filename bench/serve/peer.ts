// A peer beside the server: transformers.js in a loop, which answers one question after the other, asked by
// as many clients. Both sides take turns, and the one that waits sleeps.

import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, writeFileSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { basename, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { UserError } from '../../src/errors.ts';
import { createRandom } from '../../src/random.ts';
import { installPeers } from '../peers/install.ts';
import type { ServePeerAnswer, ServePeerRequest } from '../peers/serve-transformers-js.ts';
import { startServer } from '../peers/server.ts';
import { round } from '../statistics.ts';
import { joined, type Part, summary } from './answers.ts';

export const PEER_CLIENTS = 8;
/** Turns of each side. */
export const PEER_TURNS = 3;

export interface ServePeer {
  readonly version: string;
  /** Answers PEER_CLIENTS clients for so many seconds. */
  run(seconds: number): Promise<Part>;
  stop(): void;
}

export interface ServePeerOptions {
  /** Data URIs. */
  pictures: readonly string[];
  questions: readonly string[];
  maxTokens: number;
}

/** The model as the peer wants it: exported by our own command line. */
function exported(model: string): string {
  const folder = join('.cache/bench/serve-transformers-js', basename(model));
  if (!existsSync(join(folder, 'config.json'))) {
    const words = ['export', model, '--to', 'transformers.js', '--out', folder];
    const { status } = spawnSync(process.execPath, ['bin/llava-gemma.js', ...words], { stdio: ['ignore', 2, 2] });
    if (status !== 0) throw new UserError(`${model} could not be exported; the message is above`);
  }
  return folder;
}

export async function startPeer(model: string, { pictures, questions, maxTokens }: ServePeerOptions): Promise<ServePeer> {
  installPeers();
  const folder = resolve(exported(model));
  const files = '.cache/bench/serve-pictures';
  mkdirSync(files, { recursive: true });
  const paths = pictures.map((uri, i) => {
    const path = resolve(files, `${i}.png`);
    writeFileSync(path, Buffer.from(uri.slice(uri.indexOf(',') + 1), 'base64'));
    return path;
  });
  const script = fileURLToPath(new URL('../peers/serve-transformers-js.js', import.meta.url));
  const side = startServer('transformers.js', process.execPath, [script], { apart: true });
  const ask = <T>(request: ServePeerRequest) => side.request<T>(request);
  const { version } = await ask<{ version: string }>({ op: 'load', folder, threads: availableParallelism() });
  const random = createRandom(3);
  let turn: Promise<unknown> = Promise.resolve();

  /** In the order of arrival. */
  function answer(): Promise<ServePeerAnswer & { begun: number }> {
    const mine = turn.then(async () => {
      const begun = performance.now();
      const request = { op: 'answer', image: random.pick(paths), text: random.pick(questions), maxTokens } as const;
      return { begun, ...(await ask<ServePeerAnswer>(request)) };
    });
    turn = mine;
    return mine;
  }

  return {
    version,
    async run(seconds) {
      const part: Part = { seconds: 0, answers: [], errors: [], cpu: 0 };
      const { cpu: before } = await ask<{ cpu: number }>({ op: 'cpu' });
      const start = performance.now();
      const client = async () => {
        while (performance.now() < start + seconds * 1000) {
          const asked = performance.now() - start;
          const { begun, first, done, tokens } = await answer();
          part.answers.push({ asked, first: begun - start + first, done: begun - start + done, tokens, cached: 0 });
        }
      };
      await Promise.all(Array.from({ length: PEER_CLIENTS }, client));
      part.seconds = (performance.now() - start) / 1000;
      part.cpu = (await ask<{ cpu: number }>({ op: 'cpu' })).cpu - before;
      return part;
    },
    stop: side.stop,
  };
}

/** Both sides in turn, and how many times as fast ours is. */
export async function besidePeer(peer: ServePeer, ours: () => Promise<Part>, seconds: number) {
  const parts: Record<'ours' | 'theirs', Part[]> = { ours: [], theirs: [] };
  // compiled code and memory come to their size
  await peer.run(1);
  for (let turn = 0; turn < PEER_TURNS; turn++) {
    parts.ours.push(await ours());
    parts.theirs.push(await peer.run(seconds));
  }
  const [own, theirs] = [summary(joined(parts.ours)), summary(joined(parts.theirs))];
  return {
    clients: PEER_CLIENTS,
    ours: own,
    theirs,
    ratio: round(own.tokens_per_s / theirs.tokens_per_s, 2),
    ratio_of_cpu: round(own.tokens_per_cpu_s / theirs.tokens_per_cpu_s, 2),
  };
}
