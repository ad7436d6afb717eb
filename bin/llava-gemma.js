#!/usr/bin/env node
// The command line. In a clone it installs and builds itself first when need be; from npm it only runs.
import { build, install } from '../scripts/setup.mjs';

install();
build();
const { main } = await import('../dist/cli/main.js');
await main(process.argv);
