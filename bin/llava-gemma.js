#!/usr/bin/env node
// The command line. In a clone it installs and builds itself first when need be; from npm it only runs.
import { existsSync } from 'node:fs';
import { createRequire } from 'node:module';

const setup = new URL('../scripts/setup.mjs', import.meta.url);
if (existsSync(setup)) {
  const { build, install } = await import(setup.href);
  install();
  build();
}

// Commands that run a model load ONNX Runtime, whose package is large and has no binary for some machines. That deserves a sentence of
// its own, and before any work is done; loading twice costs nothing.
const [, , command, ...words] = process.argv;
if (
  [
    'align',
    'chat',
    'demo',
    'diagnose',
    'eval',
    'explain',
    'export',
    'forward',
    'merge',
    'plan',
    'search',
    'serve',
    'study',
    'train',
  ].includes(command) &&
  !words.some((word) => word === '--help' || word === '-h')
) {
  try {
    createRequire(import.meta.url)('onnxruntime-node');
  } catch (error) {
    if (process.env.DEBUG) console.error(error);
    console.error(
      `error: ONNX Runtime cannot be loaded (${error.message.split('\n')[0]}): it runs on Linux with glibc, Windows and Macs with Apple ` +
        `silicon, this is ${process.platform} ${process.arch}; if it should run here, install again with npm install --ignore-scripts`,
    );
    process.exit(1);
  }
}

const { main } = await import('../dist/cli/main.js');
await main(process.argv);
