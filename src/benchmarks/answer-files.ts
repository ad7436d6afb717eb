// Answers in the files in which they are handed in: LLaVA's answers.jsonl, or a benchmark's own records, as a
// JSON array, as JSON Lines, or as one object from ids to answers.

import { readdirSync, statSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { z } from 'zod';
import { onDisk } from '../disk.ts';
import { UserError } from '../errors.ts';
import { type AnswerLine, readLlavaAnswers } from './answers.ts';
import { readJsonLines } from './files.ts';
import { JsonFile } from './json-entries.ts';

/** A benchmark's own records. */
export interface RecordForm {
  /** Field of the question's id. */
  id: string;
  /** Field of the answer's text. */
  answer: string;
  /** What they are, in words: `results of VQA (question_id and answer)`. */
  about: string;
}

const isObject = (value: unknown): value is Record<string, unknown> => typeof value === 'object' && value !== null;
const isId = (value: unknown) => typeof value === 'number' || (typeof value === 'string' && value !== '');

/** The answer of a record, which may also be one of LLaVA's; a sentence where it is none. */
function readRecord(value: unknown, { id, answer }: RecordForm): Omit<AnswerLine, 'where'> | string {
  if (!isObject(value)) return 'is no record';
  const [idField, textField] = !(answer in value) && 'text' in value ? ['question_id', 'text'] : [id, answer];
  const { [idField]: givenId, [textField]: text, prompt } = value;
  if (!isId(givenId)) return `has no ${idField}`;
  // some systems write a count as a number
  if (typeof text !== 'string' && typeof text !== 'number') return `${textField} is ${text === undefined ? 'missing' : 'not a text'}`;
  if (textField === 'text') return { id: String(givenId), text: String(text), prompt: typeof prompt === 'string' ? prompt : undefined };
  return { id: String(givenId), text: String(text), submitted: true };
}

/** Parts of LLaVA's answers, one of each process: `8_0.jsonl`. */
const PART = /^\d+_\d+\.jsonl$/;

/** The files of answers in a folder: LLaVA's merge.jsonl or its parts, or the only one. */
function filesIn(folder: string): string[] {
  const names = readdirSync(folder).filter((name) => /\.jsonl?$/.test(name));
  const parts = names.filter((name) => PART.test(name));
  const meant = names.includes('merge.jsonl') ? ['merge.jsonl'] : names.length === parts.length ? parts : names;
  if (meant.length === 1 || (meant.length > 1 && meant === parts)) return meant.map((name) => join(folder, name));
  throw new UserError(
    `${folder}: is a folder, of which one file is meant: ${names.length > 0 ? names.join(', ') : 'there is no .json or .jsonl in it'}`,
  );
}

/**
 * Answers in LLaVA's form, or in the benchmark's own, which are marked as `submitted`. UserError, with its
 * place, for a record that is neither. A folder stands for the file of answers in it.
 */
export async function readAnswers(path: string, form: RecordForm): Promise<AnswerLine[]> {
  const files = onDisk(path, () => (statSync(path).isDirectory() ? filesIn(path) : [path]));
  return (await Promise.all(files.map((file) => readFile(file, form)))).flat();
}

/** A file that is one JSON value; of JSON Lines only what is in each, so that the bytes are let go. */
function wholeFile(path: string, { id, answer }: RecordForm, forms: string): JsonFile | 'llava' | 'records' {
  const file = new JsonFile(path, forms);
  if (file.kind === 'other') throw new UserError(`${path}: is not JSON; it should be ${forms}`);
  if (file.kind === 'array') return file;
  const keys = file.keys();
  if (keys.includes('text')) return 'llava';
  return keys.includes(id) || keys.includes(answer) || !file.isWhole ? 'records' : file;
}

async function readFile(path: string, form: RecordForm): Promise<AnswerLine[]> {
  const forms = `LLaVA's answers (question_id and text in each line), or ${form.about}`;
  const line = (value: unknown, where: string): AnswerLine => {
    const read = readRecord(value, form);
    if (typeof read === 'string') throw new UserError(`${join(dirname(path), where)}: ${read}; the file should be ${forms}`);
    return { ...read, where };
  };
  const file = wholeFile(path, form, forms);
  if (file === 'llava') return readLlavaAnswers(path);
  if (file === 'records') return readJsonLines(path, z.unknown(), forms).map(({ value, where }) => line(value, where));
  return Array.from(file.entries(), ({ key, value, where }) => {
    if (key === undefined) return line(value, where);
    return line(isObject(value) ? { [form.id]: key, ...value } : { [form.id]: key, [form.answer]: value }, where);
  });
}
