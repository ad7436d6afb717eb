// Installs the peers that come from npm (bench/peers/package.json) into .cache/bench/peers when they are
// asked for: they are large, and nothing else needs them.

import { spawnSync } from 'node:child_process';
import { copyFileSync, existsSync, mkdirSync, readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { UserError } from '../../src/errors.ts';

const FOLDER = '.cache/bench/peers';
const MANIFEST = 'bench/peers/package.json';

interface Manifest {
  version: string;
  dependencies?: Record<string, string>;
  optionalDependencies?: Record<string, string>;
}

const manifestOf = (path: string) => JSON.parse(readFileSync(path, 'utf8')) as Manifest;

/** Packages whose binaries are packages of their own, one a platform. */
const WITH_BINARIES = ['@fugood/llama.node', 'node-llama-cpp', 'sharp'];

/** How package names spell this platform; the CPU's binaries end so, those for a GPU go on. */
const PLATFORM: Record<string, string[]> = {
  darwin: [`darwin-${process.arch}`, `mac-${process.arch}`, `mac-${process.arch}-metal`],
  linux: [`linux-${process.arch}`],
  win32: [`win32-${process.arch}`, `win-${process.arch}`],
};

/** Installs what `bench/peers/package.json` names, unless that is there already. UserError when npm fails. */
export function installPeers(log: (line: string) => void): void {
  const stamp = join(FOLDER, 'installed.json');
  if (existsSync(stamp) && readFileSync(stamp, 'utf8') === readFileSync(MANIFEST, 'utf8')) return;
  log(`installing the peers into ${FOLDER} (some 600 MB, once)`);
  mkdirSync(FOLDER, { recursive: true });
  copyFileSync(MANIFEST, join(FOLDER, 'package.json'));
  // optional packages are left out, because they bring binaries for CUDA and Vulkan; those for this CPU are
  // then named one by one
  npm('install');
  const binaries = WITH_BINARIES.flatMap((name) =>
    Object.entries(manifestOf(join(FOLDER, 'node_modules', name, 'package.json')).optionalDependencies ?? {})
      .filter(([binary]) => (PLATFORM[process.platform] ?? []).some((platform) => new RegExp(`[-/]${platform}$`).test(binary)))
      .map(([binary, version]) => `${binary}@${version}`),
  );
  npm('install', '--no-save', ...binaries);
  copyFileSync(MANIFEST, stamp);
}

function npm(...args: string[]): void {
  const flags = ['--ignore-scripts', '--omit=optional', '--no-audit', '--no-fund', '--no-package-lock', '--loglevel=error'];
  const { status } = spawnSync('npm', [...args, ...flags, '--prefix', FOLDER], {
    stdio: ['ignore', 2, 2],
    shell: process.platform === 'win32',
  });
  if (status !== 0) throw new UserError(`npm could not install the peers into ${FOLDER}; its message is above`);
}

/** Path of a file of an installed peer. */
export const peerFile = (name: string, ...path: string[]) => join(process.cwd(), FOLDER, 'node_modules', name, ...path);

/**
 * A peer's ES module by its file, and a peer's CommonJS package. Their types are not installed here: callers
 * say what they use.
 */
export const importPeer = async <T>(name: string, ...path: string[]) => (await import(pathToFileURL(peerFile(name, ...path)).href)) as T;
export const requirePeer = <T>(name: string) => createRequire(join(process.cwd(), FOLDER, 'package.json'))(name) as T;

export const peerVersion = (name: string) => manifestOf(peerFile(name, 'package.json')).version;
