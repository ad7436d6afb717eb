// Texts that have nothing to do with a picture, for the text rows of MIR: definitions of WordNet that come
// with this package, or the lines of a file.

import { readFileSync } from 'node:fs';
import { loadGlosses } from '../data/emoji/texts.ts';
import { onDisk } from '../disk.ts';
import { UserError } from '../errors.ts';
import { createRandom } from '../random.ts';
import { decodeUtf8 } from '../utf8.ts';

/** Definitions one after another that make one text: some hundred words. */
const GLOSSES = 10;

/** `count` texts of ten definitions each, chosen by `seed`. */
export async function bundledTexts(count: number, seed: number): Promise<string[]> {
  const glosses = createRandom(seed, 'alignment texts').shuffle(await loadGlosses());
  return Array.from({ length: count }, (_, i) =>
    Array.from({ length: GLOSSES }, (_, g) => glosses[(i * GLOSSES + g) % glosses.length]).join(' '),
  );
}

/**
 * The first `count` lines of a UTF-8 file that are not blank, a text each. UserError where there are fewer.
 */
export function textsOfFile(path: string, count: number): string[] {
  const content = decodeUtf8(
    onDisk(path, () => readFileSync(path)),
    path,
  );
  const lines = content.split(/\r?\n/).filter((line) => line.trim() !== '');
  if (lines.length < count)
    throw new UserError(`${path}: it has ${lines.length} texts, a line each, and each of ${count} pictures needs one; give --samples`);
  return lines.slice(0, count);
}
