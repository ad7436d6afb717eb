// Files of MM-Vet: its questions (mm-vet.json, the Parquet of Hugging Face, LLaVA's question file and the
// capabilities beside it), answers, and grades as mm-vet_evaluator.py keeps them.

import { existsSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { z } from 'zod';
import { UserError } from '../errors.ts';
import { answerFileAt, isLines, parseEntry } from './answer-forms.ts';
import { type AnswerLine, readLlavaAnswers, refuseRepeated } from './answers.ts';
import type { QuestionPicture } from './benchmark.ts';
import { firstOf, pictureFile, readJsonLines } from './files.ts';
import { JsonFile } from './json-entries.ts';
import { ParquetFile } from './parquet.ts';

/** What a file of questions says of one: not every file says all. */
export interface QuestionEntry {
  id: string;
  where: string;
  question?: string;
  reference?: string;
  capabilities?: readonly string[];
  picture?: QuestionPicture;
}

/** An answer, or the grades that one got. */
export interface MmVetLine extends AnswerLine {
  grades?: { scores: number[]; models: string[] };
}

/** LLaVA numbers the questions that MM-Vet calls v1_0, v1_1, ... */
const idOf = (id: string | number | undefined) => (/^\d+$/.test(String(id)) ? `v1_${Number(id)}` : String(id));

const PICTURES = ['images', 'mm-vet/images'] as const;
export const PARQUET = 'data/test-00000-of-00001.parquet';
export const QUESTION_PLACES = ['mm-vet.json', 'mm-vet/mm-vet.json', PARQUET] as const;
export const PICTURE_PLACES = [...PICTURES, PARQUET] as const;
const LLAVA_QUESTIONS = 'llava-mm-vet.jsonl';
const CAPABILITIES = 'capabilities.json';

const QUESTION_FORMS = `MM-Vet's questions: mm-vet.json, the Parquet file of Hugging Face, or LLaVA's ${LLAVA_QUESTIONS} with ${CAPABILITIES}`;
export const ANSWER_FORMS =
  "answers to MM-Vet: one object from ids (v1_0) to texts, LLaVA's answers.jsonl, or the grades that mm-vet_evaluator.py writes";

const capabilityList = z.union([z.array(z.string().min(1)), z.string().transform((text) => text.split(/\s*,\s*/))]);

const listOnly = z.array(z.string().min(1));

const entry = z.looseObject({
  question: z.string(),
  answer: z.string(),
  capability: capabilityList,
  imagename: z.string().optional(),
});

const llavaQuestion = z.looseObject({ question_id: z.union([z.string(), z.number()]), image: z.string(), text: z.string() });

/** Questions of one file. UserError, with its place, for what is malformed. */
export async function readQuestionFile(path: string, folder: string): Promise<QuestionEntry[]> {
  const pictures = firstOf(folder, PICTURES) ?? join(folder, PICTURES[0]);
  const picture = (name: string) => pictureFile(join(pictures, name), name);
  const entries = path.endsWith('.parquet')
    ? await readParquet(path)
    : path.endsWith('.jsonl')
      ? readJsonLines(path, llavaQuestion, QUESTION_FORMS).map(({ value: { question_id, image, text }, where }) => {
          return { id: idOf(question_id), where, question: text, picture: picture(image) };
        })
      : readObject(path, picture);
  refuseRepeated(path, 'questions', entries);
  return entries;
}

function readObject(path: string, picture: (name: string) => QuestionPicture): QuestionEntry[] {
  return Array.from(new JsonFile(path, QUESTION_FORMS).entries(), ({ key, value, where }): QuestionEntry => {
    const [id, place] = [idOf(key), join(dirname(path), where)];
    // a list of capabilities is all that some files have
    if (Array.isArray(value)) return { id, where, capabilities: parseEntry(listOnly, value, place, QUESTION_FORMS) };
    const { question, answer, capability, imagename } = parseEntry(entry, value, place, QUESTION_FORMS);
    return { id, where, question, reference: answer, capabilities: capability, picture: picture(imagename ?? `${id}.png`) };
  });
}

async function readParquet(path: string): Promise<QuestionEntry[]> {
  const file = await ParquetFile.open(path);
  const id = file.columns.includes('question_id') ? 'question_id' : 'id';
  const rows = await file.read([id, 'question', 'answer', 'capability']);
  return rows.map((row, index) => {
    const where = `${basename(path)}, row ${index + 1}`;
    const { question, answer, capability } = parseEntry(entry, row, `${path}, row ${index + 1}`, QUESTION_FORMS);
    const name = idOf(row[id] as string | number);
    return { id: name, where, question, reference: answer, capabilities: capability, picture: file.picture('image', index, name) };
  });
}

/** The question files in a folder; none where there are none. */
export function questionFilesIn(folder: string): string[] {
  const whole = firstOf(folder, QUESTION_PLACES);
  if (whole !== undefined) return [whole];
  return [LLAVA_QUESTIONS, CAPABILITIES].map((name) => join(folder, name)).filter((path) => existsSync(path));
}

const grades = z.looseObject({
  score: z.array(z.number().min(0).max(1)).min(1, 'score: has no grade'),
  model: z.array(z.string()).optional(),
});

/** Answers or grades in every form. UserError, with its place, for what is neither. */
export async function readAnswerFile(given: string): Promise<{ path: string; lines: MmVetLine[] }> {
  const path = answerFileAt(given, ANSWER_FORMS);
  const file = new JsonFile(path, ANSWER_FORMS);
  if (isLines(file)) {
    const lines = await readLlavaAnswers(path);
    return { path, lines: lines.map((line) => ({ ...line, id: idOf(line.id) })) };
  }
  if (file.kind === 'array') throw new UserError(`${path}: should be ${ANSWER_FORMS}`);
  const lines = Array.from(file.entries(), ({ key, value, where }): MmVetLine => {
    const line = { id: idOf(key), where };
    if (typeof value === 'string' || typeof value === 'number') return { ...line, text: String(value) };
    if (value === null) return { ...line, text: '' };
    const { score, model = [] } = parseEntry(grades, value, join(dirname(path), where), ANSWER_FORMS);
    return { ...line, text: '', grades: { scores: score, models: model } };
  });
  if (lines.length === 0) throw new UserError(`${path}: is empty; it should be ${ANSWER_FORMS}`);
  return { path, lines };
}
