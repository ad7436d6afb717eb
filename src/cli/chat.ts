// llava-gemma chat: questions about a picture, answered in the terminal word by word.
import type { Command } from 'commander';
import { bundledModel } from '../paths.ts';
import { collect, deviceOption, parseCount, parseNonNegative, parsePositive, parseSeed, parseShare, quantizeOption } from './options.ts';

const ofModel = (otherwise: string) => `default: as the model's generation_config.json says, else ${otherwise}`;

export function register(program: Command): void {
  program
    .command('chat')
    .summary('ask about a picture')
    .description(
      'Ask about a picture (PNG, JPEG, WebP, GIF, TIFF, AVIF, BMP or SVG). Answers appear word by word; without --prompt, questions are read line by line.',
    )
    .option('-m, --model <folder>', 'Hugging Face folder of the model', bundledModel)
    .option('-i, --image <file>', 'the picture; may be given several times', collect, [])
    .option('-p, --prompt <text>', 'ask this and end')
    .option('-s, --short', 'ask each question on its own, for a single word or phrase, as the questions of the training data are put')
    .option('--max-new-tokens <n>', `longest answer in tokens (${ofModel('64')})`, parseCount)
    .option('--temperature <t>', `0 takes the likeliest word; higher is more varied (${ofModel('0')})`, parseNonNegative)
    .option('--top-p <p>', `sample among the likeliest words that make up this probability (${ofModel('1')})`, parseShare)
    .option('--top-k <n>', `sample among so many of the likeliest words (${ofModel('all')})`, parseCount)
    .option('--repetition-penalty <p>', `above 1, words that were said before become less likely (${ofModel('1')})`, parsePositive)
    .option('--seed <n>', 'seed of the sampling', parseSeed, 42)
    .addOption(quantizeOption())
    .addOption(deviceOption())
    .addHelpText(
      'after',
      `
Examples:
  $ llava-gemma chat --image cat.png --short
  $ llava-gemma chat --image cat.png --prompt "How many things are in the picture?"
  $ llava-gemma chat --model runs/demo/checkpoints/finetune --image cat.png`,
    )
    .action(async (flags) => (await import('./run/chat.ts')).chat(flags));
}
