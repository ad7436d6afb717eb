// What stands for the content of a model's files, so that it shows when another one is in its place.

import { createHash } from 'node:crypto';
import { createReadStream, readdirSync, statSync } from 'node:fs';
import { basename, join } from 'node:path';
import { onDisk } from '../disk.ts';

/** Bytes at either end of a large weights file that once stood for all of it, and are told still. */
const ENDS = 1 << 20;

/** Between what stood for content once, and what does now. */
const WHOLE = '; whole ';

/** Of a large weights file, both ends and the whole; of another, which is always read whole, `ends` alone. */
interface Content {
  ends: string;
  whole?: string;
}

/** What this process has read: large files are asked for again and again, and rarely change meanwhile. */
const known = new Map<string, Promise<Content>>();

function read(path: string): Promise<Content> {
  const { size, mtimeNs, ctimeNs, ino } = onDisk(path, () => statSync(path, { bigint: true }));
  const key = [size, mtimeNs, ctimeNs, ino, path].join(' ');
  const reading = known.get(key) ?? hashed(path, Number(size));
  known.set(key, reading);
  reading.catch(() => known.delete(key));
  return reading;
}

async function hashed(path: string, size: number): Promise<Content> {
  const digestOf = async (...parts: { start?: number; end?: number }[]) => {
    const hash = createHash('sha256');
    for (const part of parts) for await (const bytes of createReadStream(path, { ...part, highWaterMark: 1 << 20 })) hash.update(bytes);
    return hash.digest('hex');
  };
  const textOf = (digest: string) => `${size} bytes, sha256 ${digest}`;
  if (!path.endsWith('.safetensors') || size <= 2 * ENDS) return { ends: textOf(await digestOf({})) };
  return { ends: textOf(await digestOf({ end: ENDS - 1 }, { start: size - ENDS })), whole: await digestOf({}) };
}

const joined = (ends: string, whole: string | undefined) => (whole === undefined ? ends : `${ends}${WHOLE}${whole}`);

/** Size and SHA-256 of a file. Of large weights a few seconds for each GB, once in a process. */
export async function contentOf(path: string): Promise<string> {
  const { ends, whole } = await read(path);
  return joined(ends, whole);
}

/** The files that define a model or a tokenizer. */
export function modelFiles(folder: string): string[] {
  const names = onDisk(folder, () => readdirSync(folder)).filter((name) => /\.(json|jinja|safetensors)$/.test(name));
  return names.sort().map((name) => join(folder, name));
}

/** SHA-256 of the files that define the model in a folder. */
export async function modelContent(folder: string): Promise<string> {
  const [ends, whole] = [createHash('sha256'), createHash('sha256')];
  let isLarge = false;
  for (const path of modelFiles(folder)) {
    const content = await read(path);
    isLarge ||= content.whole !== undefined;
    ends.update(`${basename(path)}: ${content.ends}\n`);
    whole.update(`${basename(path)}: ${joined(content.ends, content.whole)}\n`);
  }
  return joined(ends.digest('hex'), isLarge ? whole.digest('hex') : undefined);
}

/**
 * Whether what a run or a study kept of content is that of today. What earlier versions kept of large weights
 * is of their ends alone: runs and studies that they began can be gone on with.
 */
export const isSameContent = (before: string | undefined, now: string): boolean =>
  before !== undefined && (before === now || now.startsWith(`${before}${WHOLE}`));
