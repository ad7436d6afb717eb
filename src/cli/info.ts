// llava-gemma info: what a checkpoint is, how large it is, and what it takes to run and to train it.
import type { Command } from 'commander';

export function register(program: Command): void {
  program
    .command('info')
    .summary('say what a checkpoint is, and what it takes to run and train it')
    .description(
      `Say what a checkpoint is: its parts and their sizes, float types, the layout of its names, and the memory to run and train it. Only
the headers of its files are read. What is wrong with it is told on stderr.`,
    )
    .argument('<folder>', 'Hugging Face or original LLaVA folder')
    .option('--check', 'also read every weight, and name tensors that hold NaN or infinity')
    .option('--json', 'print one JSON object')
    .addHelpText('after', '\nExample:\n  $ llava-gemma info assets/models/tiny-llava')
    .action(async (folder, flags) => (await import('./run/info.ts')).info(folder, flags));
}
