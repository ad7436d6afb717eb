// llava-gemma train: any recipe (of an encoder, a language model or a LLaVA) into a run folder.
import type { Command } from 'commander';
import { collect, deviceOption, parseCount } from './options.ts';

export function register(program: Command): void {
  program
    .command('train')
    .summary('train what a recipe describes')
    .description('Train what a recipe describes, stage by stage, and score it. Everything is written to a run folder.')
    .argument('[recipe]', 'a YAML file; not needed with --resume')
    .option('-o, --out <folder>', 'the run folder (default: runs/<name of the recipe>)')
    .option('-s, --set <path=value>', 'change a field of the recipe; may be given several times', collect, [])
    .addOption(deviceOption('what it runs on, whatever the recipe says: cpu, webgpu, or auto: webgpu where there is the adapter of a GPU'))
    .option('--resume', 'go on with the run in the folder')
    .option('--shard-moments', "under mpirun: each process keeps a share of the optimizer's moments instead of all")
    .option('--mpi-timeout <seconds>', 'under mpirun: how long one process waits for another', parseCount, 600)
    .option('--no-memory-check', 'train also what would take more memory than there is')
    .option('--overwrite', 'remove the run in the folder first')
    .addHelpText(
      'after',
      `
Examples:
  $ llava-gemma train recipes/emoji-tiny.yaml
  $ llava-gemma train recipes/emoji-tiny.yaml --out runs/slow --set stages.1.lr=1e-4 --set stages.1.epochs=3
  $ llava-gemma train --resume --out runs/slow
  $ mpirun -n 4 npx llava-gemma train recipes/mine.yaml --set stages.0.accumulation=4`,
    )
    .action(async (recipePath, flags) => (await import('./run/train.ts')).runTraining(recipePath, flags));
}
