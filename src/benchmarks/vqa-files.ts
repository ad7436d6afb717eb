// Questions and annotations in the form of the VQA data set (visualqa.org), which VizWiz and others share,
// and LLaVA's question files.

import { basename } from 'node:path';
import { z } from 'zod';
import { UserError } from '../errors.ts';
import { readJsonLines } from './files.ts';
import { JsonFile } from './json-entries.ts';

/** What the annotators said to a question. */
export interface VqaAnnotation {
  answers: string[];
  /** What else the entry of each answer has, as JSON: who gave it, and how sure they were. */
  marks: string[];
  answerType?: string;
  questionType?: string;
}

/** A question as the files have it. */
export interface VqaEntry {
  id: string;
  question?: string;
  /** What the file says of its picture: a number of COCO, or a file name. */
  image: string;
  /** Its number in LLaVA's question file, where that is another. */
  alias?: string;
  annotation?: VqaAnnotation;
}

const idSchema = z.union([z.number(), z.string().min(1)]).transform(String);
const answerEntry = z.union([z.looseObject({ answer: z.string() }), z.string()]);

/** Fields that tell what annotators said: those of VQA, and of VizWiz's own files. */
export const annotationFields = {
  answers: z.array(answerEntry).min(1),
  answer_type: z.string().optional(),
  question_type: z.string().optional(),
};

const annotationSchema = z.object({ question_id: idSchema, image_id: idSchema, ...annotationFields });
const questionSchema = z.object({ question_id: idSchema, image_id: idSchema, question: z.string() });

/** The first fault, in words. */
export const faultOf = (error: z.ZodError): string => {
  const [{ path, message }] = error.issues;
  return path.length > 0 ? `${path.join('.')}: ${message}` : message;
};

/** What a file says of the annotators' answers. */
export const annotationOf = ({ answers, answer_type, question_type }: z.output<z.ZodObject<typeof annotationFields>>): VqaAnnotation => ({
  answers: answers.map((entry) => (typeof entry === 'string' ? entry : entry.answer)),
  marks: answers.map((entry) => (typeof entry === 'string' ? '' : markOf(entry))),
  answerType: answer_type,
  questionType: question_type,
});

/** The fields that entries have beside the answer; a data set has few different ones. */
const MARKS = ['answer_confidence', 'answer_id'];

const known = new Map<string, string>();

/** Equal for equal entries; the very same text, of which a data set has millions. */
function markOf(entry: Record<string, unknown>): string {
  const mark = MARKS.map((field) => entry[field] ?? '').join('\n');
  const same = known.get(mark) ?? mark;
  if (known.size < 100) known.set(mark, same);
  return same;
}

/** The value of an entry. UserError, with its place, if it is not as `schema` says. */
export function checked<T>(file: JsonFile, schema: z.ZodType<T>, value: unknown, where: string): T {
  const parsed = schema.safeParse(value);
  if (parsed.success) return parsed.data;
  throw new UserError(`${file.path}: ${where}: ${faultOf(parsed.error)}; the file should be ${file.form}`);
}

/** Puts what a file in VQA's form says into `entries`, by question. */
function readVqaFile(file: JsonFile, keys: readonly string[], entries: Map<string, VqaEntry>): void {
  if (keys.includes('questions'))
    readInto(file, 'questions', (value, where) => {
      const { question_id: id, image_id: image, question } = checked(file, questionSchema, value, where);
      refuseSecond(file, 'question', id, entries.get(id)?.question);
      entries.set(id, { ...entries.get(id), id, image, question });
    });
  if (keys.includes('annotations'))
    readInto(file, 'annotations', (value, where) => {
      const { question_id: id, image_id: image, ...fields } = checked(file, annotationSchema, value, where);
      refuseSecond(file, 'annotation', id, entries.get(id)?.annotation);
      entries.set(id, { image, ...entries.get(id), id, annotation: annotationOf(fields) });
    });
}

function readInto(file: JsonFile, within: string, read: (value: unknown, where: string) => void): void {
  for (const { value, where } of file.entries(within)) read(value, where);
}

function refuseSecond(file: JsonFile, what: string, id: string, there: unknown): void {
  if (there !== undefined) throw new UserError(`${file.path}: question ${id} has a second ${what}; each must have one`);
}

/** A line of LLaVA's question files. */
const llavaQuestion = z.object({ question_id: idSchema, image: z.string().min(1), text: z.string() });

/** LLaVA's question files: the whole prompt is in `text`. */
export function readLlavaQuestions(path: string) {
  return readJsonLines(path, llavaQuestion, "LLaVA's questions (question_id, image and text in each line)").map(({ value, where }) => ({
    id: value.question_id,
    image: value.image,
    text: value.text,
    where,
  }));
}

/** Whether a file has one JSON value in each line. */
export const isJsonLines = (file: JsonFile): boolean => file.kind === 'object' && (!file.isWhole || file.keys().includes('question_id'));

/**
 * The questions of files in VQA's form, which have questions, annotations or both; `others` reads a file of
 * another form into them. Where questions come with annotations, each must have one. `isAnswered` says
 * whether any has.
 */
export function readVqaQuestions(
  paths: readonly string[],
  form: string,
  others: (file: JsonFile, entries: Map<string, VqaEntry>) => void,
): VqaEntry[] {
  const entries = new Map<string, VqaEntry>();
  let asked = false;
  for (const path of paths) {
    const file = new JsonFile(path, form);
    const keys = isJsonLines(file) ? [] : file.keys();
    asked ||= !keys.includes('annotations') || keys.includes('questions');
    if (keys.includes('questions') || keys.includes('annotations')) readVqaFile(file, keys, entries);
    else others(file, entries);
  }
  // annotations of more questions than are asked do no harm
  const wanted = asked ? [...entries.values()].filter(({ question }) => question !== undefined) : [...entries.values()];
  const annotated = wanted.filter(({ annotation }) => annotation !== undefined).length;
  const bare = wanted.find(({ annotation }) => annotation === undefined);
  if (annotated > 0 && bare)
    throw new UserError(
      `${paths.map((path) => basename(path)).join(', ')}: question ${bare.id} has no annotation, and ${annotated} questions have; are the files of one split?`,
    );
  return wanted;
}
