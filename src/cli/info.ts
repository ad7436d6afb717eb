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
    .argument('[folder]', 'Hugging Face or original LLaVA folder')
    .option('--check', 'also read every weight, and name tensors that hold NaN or infinity')
    .option('--device', 'say instead what there is for --device webgpu: the GPU, float16, how large a buffer may be')
    .option('--json', 'print one JSON object')
    .addHelpText('after', '\nExamples:\n  $ llava-gemma info assets/models/tiny-llava\n  $ llava-gemma info --device')
    .action(async (folder, flags) => {
      if (flags.device) return (await import('./run/info-device.ts')).infoDevice(flags);
      await (await import('./run/info.ts')).info(folder, flags);
    });
}
