// llava-gemma data: the emoji scenes as LLaVA JSON and an image folder, to look at or to train on with other software.
import type { Command } from 'commander';
import { UserError } from '../errors.ts';
import { parseCount, parseSeed } from './options.ts';

interface DataOptions {
  out: string;
  trainScenes: number;
  evaluationScenes: number;
  size?: number;
  seed: number;
  heldOutArtist?: string;
}

async function writeData(options: DataOptions): Promise<void> {
  const [{ buildEmojiDataset }, { loadEmojiGlyphs }] = await Promise.all([
    import('../data/emoji/build.ts'),
    import('../data/emoji/glyphs.ts'),
  ]);
  const { artists } = await loadEmojiGlyphs();
  if (options.heldOutArtist !== undefined && !artists.includes(options.heldOutArtist)) {
    throw new UserError(`--held-out-artist ${options.heldOutArtist}: the artists are ${artists.join(', ')}`);
  }
  const dataset = await buildEmojiDataset(options);
  const rows = { captions: dataset.captions, questions: dataset.questions, ...dataset.evaluation, images: dataset.imageFolder };
  for (const [name, path] of Object.entries(rows)) console.log(`${name.padEnd(16)}${path}`);
}

export function register(program: Command): void {
  program
    .command('data')
    .summary('write the emoji scenes as LLaVA JSON and an image folder')
    .description('Write the emoji scenes - captions, questions and three held-out splits - as LLaVA JSON and an image folder.')
    .requiredOption('-o, --out <folder>', 'folder to write to')
    .option('--train-scenes <n>', 'scenes to train on', parseCount, 4000)
    .option('--evaluation-scenes <n>', 'scenes in each held-out split', parseCount, 200)
    .option('--size <pixels>', 'side of a scene', parseCount)
    .option('--seed <n>', 'the same seed writes the same bytes', parseSeed, 42)
    .option('--held-out-artist <name>', 'the artist of the unseen-artist split')
    .addHelpText('after', '\nExample:\n  $ llava-gemma data --out emoji-scenes --train-scenes 500')
    .action(writeData);
}
