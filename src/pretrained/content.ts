// What stands for the content of a model's files, so that it shows when another one is in its place.

import { createHash } from 'node:crypto';
import { createReadStream, readdirSync, statSync } from 'node:fs';
import { basename, join } from 'node:path';
import { onDisk } from '../disk.ts';

/** Bytes at either end of a weights file that stand for all of it. */
const ENDS = 1 << 20;

/** Size and SHA-256 of a file; of weights, which may be large, of both ends. */
export async function contentOf(path: string): Promise<string> {
  const { size } = onDisk(path, () => statSync(path));
  const hash = createHash('sha256');
  const isLarge = path.endsWith('.safetensors') && size > 2 * ENDS;
  const parts = isLarge ? [{ end: ENDS - 1 }, { start: size - ENDS }] : [{}];
  for (const part of parts) for await (const bytes of createReadStream(path, part)) hash.update(bytes);
  return `${size} bytes, sha256 ${hash.digest('hex')}`;
}

/** The files that define a model or a tokenizer. */
export function modelFiles(folder: string): string[] {
  const names = onDisk(folder, () => readdirSync(folder)).filter((name) => /\.(json|jinja|safetensors)$/.test(name));
  return names.sort().map((name) => join(folder, name));
}

/** SHA-256 of the files that define the model in a folder. */
export async function modelContent(folder: string): Promise<string> {
  const hash = createHash('sha256');
  for (const path of modelFiles(folder)) hash.update(`${basename(path)}: ${await contentOf(path)}\n`);
  return hash.digest('hex');
}
