// llava-gemma data: the emoji scenes as LLaVA JSON and an image folder, to look at or to train on with other
// software.
import type { Command } from 'commander';
import { parseCount, parseSeed } from './options.ts';

export function register(program: Command): void {
  program
    .command('data')
    .summary('write the emoji scenes as LLaVA JSON and an image folder')
    .description('Write the emoji scenes - captions, questions and three held-out splits - as LLaVA JSON and an image folder.')
    .requiredOption('-o, --out <folder>', 'folder to write to')
    .option('--train-scenes <n>', 'scenes to train on', parseCount, 4000)
    .option('--evaluation-scenes <n>', 'scenes in each held-out split', parseCount, 200)
    .option('--size <pixels>', 'side of a scene', parseCount)
    .option('--seed <n>', 'the same seed writes the same bytes', parseSeed, 42)
    .option('--held-out-artist <name>', 'the artist of the unseen-artist split')
    .addHelpText('after', '\nExample:\n  $ llava-gemma data --out emoji-scenes --train-scenes 500')
    .action(async (flags) => (await import('./run/data.ts')).writeData(flags));
}
