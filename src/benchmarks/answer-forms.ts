// Files of answers that may have one of several forms: which file, which form, what is malformed.

import { readdirSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { z } from 'zod';
import { onDisk } from '../disk.ts';
import { UserError } from '../errors.ts';
import type { JsonFile } from './json-entries.ts';

/** Fields of LLaVA's answers.jsonl. */
const LINE_FIELDS = ['question_id', 'prompt', 'text', 'answer_id', 'model_id', 'metadata'];

/** Whether a file is LLaVA's answers.jsonl, and not one object or array. UserError if it is neither. */
export function isLines(file: JsonFile): boolean {
  if (file.kind === 'other') throw new UserError(`${file.path}: is not JSON; it should be ${file.form}`);
  const { value: first } = file.entries().next();
  return (first !== undefined && LINE_FIELDS.includes(first.key ?? '')) || !file.isWhole;
}

/**
 * The file of answers at a path: itself, or the only one in a folder, of those that begin with `preferred` if
 * there are some. UserError where it cannot be told; `form` says what it should be.
 */
export function answerFileAt(path: string, form: string, preferred = ''): string {
  if (!onDisk(path, () => statSync(path)).isDirectory()) return path;
  const all = readdirSync(path).filter((name) => /\.jsonl?$/.test(name));
  const named = all.filter((name) => name.startsWith(preferred));
  const files = named.length > 0 ? named : all;
  if (files.length === 1) return join(path, files[0]);
  throw new UserError(`${path}: is a folder with ${files.length} files that may be it; name the one with ${form}`);
}

/** A value of a known form. UserError that names its place. */
export function parseEntry<T>(schema: z.ZodType<T>, value: unknown, place: string, form: string): T {
  const { data, error } = schema.safeParse(value);
  if (error) throw new UserError(`${place}: ${z.prettifyError(error).replaceAll(/\s+/g, ' ')}; it should be ${form}`);
  return data;
}
