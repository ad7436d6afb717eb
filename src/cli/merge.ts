// llava-gemma merge: an adapter put into the weights of its model.
import type { Command } from 'commander';
import { maxShardSizeOption } from './options.ts';

export function register(program: Command): void {
  program
    .command('merge')
    .summary('put an adapter (LoRA) into the weights of its model')
    .description(
      `Put an adapter in the format of peft into the weights of its model, and write the model as a folder of its own. A LLaVA takes
adapters of its language model alone, too.`,
    )
    .argument('<model>', 'Hugging Face folder of the model that the adapter was trained on')
    .argument('<adapter>', 'folder with adapter_config.json and adapter_model.safetensors')
    .argument('<to>', 'folder to write; a checkpoint that is there is replaced')
    .option('--dtype <type>', 'float32, float16 or bfloat16 (default: that of the model)')
    .addOption(maxShardSizeOption())
    .addHelpText(
      'after',
      `
Examples:
  $ llava-gemma merge runs/mine/checkpoints/pretrain runs/mine/checkpoints/finetune/adapter my-model
  $ llava-gemma merge gemma-2b-it my-lora merged --dtype bfloat16`,
    )
    .action(async (model, adapter, to, flags) => (await import('./run/merge.ts')).merge(model, adapter, to, flags));
}
