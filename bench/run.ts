// Measurements against peers: `npm run bench -- <name> [options]`. One file a benchmark; docs/benchmarks.md says how to read them.
import { Command } from 'commander';
import { UserError } from '../src/errors.ts';
import * as generate from './generate.ts';
import * as trainStep from './train-step.ts';

const program = new Command('npm run bench --').description('Measure llava-gemma against its peers.').helpCommand(false);
for (const benchmark of [trainStep, generate]) benchmark.register(program);
try {
  await program.parseAsync();
} catch (error) {
  if (!(error instanceof UserError)) throw error;
  console.error(`error: ${error.message}`);
  process.exitCode = 1;
}
