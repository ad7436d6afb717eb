// llava-gemma forward: one pass over tensors of a file, its outputs as another. What any other implementation
// computes from the same file can be compared with it; neither tokenizer nor image processor comes in
// between.
import { type Command, Option } from 'commander';
import { quantizeOption } from './options.ts';

export function register(program: Command): void {
  program
    .command('forward')
    .summary('run a model once over stored tensors, to compare it with another implementation')
    .description(
      `Run a model once over the tensors of a safetensors file: input_ids, attention_mask, pixel_values. The logits are written to another
one, so that they can be compared with what other software computes from the same file. No tokenizer is needed.`,
    )
    .requiredOption('-m, --model <folder>', 'Hugging Face or original LLaVA folder; a language model or an encoder alone will do')
    .requiredOption('--inputs <file>', 'safetensors file with the inputs')
    .requiredOption('-o, --output <file>', 'safetensors file to write')
    .option('--hidden-states', 'also write hidden_states.0, .1, ... (an encoder alone always gives them)')
    .option('--image-features', 'also write image_features, what the connector gives')
    .addOption(new Option('--scale-image-features <bool>', 'in place of scale_image_features of config.json').choices(['true', 'false']))
    .addOption(quantizeOption())
    .option('--vision-tower <folder>', 'the vision tower, for an original LLaVA folder that only names it')
    .addHelpText(
      'after',
      `
Example:
  $ llava-gemma forward --model my-model --inputs in.safetensors --output out.safetensors --hidden-states`,
    )
    .action(async (flags) => (await import('./run/forward.ts')).runForward(flags));
}
