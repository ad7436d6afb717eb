// llava-gemma benchmarks: the published benchmarks, and what of their files is there.
import type { Command } from 'commander';

export function register(program: Command): void {
  program
    .command('benchmarks')
    .summary('list the published benchmarks, and what of their files is there')
    .description(
      'List the published benchmarks; for one that is named: what to download, from where, how large, its license, where to put it.',
    )
    .argument('[benchmark]', 'say everything of this one')
    .option('-d, --data <folder>', 'the folder of downloads: say what of them is there')
    .option('--json', 'print the list as JSON')
    .addHelpText(
      'after',
      `
Examples:
  $ llava-gemma benchmarks
  $ llava-gemma benchmarks pope --data playground/data/eval`,
    )
    .action(async (name, flags) => (await import('./run/benchmarks.ts')).list(name, flags));
}
