// The answers of a run to one benchmark, as LLaVA's answers.jsonl, written as they come. Whatever ended the
// run, what the file has is not asked again.

import { closeSync, existsSync, fsyncSync, openSync, writeFileSync } from 'node:fs';
import { z } from 'zod';
import { makeFolderOf, onDisk, writeWhole } from '../disk.ts';
import { UserError } from '../errors.ts';
import type { OpenAnswer } from '../evaluate/open-answers.ts';
import { readText } from './files.ts';

export interface AnswerLog {
  /** By question id. Questions that could not be asked are left out: they are tried again. */
  readonly answers: ReadonlyMap<string, OpenAnswer>;
  append(lines: readonly OpenAnswer[]): void;
  close(): void;
}

const lineSchema = z.object({
  question_id: z.string(),
  prompt: z.string(),
  text: z.string(),
  answer_id: z.string(),
  model_id: z.string(),
  metadata: z.object({
    problem: z.string().optional(),
    prompt_tokens: z.number().optional(),
    tokens: z.number().optional(),
    seconds: z.number().optional(),
  }),
});

/** A line that a killed run did not finish ends the file; undefined for it. */
function parseLine(path: string, line: string, number: number, isLast: boolean): OpenAnswer | undefined {
  try {
    return lineSchema.parse(JSON.parse(line));
  } catch {
    if (isLast) return undefined;
    throw new UserError(`${path}:${number}: is not an answer of a run; remove the line, and its question will be asked again`);
  }
}

/** The answers in the text of such a file. UserError names a line that is damaged. */
function parseAnswers(path: string, text: string): OpenAnswer[] {
  const lines = text.split('\n');
  return lines.flatMap((line, index) => {
    if (line.trim() === '') return [];
    // what has no line break behind it was being written
    return parseLine(path, line, index + 1, index === lines.length - 1) ?? [];
  });
}

const textOf = (path: string) => (existsSync(path) ? readText(path) : '');

/** Answers in a file of a run; none where there is no file. UserError names a line that is damaged. */
export const readAnswerLog = (path: string): OpenAnswer[] => parseAnswers(path, textOf(path));

/** Opens the file of a run's answers to go on with it. */
export function openAnswerLog(path: string): AnswerLog {
  makeFolderOf(path);
  const text = textOf(path);
  const found = parseAnswers(path, text).filter(({ metadata }) => metadata.problem === undefined);
  const answers = new Map(found.map((line) => [String(line.question_id), line]));
  const kept = [...answers.values()].map((line) => `${JSON.stringify(line)}\n`).join('');
  if (kept !== text) writeWhole(path, kept);
  const file = onDisk(path, () => openSync(path, 'a'));
  return {
    answers,
    append(lines) {
      onDisk(path, () => writeFileSync(file, lines.map((line) => `${JSON.stringify(line)}\n`).join('')));
      for (const line of lines) answers.set(String(line.question_id), line);
    },
    close() {
      onDisk(path, () => fsyncSync(file));
      closeSync(file);
    },
  };
}
