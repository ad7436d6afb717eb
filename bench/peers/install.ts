// The peers that come from npm (bench/peers/package.json), which are installed into .cache/bench/peers on
// demand.

import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { UserError } from '../../src/errors.ts';

const FOLDER = '.cache/bench/peers';

/** Installs what `bench/peers/package.json` names, unless already installed. UserError if npm fails. */
export function installPeers(): void {
  const { status } = spawnSync(process.execPath, ['scripts/install-peers.mjs'], { stdio: ['ignore', 2, 2] });
  if (status !== 0) throw new UserError('the peers could not be installed; the message is above');
}

/** Path of a file of an installed peer. */
export const peerFile = (name: string, ...path: string[]) => join(process.cwd(), FOLDER, 'node_modules', name, ...path);

/**
 * Imports a peer's ES module by its file, or a peer's CommonJS package. Their types are not installed here:
 * callers declare what they use.
 */
export const importPeer = async <T>(name: string, ...path: string[]) => (await import(pathToFileURL(peerFile(name, ...path)).href)) as T;
export const requirePeer = <T>(name: string) => createRequire(join(process.cwd(), FOLDER, 'package.json'))(name) as T;

export const peerVersion = (name: string) =>
  (JSON.parse(readFileSync(peerFile(name, 'package.json'), 'utf8')) as { version: string }).version;
