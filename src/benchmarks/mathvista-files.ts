// Files of MathVista: its questions (testmini.json, the Parquet of Hugging Face) and outputs of models, which
// hold the questions as well, and perhaps what was extracted from each response and how that was scored.

import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { z } from 'zod';
import { onDisk } from '../disk.ts';
import { UserError } from '../errors.ts';
import { answerFileAt, isLines, parseEntry } from './answer-forms.ts';
import { type AnswerLine, readLlavaAnswers, refuseRepeated } from './answers.ts';
import type { QuestionPicture } from './benchmark.ts';
import { firstOf, pictureFile } from './files.ts';
import { JsonFile } from './json-entries.ts';
import { ParquetFile } from './parquet.ts';

/** A problem as MathVista has it. */
export interface Problem {
  id: string;
  where: string;
  questionType: string;
  answerType: string;
  choices: readonly string[] | undefined;
  precision: number | undefined;
  /** undefined where it is kept back, as on the test split. */
  answer: string | undefined;
  /** What a model is asked: as the file words it, else as the data set's queries are worded. */
  query: string;
  /** By the names of GROUPINGS. */
  groups: Readonly<Record<string, Group>>;
  picture: QuestionPicture;
}

/** What the file of an output says of an answer beside its text. */
export interface Stored {
  extraction?: unknown;
  prediction?: unknown;
  trueFalse?: boolean;
}

export interface MathVistaLine extends AnswerLine {
  stored?: Stored;
  /** The problem itself, where the file has it. */
  problem?: Problem;
}

export const PARQUET = 'data/testmini-00000-of-00001-725687bf7a18d64b.parquet';
export const QUESTION_PLACES = [
  'testmini.json',
  PARQUET,
  'testmini-00000-of-00001-725687bf7a18d64b.parquet',
  'data/testmini.json',
] as const;
export const PROMPT_PLACES = ['ext_ans.py', 'evaluation/prompts/ext_ans.py', 'prompts/ext_ans.py'] as const;

const QUESTION_FORMS = "MathVista's problems: testmini.json, the Parquet file of Hugging Face, or an output that holds them";
export const ANSWER_FORMS = "answers to MathVista: an output JSON (pid, response, perhaps extraction), or LLaVA's answers.jsonl";

/** Fields by which scores are told apart, in the order of calculate_score.py. */
export const GROUPINGS = ['question_type', 'answer_type', 'language', 'source', 'category', 'task', 'context', 'grade', 'skills'] as const;

const optional = <T extends z.ZodType>(schema: T) => schema.nullish().transform((value) => value ?? undefined);

const problemSchema = z
  .looseObject({
    question: z.string(),
    image: optional(z.string()),
    choices: optional(z.array(z.string())),
    unit: optional(z.string()),
    precision: optional(z.number()),
    answer: optional(z.string()),
    question_type: z.enum(['multi_choice', 'free_form']),
    answer_type: z.enum(['text', 'integer', 'float', 'list']),
    metadata: optional(z.record(z.string(), z.unknown())),
    query: optional(z.string()),
  })
  .refine(({ question_type, choices }) => question_type !== 'multi_choice' || (choices?.length ?? 0) > 0, 'choices: there are none')
  .refine(
    ({ question_type, answer_type }) => question_type === 'multi_choice' || answer_type !== 'text',
    'answer_type: is text without choices',
  );

type Group = string | readonly string[];

const isGroup = (value: unknown): value is Group =>
  typeof value === 'string' || (Array.isArray(value) && value.every((member) => typeof member === 'string'));

/** Each group that was met, once: many problems share few. */
const met = new Map<string, Group>();

/** What scores are told apart by. */
function groupsOf(fields: Readonly<Record<string, unknown>>): Record<string, Group> {
  const groups: Record<string, Group> = {};
  for (const name of GROUPINGS) {
    const value = fields[name];
    if (!isGroup(value)) continue;
    const key = JSON.stringify(value);
    if (!met.has(key)) met.set(key, value);
    groups[name] = met.get(key)!;
  }
  return groups;
}

const HINTS: Record<string, string> = {
  text: 'and provide the correct option letter, e.g., A, B, C, D, at the end.',
  integer: 'requiring an integer answer and provide the final value, e.g., 1, 2, 3, at the end.',
  'float 1': 'requiring a floating-point number with one decimal place and provide the final value, e.g., 1.2, 1.3, 1.4, at the end.',
  'float 2': 'requiring a floating-point number with two decimal places and provide the final value, e.g., 1.23, 1.34, 1.45, at the end.',
  list: 'requiring a Python list as an answer and provide the final list, e.g., [1, 2, 3], [1.2, 1.3, 1.4], at the end.',
};

/** What of a problem its query is made of. */
export interface QueryFields {
  question: string;
  question_type: string;
  answer_type: string;
  choices?: readonly string[];
  unit?: string;
  precision?: number;
}

/** What a model is asked, worded as the data set's `query`. */
export function queryOf({ question, question_type, answer_type, precision, unit, choices = [] }: QueryFields): string {
  const type = question_type === 'multi_choice' ? 'text' : answer_type === 'float' ? `float ${precision ?? 1}` : answer_type;
  const lines = [
    `Hint: Please answer the question ${HINTS[type] ?? HINTS['float 2']}`,
    `Question: ${question}${unit === undefined ? '' : ` (Unit: ${unit})`}`,
  ];
  if (choices.length > 0) lines.push('Choices:', ...choices.map((choice, i) => `(${String.fromCharCode(65 + i)}) ${choice}`));
  return lines.join('\n').trim();
}

