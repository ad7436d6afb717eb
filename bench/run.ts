// Measurements against peers, and of one version against another: `npm run bench -- <name> [options]`. One
// file a benchmark; docs/benchmarks.md says how to read them.
import { existsSync, symlinkSync } from 'node:fs';
import { resolve } from 'node:path';
import { Command } from 'commander';
import { UserError } from '../src/errors.ts';
import * as compare from './compare.ts';
import * as data from './data.ts';
import * as explain from './explain.ts';
import * as faults from './faults.ts';
import * as generate from './generate.ts';
import * as large from './large.ts';
import * as memory from './memory.ts';
import * as pictures from './pictures.ts';
import * as quantize from './quantize.ts';
import * as ranks from './ranks.ts';
import * as score from './score.ts';
import * as serve from './serve.ts';
import * as stage from './stage.ts';
import * as study from './study.ts';
import * as trainStep from './train-step.ts';

// the sources look for the assets beside their folder, and here that is .cache/bench
if (!existsSync('.cache/bench/assets')) symlinkSync(resolve('assets'), '.cache/bench/assets', 'junction');

const program = new Command('npm run bench --').description('Measure llava-gemma against its peers.').helpCommand(false);
for (const benchmark of [
  trainStep,
  generate,
  serve,
  quantize,
  memory,
  stage,
  large,
  ranks,
  data,
  pictures,
  explain,
  faults,
  study,
  score,
  compare,
])
  benchmark.register(program);
try {
  await program.parseAsync();
} catch (error) {
  if (!(error instanceof UserError)) throw error;
  console.error(`error: ${error.message}`);
  process.exitCode = 1;
}
