// Files in which benchmarks are published, read with the line of whatever is wrong.

import { existsSync, readdirSync, readFileSync, statSync } from 'node:fs';
import { basename, join } from 'node:path';
import { z } from 'zod';
import { onDisk } from '../disk.ts';
import { UserError } from '../errors.ts';
import { refusePointer } from '../git-lfs.ts';
import { decodeUtf8 } from '../utf8.ts';
import type { QuestionPicture } from './benchmark.ts';

/** The text of a file. UserError if it is missing, not UTF-8, or a pointer of git-lfs. */
export function readText(path: string): string {
  const bytes = onDisk(path, () => readFileSync(path));
  refusePointer(bytes, path);
  const text = decodeUtf8(bytes, path);
  return text.startsWith('\ufeff') ? text.slice(1) : text;
}

const problemOf = (error: z.ZodError) =>
  z
    .prettifyError(error)
    .split('\n')
    .map((line) => line.trim())
    .join(' ');

/** A JSON file of a known form; `form` says in words what it should hold. */
export function readJson<T>(path: string, schema: z.ZodType<T>, form: string): T {
  let value: unknown;
  try {
    value = JSON.parse(readText(path));
  } catch (error) {
    if (error instanceof UserError) throw error;
    throw new UserError(`${path}: is not JSON (${(error as Error).message}); it should be ${form}`);
  }
  const parsed = schema.safeParse(value);
  if (!parsed.success) throw new UserError(`${path}: ${problemOf(parsed.error)}; it should be ${form}`);
  return parsed.data;
}

/** The lines of a JSON Lines file, each with its place; `form` says in words what it should hold. */
export function readJsonLines<T>(path: string, schema: z.ZodType<T>, form: string): { value: T; where: string }[] {
  const lines: { value: T; where: string }[] = [];
  readText(path)
    .split('\n')
    .forEach((line, index) => {
      if (line.trim() === '') return;
      const where = `${basename(path)}:${index + 1}`;
      let value: unknown;
      try {
        value = JSON.parse(line);
      } catch (error) {
        throw new UserError(`${path}:${index + 1}: is not JSON (${(error as Error).message}); the file should be ${form}`);
      }
      const parsed = schema.safeParse(value);
      if (!parsed.success) throw new UserError(`${path}:${index + 1}: ${problemOf(parsed.error)}; the file should be ${form}`);
      lines.push({ value: parsed.data, where });
    });
  if (lines.length === 0) throw new UserError(`${path}: is empty; it should be ${form}`);
  return lines;
}

/** The first of several places in a folder where something is. */
export const firstOf = (folder: string, places: readonly string[]): string | undefined =>
  places.map((place) => join(folder, place)).find((path) => existsSync(path));

/** A picture in a folder. Whether it is there shows when it is read. */
export const pictureIn = (folder: string, name: string): QuestionPicture => ({ name, read: async () => join(folder, name) });

/** A picture that is a file. Whether it is there shows when it is read. */
export const pictureFile = (path: string, name = basename(path)): QuestionPicture => ({ name, read: async () => path });

/**
 * The file that is meant by a path: itself or, of a folder, LLaVA's merge.jsonl or the only file whose name
 * ends in one of `endings`. UserError that says what is expected.
 */
export function fileIn(path: string, endings: readonly string[], form: string): string {
  if (!onDisk(path, () => statSync(path)).isDirectory()) return path;
  const names = readdirSync(path).filter((name) => endings.some((ending) => name.endsWith(ending)));
  const [only] = names.includes('merge.jsonl') ? ['merge.jsonl'] : names;
  if (only === undefined || (names.length > 1 && only !== 'merge.jsonl'))
    throw new UserError(
      `${path}: is a folder with ${names.length === 0 ? 'no' : names.length} files ${endings.join(' or ')}; give one of ${form}`,
    );
  return join(path, only);
}
