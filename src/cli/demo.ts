// llava-gemma demo: the whole way in minutes - train on drawn scenes, score on held-out ones, show answers,
// say how to chat.
import { join } from 'node:path';
import type { Command } from 'commander';

/** The run folder of the demo. */
export const demoFolder = join('runs', 'demo');

export function register(program: Command): void {
  program
    .command('demo')
    .summary('train and score a small model in minutes')
    .description(
      `Train a small vision-language model on drawn scenes, score it on scenes by an artist that it never saw, and show some answers.
Everything is written to ${demoFolder}, replacing an earlier demo.`,
    )
    .action(async () => (await import('./run/demo.ts')).demo(demoFolder));
}
