// llava-gemma pull: a model from the Hugging Face hub as a folder.
import type { Command } from 'commander';

export function register(program: Command): void {
  program
    .command('pull')
    .summary('download a model from the Hugging Face hub')
    .description(
      `Download a model from the Hugging Face hub: config, safetensors weights, tokenizer, image processor and licence. What is there is
not downloaded again, and a download that broke off goes on where it stopped.`,
    )
    .argument('<repo>', 'name on the hub, such as Intel/llava-gemma-2b')
    .option('--revision <name>', 'branch, tag or commit', 'main')
    .option('-o, --out <folder>', 'folder to write (default: "models/<repo>")')
    .option('--token <token>', 'for private models and those whose licence must be accepted (default: HF_TOKEN, or that of hf auth login)')
    .addHelpText(
      'after',
      `
Examples:
  $ llava-gemma pull Intel/llava-gemma-2b
  $ llava-gemma pull google/gemma-2b --out gemma-2b        # accept its licence at https://huggingface.co/google/gemma-2b first`,
    )
    .action(async (name, flags) => (await import('./run/pull.ts')).pull(name, flags));
}
