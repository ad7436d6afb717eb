// llava-gemma compare: two evaluations of the same benchmarks, question by question.
import type { Command } from 'commander';
import { parseCount } from './options.ts';

export function register(program: Command): void {
  program
    .command('compare')
    .summary('compare two evaluations, question by question')
    .description(
      'Compare two folders of llava-gemma eval --benchmarks: the difference on the same questions with its interval, McNemar, Holm over the benchmarks.',
    )
    .argument('<a>', 'folder of an evaluation')
    .argument('<b>', 'folder of another one')
    .option('-o, --out <file>', 'write a page with the questions on which the two differ')
    .option('-d, --data <folder>', 'the folder of downloads: with it, the page has their pictures')
    .option('-n, --limit <n>', 'at most so many questions of each benchmark on the page', parseCount, 100)
    .option('--json', 'print the comparison as JSON')
    .addHelpText(
      'after',
      `
Example:
  $ llava-gemma compare runs/scores-2b runs/scores-7b --out compare.html --data playground/data/eval`,
    )
    .action(async (a, b, flags) => (await import('./run/compare.ts')).compare(a, b, flags));
}
