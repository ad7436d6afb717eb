// llava-gemma align: how well a connector fits pictures to its language model, without asking a question.
import { type Command, Option } from 'commander';
import { bundledModel } from '../paths.ts';
import { parseCount, parseSeed, quantizeOption } from './options.ts';

export function register(program: Command): void {
  program
    .command('align')
    .summary('measure how well a connector fits pictures to its language model')
    .description(
      'Measure how well the connector of a model fits pictures to its language model: MIR with the norm ratio of each layer, A score, ' +
        'synthetic C score, and retrieval both ways. Of a run, every checkpoint is measured. What each number means: docs/alignment.md.',
    )
    .argument('[model]', 'Hugging Face folder of a model, or the folder of a run', bundledModel)
    .option('--measures <names>', 'some of mir,a-score,c-score,retrieval (default: all)')
    .option('-n, --samples <n>', 'pictures', parseCount, 100)
    .option('-d, --data <file>', 'pictures with captions in LLaVA JSON, instead of emoji scenes')
    .option('--image-folder <folder>', 'what the image paths of --data are relative to')
    .option('--texts <file>', 'texts that have nothing to do with the pictures, a line each (default: dictionary definitions)')
    .addOption(new Option('--template <name>', 'how captions are laid out, as in stage 1').choices(['gemma', 'plain']).default('gemma'))
    .option('--ways <n>', 'candidates of retrieval by likelihood', parseCount, 10)
    .addOption(new Option('--compat <name>', 'also MIR as the published code has it by default, which is no square root').choices(['fast']))
    .option('--reference <folder>', 'a model whose connector is the reference of A score version 1')
    .option('--text-tower <folder>', "the CLIP that the encoder is of (default: the bundled one, if it is the model's)")
    .option('--seed <n>', 'seed of scenes, texts, warps and groups', parseSeed, 42)
    .addOption(quantizeOption())
    .option('-o, --out <file>', 'also write the numbers as JSON to this file')
    .option('--json', 'print the numbers as JSON')
    .addHelpText(
      'after',
      `
Examples:
  $ llava-gemma align
  $ llava-gemma align runs/mine --measures mir,a-score --out alignment.json
  $ llava-gemma align my-model --data captions.json --image-folder pictures --samples 200`,
    )
    .action(async (model, flags) => (await import('./run/align.ts')).runAlign(model, flags));
}
