// What `llava-gemma data` does.
import { buildEmojiDataset } from '../../data/emoji/build.ts';
import { loadEmojiConcepts } from '../../data/emoji/glyphs.ts';
import { UserError } from '../../errors.ts';

export interface DataFlags {
  out: string;
  trainScenes: number;
  evaluationScenes: number;
  size?: number;
  seed: number;
  heldOutArtist?: string;
}

/** Runs the command. */
export async function writeData(flags: DataFlags): Promise<void> {
  const { artists } = await loadEmojiConcepts();
  if (flags.heldOutArtist !== undefined && !artists.includes(flags.heldOutArtist)) {
    throw new UserError(`--held-out-artist ${flags.heldOutArtist}: the artists are ${artists.join(', ')}`);
  }
  const dataset = await buildEmojiDataset(flags);
  const rows = { captions: dataset.captions, questions: dataset.questions, ...dataset.evaluation, images: dataset.imageFolder };
  for (const [name, path] of Object.entries(rows)) console.log(`${name.padEnd(16)}${path}`);
}
