// Files as one zip file. Weights do not get smaller: nothing is compressed.

import { Zip, ZipPassThrough } from 'fflate';
import { UserError } from '../errors.ts';

/** The format's own limit, without its extension for large files. */
const MOST_BYTES = 2 ** 32 - 2 ** 20;

/** A zip file of `files`, all in one folder. UserError for more than 4 GB. */
export async function zipOf(files: ReadonlyMap<string, Blob>, folder: string): Promise<Blob> {
  const bytes = [...files.values()].reduce((sum, { size }) => sum + size, 0);
  if (bytes > MOST_BYTES) throw new UserError(`a zip file has no room for ${(bytes / 1e9).toFixed(1)} GB: save the files one by one`);
  const parts: Blob[] = [];
  const zip = new Zip((error, part) => {
    if (error) throw error;
    parts.push(new Blob([part as Uint8Array<ArrayBuffer>]));
  });
  for (const [name, file] of files) {
    const entry = new ZipPassThrough(`${folder}/${name}`);
    zip.add(entry);
    for await (const part of piecesOf(file)) entry.push(part);
    entry.push(new Uint8Array(0), true);
  }
  zip.end();
  return new Blob(parts, { type: 'application/zip' });
}

const PIECE_BYTES = 2 ** 24;

async function* piecesOf(file: Blob): AsyncGenerator<Uint8Array> {
  for (let at = 0; at < file.size; at += PIECE_BYTES) yield new Uint8Array(await file.slice(at, at + PIECE_BYTES).arrayBuffer());
}
