// llava-gemma convert: a checkpoint as a folder to keep or to share.
import type { Command } from 'commander';
import { maxShardSizeOption, quantizeOption } from './options.ts';

export function register(program: Command): void {
  program
    .command('convert')
    .summary('write a checkpoint in another float type, without optimizer state')
    .description(
      `Write a checkpoint in another float type, without optimizer state. Checkpoints of original LLaVA and of other versions of
transformers get the names of Hugging Face hub files.`,
    )
    .argument('<from>', 'Hugging Face folder, such as the checkpoint of a stage, or an original LLaVA folder')
    .argument('<to>', 'folder to write; a checkpoint that is there is replaced')
    .option('--dtype <type>', 'float32, float16 or bfloat16', 'float16')
    .addOption(maxShardSizeOption())
    .addOption(quantizeOption('pack the matrices to 4 or 8 bits, to be run and not trained'))
    .option('--vision-tower <folder>', 'the vision tower, for an original LLaVA folder that only names it')
    .addHelpText(
      'after',
      `
Examples:
  $ llava-gemma convert runs/mine/checkpoints/finetune my-model --dtype bfloat16
  $ llava-gemma convert my-model my-model-int4 --quantize int4
  $ llava-gemma convert llava-gemma-7b my-model --dtype bfloat16 --vision-tower clip-vit-large-patch14-336`,
    )
    .action(async (from, to, flags) => (await import('./run/convert.ts')).convert(from, to, flags));
}
