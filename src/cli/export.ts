// llava-gemma export: a model for other software.
import { type Command, Option } from 'commander';
import { maxShardSizeOption, parseCount } from './options.ts';

export function register(program: Command): void {
  program
    .command('export')
    .summary('write a model for transformers.js, llama.cpp, Hugging Face or peft')
    .description('Write a model for other software, and see whether that computes the same.')
    .argument('<model>', 'Hugging Face folder, such as the checkpoint of a stage; for peft, one with adapters')
    .addOption(
      new Option('--to <software>', 'what it is for')
        .choices(['transformers.js', 'llama.cpp', 'huggingface', 'peft'])
        .makeOptionMandatory(),
    )
    .requiredOption('-o, --out <folder>', 'folder to write; it must be new or empty')
    .option(
      '--dtype <types>',
      'one or more, with commas between. transformers.js: fp32, fp16, q8, q4, q4f16 (default: fp32); llama.cpp: F32, F16, BF16, Q8_0, Q4_0 ' +
        '(default: F16); huggingface and peft: float32, float16 or bfloat16 (default: that of the model; float32)',
    )
    .option('--adapter <folder>', 'put an adapter of peft into the weights first')
    .option('--base <name>', 'peft: name of the model that the adapters go with, such as its name on the hub')
    .option('--base-folder <folder>', 'peft: where that model is, which --verify puts the adapters over (default: --base)')
    .addOption(maxShardSizeOption())
    .addOption(
      new Option('--class-token <place>', 'llama.cpp: where its image encoder has the class token (docs/export.md)')
        .choices(['first', 'last'])
        .default('last'),
    )
    .option('--verify', 'run the other software, where it is installed, on the same questions, and compare')
    .option('--questions <count>', 'questions that --verify asks', parseCount, 50)
    .addOption(new Option('--device <name>', 'what --verify runs transformers.js on (default: cpu)').choices(['cpu', 'webgpu']))
    .option(
      '--peers <folder>',
      'where the other software is: the folder of its node_modules (default: here and above) or, of huggingface and peft, a virtual ' +
        'environment of Python (default: python3)',
    )
    .addHelpText(
      'after',
      `
Examples:
  $ llava-gemma export runs/mine/checkpoints/finetune --to transformers.js --out web --dtype fp32,q8,q4f16 --verify
  $ llava-gemma export my-model --to llama.cpp --out gguf --dtype F16,Q4_0
  $ llava-gemma export my-model --to huggingface --out to-the-hub --dtype bfloat16
  $ llava-gemma export runs/lora/checkpoints/finetune --to peft --out adapters --base me/my-base`,
    )
    .action(async (model, flags) => (await import('./run/export.ts')).exportModel(model, flags));
}
