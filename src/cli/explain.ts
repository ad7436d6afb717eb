// llava-gemma explain: what an answer rests on in its picture and its question.
import type { Command } from 'commander';
import { bundledModel } from '../paths.ts';
import { parseCount, parseSeed, parseSize, quantizeOption } from './options.ts';

export function register(program: Command): void {
  program
    .command('explain')
    .summary('show what an answer rests on')
    .description(
      `Show what each word of an answer rests on: maps over the picture, with what they are worth, as PNG, JSON and a page.
With --batch or --scenes, measure over many questions whether the maps mean anything.`,
    )
    .option('-m, --model <folder>', 'Hugging Face folder of the model', bundledModel)
    .option('-i, --image <file>', 'the picture')
    .option('-p, --prompt <text>', 'the question')
    .requiredOption('-o, --out <folder>', 'where to write; made if need be')
    .option('--answer <text>', "explain this answer instead of the model's own")
    .option('-s, --short', 'ask for a single word or phrase, as the questions of the training data are put')
    .option('--max-new-tokens <n>', 'longest answer in tokens', parseCount, 32)
    .option('--no-encoder', 'do not follow relevancy through the encoder: half of the time')
    .option('--lens', 'also read image rows of every layer as words (logit lens)')
    .option('--no-faithfulness', 'do not measure deletion and insertion: much faster on large models')
    .option('--steps <n>', 'steps of deletion and insertion', parseCount, 12)
    .option('-b, --batch <file>', 'many questions: LLaVA JSON, or question.jsonl')
    .option('--image-folder <folder>', 'what the image paths of --batch are relative to')
    .option('--scenes <n>', 'so many questions about drawn scenes, where it is known what lies where', parseCount)
    .option('--split <split>', 'of --scenes: unseen-scenes or unseen-artist', 'unseen-scenes')
    .option('-n, --limit <n>', 'at most so many questions of --batch', parseCount)
    .option('--seed <n>', 'of scenes, random orders and ties', parseSeed, 1)
    .option('--memory-limit <size>', 'most that a pass may hold beside the weights: 8GB, ... (default: half of the memory)', parseSize)
    .addOption(quantizeOption())
    .addHelpText(
      'after',
      `
Examples:
  $ llava-gemma explain --image cat.png --short --prompt "What is at the top left?" --out why
  $ llava-gemma explain --batch questions.json --image-folder pictures --out maps
  $ llava-gemma explain --scenes 500 --no-faithfulness --out pointing`,
    )
    .action(async (flags) => (await import('./run/explain.ts')).explain(flags));
}
