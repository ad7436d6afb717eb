// llava-gemma search: rates, batch sizes and other fields of a recipe, with the same budget for every
// variant.
import type { Command } from 'commander';

export function register(program: Command): void {
  program
    .command('search')
    .summary('search fields of a recipe for the best values')
    .description(
      'Search fields of a recipe for the best values: random or evenly spread points, TPE, short schedules first (ASHA), with the same budget for every ' +
        'variant. The winner is run again on fresh seeds. The same command goes on with a search that was stopped.',
    )
    .argument('<search>', 'a YAML file: see docs/search.md')
    .option('-o, --out <folder>', 'the folder of the search (default: runs/<name of the file>)')
    .option('--plan', 'say what would be run and how long it would take, and run nothing')
    .option('--json', 'print the result, or the plan, as JSON')
    .addHelpText(
      'after',
      `
Examples:
  $ llava-gemma search recipes/searches/emoji-rates.yaml --plan
  $ llava-gemma search recipes/searches/emoji-rates.yaml --out runs/rates`,
    )
    .action(async (file, flags) => (await import('./run/search.ts')).runSearchCommand(file, flags));
}
