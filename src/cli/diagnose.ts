// llava-gemma diagnose: what is wrong with a run or a model, and what to do about it.
import type { Command } from 'commander';
import { parseCount } from './options.ts';

export function register(program: Command): void {
  program
    .command('diagnose')
    .summary('say what is wrong with a run or a model')
    .description(
      'Look for signs of failure in the folder of a run or of a model: losses, labels, the rows of the connector, answers with and without ' +
        'the picture. Each sign comes with its number, what healthy looks like, and what to do. The command fails where one is red.',
    )
    .argument('<folder>', 'the folder of a run or of a model')
    .option('-d, --data <file>', 'show the model samples in LLaVA JSON (default: scenes that are drawn)')
    .option('-i, --image-folder <folder>', 'the folder that image paths of --data are relative to')
    .option('--scenes <count>', 'scenes that the model is shown and asked about; of the first 32 it reads captions too', parseCount, 32)
    .option('--all', 'what healthy looks like, and where that comes from, of every sign')
    .option('--json', 'print one JSON object')
    .addHelpText(
      'after',
      `
Examples:
  $ llava-gemma diagnose runs/mine
  $ llava-gemma diagnose assets/models/tiny-llava --json`,
    )
    .action(async (folder, flags) => (await import('./run/diagnose.ts')).runDiagnosis(folder, flags));
}
