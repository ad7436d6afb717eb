// Installs the software from npm that this project is measured against and exports to (bench/peers/package.json)
// into .cache/bench/peers, unless it is there already: it is large, and nothing else needs it. Needs only Node.
import { spawnSync } from 'node:child_process';
import { copyFileSync, existsSync, mkdirSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = join(dirname(fileURLToPath(import.meta.url)), '..');
const folder = join(root, '.cache', 'bench', 'peers');
const manifest = join(root, 'bench', 'peers', 'package.json');
const stamp = join(folder, 'installed.json');

/** Packages whose binaries are packages of their own, one per platform. */
const WITH_BINARIES = ['@fugood/llama.node', 'node-llama-cpp', 'sharp'];

/** How package names spell this platform; names of CPU binaries end in it, those for a GPU continue. */
const PLATFORM = {
  darwin: [`darwin-${process.arch}`, `mac-${process.arch}`, `mac-${process.arch}-metal`],
  linux: [`linux-${process.arch}`],
  win32: [`win32-${process.arch}`, `win-${process.arch}`],
};

function npm(...args) {
  const flags = ['--ignore-scripts', '--omit=optional', '--no-audit', '--no-fund', '--no-package-lock', '--loglevel=error'];
  const { status } = spawnSync('npm', [...args, ...flags, '--prefix', folder], {
    stdio: ['ignore', 2, 2],
    // on Windows, npm is a script that only a shell finds
    shell: process.platform === 'win32',
  });
  if (status === 0) return;
  console.error(`npm could not install the peers into ${folder}; its message is above`);
  process.exit(1);
}

/** Packages with the binaries for this CPU of an installed package. */
function binariesOf(name) {
  const { optionalDependencies = {} } = JSON.parse(readFileSync(join(folder, 'node_modules', name, 'package.json'), 'utf8'));
  return Object.entries(optionalDependencies)
    .filter(([binary]) => (PLATFORM[process.platform] ?? []).some((platform) => new RegExp(`[-/]${platform}$`).test(binary)))
    .map(([binary, version]) => `${binary}@${version}`);
}

if (existsSync(stamp) && readFileSync(stamp, 'utf8') === readFileSync(manifest, 'utf8')) process.exit(0);
console.error(`installing the peers into ${folder} (some 600 MB, once)`);
mkdirSync(folder, { recursive: true });
copyFileSync(manifest, join(folder, 'package.json'));
// optional packages are omitted, because they bring binaries for CUDA and Vulkan; those for this CPU are then
// named one by one
npm('install');
npm('install', '--no-save', ...WITH_BINARIES.flatMap(binariesOf));
copyFileSync(manifest, stamp);