/** UserError, with its place, for a problem that is malformed. */
function problemOf(id: string, value: unknown, place: string, pictureOf: (image: string | undefined) => QuestionPicture): Problem {
  const data = parseEntry(problemSchema, value, place, QUESTION_FORMS);
  const { choices, precision, answer, question_type, answer_type, metadata = {}, query } = data;
  return {
    id,
    where: basename(place),
    questionType: question_type,
    answerType: answer_type,
    choices,
    precision,
    answer: answer === '' ? undefined : answer,
    query: query ?? queryOf(data),
    groups: groupsOf({ ...metadata, question_type, answer_type }),
    picture: pictureOf(data.image),
  };
}

const fileOf = (folder: string) => (image: string | undefined) => pictureFile(join(folder, image ?? 'images/'), image ?? '');

const fieldOf = (value: unknown, name: string): unknown =>
  typeof value === 'object' && value !== null ? (value as Record<string, unknown>)[name] : undefined;

function idOf(key: string | undefined, value: unknown, place: string): string {
  const pid = key ?? fieldOf(value, 'pid');
  if (typeof pid !== 'string' && typeof pid !== 'number') throw new UserError(`${place}: has no pid`);
  return String(pid);
}

/** Problems of one file; `folder` has the pictures. UserError, with its place, for what is malformed. */
export async function readProblems(path: string, folder: string): Promise<Problem[]> {
  const problems = path.endsWith('.parquet')
    ? await readParquet(path)
    : Array.from(new JsonFile(path, QUESTION_FORMS).entries(), ({ key, value, where }) => {
        const place = join(dirname(path), where);
        return problemOf(idOf(key, value, place), value, place, fileOf(folder));
      });
  refuseRepeated(path, 'questions', problems);
  return problems;
}

const COLUMNS = ['pid', 'question', 'image', 'choices', 'unit', 'precision', 'answer', 'question_type', 'answer_type', 'metadata', 'query'];

async function readParquet(path: string): Promise<Problem[]> {
  const file = await ParquetFile.open(path);
  const rows = await file.read(COLUMNS.filter((column) => column !== 'query' || file.columns.includes(column)));
  return rows.map((row, index) => {
    const place = `${path}, row ${index + 1}`;
    return problemOf(idOf(undefined, row, place), row, place, (image) => file.picture('decoded_image', index, image ?? String(index)));
  });
}

/** The file of problems in a folder, else an output that holds them; undefined where there is none. */
export function problemFileIn(folder: string): string | undefined {
  const output = () =>
    readdirSync(folder)
      .filter((name) => /^output_.*\.json$/.test(name))
      .sort()
      .map((name) => join(folder, name))[0];
  return firstOf(folder, QUESTION_PLACES) ?? (existsSync(folder) ? output() : undefined);
}

const outputSchema = z.looseObject({
  response: optional(z.union([z.string(), z.number()])),
  extraction: z.unknown().optional(),
  prediction: z.unknown().optional(),
  true_false: optional(z.boolean()),
});

function lineOf(id: string, value: unknown, where: string, place: string): MathVistaLine {
  if (typeof value === 'string' || typeof value === 'number') return { id, where, text: String(value) };
  const data = parseEntry(outputSchema, value, place, ANSWER_FORMS);
  const label = Object.keys(data).find((name) => name.startsWith('response'));
  if (label === undefined && data.extraction === undefined)
    throw new UserError(`${place}: has neither a response nor an extraction; it should be ${ANSWER_FORMS}`);
  const stored = { extraction: data.extraction, prediction: data.prediction, trueFalse: data.true_false };
  const problem = 'question_type' in data ? problemOf(id, value, place, fileOf(dirname(place))) : undefined;
  return { id, where, text: String(data.response ?? (label === undefined ? '' : (data[label] ?? ''))), stored, problem };
}

/** Answers in every form. UserError, with its place, for what is none. */
export async function readAnswerFile(given: string): Promise<{ path: string; lines: MathVistaLine[] }> {
  const path = answerFileAt(given, ANSWER_FORMS, 'output');
  const file = new JsonFile(path, ANSWER_FORMS);
  if (isLines(file)) return { path, lines: await readLlavaAnswers(path) };
  const lines = Array.from(file.entries(), ({ key, value, where }) => {
    const place = join(dirname(path), where);
    return lineOf(idOf(key, value, place), value, where, place);
  });
  if (lines.length === 0) throw new UserError(`${path}: is empty; it should be ${ANSWER_FORMS}`);
  return { path, lines };
}

/** The text of `demo_prompt` in ext_ans.py. UserError where the file has none. */
export function readDemoPrompt(path: string): string {
  const source = onDisk(path, () => readFileSync(path, 'utf8'));
  const [, literal] = /demo_prompt\s*=\s*"""([\s\S]*?)"""/.exec(source) ?? [];
  if (literal === undefined) throw new UserError(`${path}: has no demo_prompt = """..."""`);
  const escapes: Record<string, string> = { n: '\n', t: '\t', r: '\r', '\n': '' };
  return literal
    .replace(/\\([\s\S])/g, (written, character) => escapes[character] ?? ('\\\'"'.includes(character) ? character : written))
    .trim();
}
