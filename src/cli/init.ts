// llava-gemma init: a checkpoint of a named shape with fresh weights, to try sizes and formats before there
// is anything trained.
import type { Command } from 'commander';
import { shapes } from '../models/shapes.ts';
import { maxShardSizeOption, parseSeed } from './options.ts';

export function register(program: Command): void {
  const names = Object.entries(shapes).map(([name, { summary }]) => `  ${name.padEnd(28)}${summary}`);
  program
    .command('init')
    .summary('write a checkpoint of a named shape with fresh weights')
    .description('Write a checkpoint of a named shape with fresh, untrained weights.')
    .argument('<shape>', 'one of the shapes below')
    .requiredOption('-o, --out <folder>', 'folder to write; it must not hold anything yet')
    .option('--dtype <type>', 'float32, float16 or bfloat16', 'bfloat16')
    .option('--seed <n>', 'the same seed writes the same bytes', parseSeed, 42)
    .addOption(maxShardSizeOption())
    .addHelpText('after', `\nShapes:\n${names.join('\n')}\n\nExample:\n  $ llava-gemma init llava-gemma-tiny --out toy --dtype float32`)
    .action(async (name, flags) => (await import('./run/init.ts')).init(name, flags));
}
