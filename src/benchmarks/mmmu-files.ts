// The files of MMMU: Parquet files of the Hugging Face data set, the right answers alone, and the output of
// systems in the benchmark's own form, which holds options and right answers too.

import { existsSync, readdirSync, statSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { z } from 'zod';
import { onDisk } from '../disk.ts';
import { UserError } from '../errors.ts';
import { joinById, refuseRepeated } from './answers.ts';
import type { Answered, BenchmarkQuestion } from './benchmark.ts';
import { JsonFile } from './json-entries.ts';
import { parsePythonList } from './mmmu-parsing.ts';
import { letterAnswer, shortAnswer } from './prompts.ts';
import { cellOf, type DataRow, readRows } from './rows.ts';

/** Subjects by domain, in the order of the official table. */
export const DOMAINS: Readonly<Record<string, readonly string[]>> = {
  'Art and Design': ['Art', 'Art_Theory', 'Design', 'Music'],
  Business: ['Accounting', 'Economics', 'Finance', 'Manage', 'Marketing'],
  Science: ['Biology', 'Chemistry', 'Geography', 'Math', 'Physics'],
  'Health and Medicine': ['Basic_Medical_Science', 'Clinical_Medicine', 'Diagnostics_and_Laboratory_Medicine', 'Pharmacy', 'Public_Health'],
  'Humanities and Social Science': ['History', 'Literature', 'Sociology', 'Psychology'],
  'Tech and Engineering': [
    'Agriculture',
    'Architecture_and_Engineering',
    'Computer_Science',
    'Electronics',
    'Energy_and_Power',
    'Materials',
    'Mechanical_Engineering',
  ],
};

/** In alphabetical order, in which the official scorer goes through them. */
export const SUBJECTS: readonly string[] = Object.values(DOMAINS).flat().sort();

export interface MmmuQuestion extends BenchmarkQuestion {
  groups: { subject: string; domain: string };
  /** Without options. */
  isOpen: boolean;
  /** Options by letter; none where only right answers are known. */
  texts: Readonly<Record<string, string>>;
}

/** `validation_Art_Theory_7` is of Art_Theory. */
function groupsOf(id: string, where: string): MmmuQuestion['groups'] {
  const subject = id.split('_').slice(1, -1).join('_');
  const domain = Object.keys(DOMAINS).find((name) => DOMAINS[name].includes(subject));
  if (domain === undefined) throw new UserError(`${where}: ${JSON.stringify(id)} names no subject of MMMU, as validation_Art_7 does`);
  return { subject, domain };
}

const letterOf = (index: number) => String.fromCharCode(65 + index);

/** A question of which only the answer is known: it can be scored, not asked. */
const unasked = (id: string, where: string) => ({ id, prompt: '', pictures: [], cluster: id, groups: groupsOf(id, where) });

/** The first `validation*.parquet` in a folder. */
export function partFile(folder: string): string | undefined {
  if (!existsSync(folder) || !statSync(folder).isDirectory()) return undefined;
  const name = readdirSync(folder).find((entry) => /^validation.*\.parquet$/.test(entry));
  return name === undefined ? undefined : join(folder, name);
}

/** Questions of a Parquet file, a table, or answer_dict_val.json. */
export const readMmmuFile = async (path: string): Promise<MmmuQuestion[]> => (/\.json$/i.test(path) ? readKey(path) : readSubject(path));

const KEY_FORM = 'right answers of MMMU: an object from ids to question_type and ground_truth';
const texts = z.union([z.string(), z.array(z.string())]).transform((value) => [value].flat());
const keyEntry = z.object({ question_type: z.string(), ground_truth: texts });

function readKey(path: string): MmmuQuestion[] {
  const questions = Array.from(new JsonFile(path, KEY_FORM).entries(), ({ key, value, where }) => {
    const parsed = keyEntry.safeParse(value);
    if (key === undefined || !parsed.success)
      throw new UserError(`${path}: ${where}: ${key}: should be question_type and ground_truth, as ${KEY_FORM}`);
    const { question_type, ground_truth } = parsed.data;
    return {
      ...unasked(key, `${path}: ${where}`),
      references: ground_truth,
      isOpen: question_type !== 'multiple-choice',
      texts: {},
      where,
    };
  });
  refuseRepeated(path, 'right answers', questions);
  return questions.map(({ where: _, ...question }) => question);
}

async function readSubject(path: string): Promise<MmmuQuestion[]> {
  const rows = await readRows(path);
  const questions = rows.rows.map((row) => ({ ...questionOf(path, row), where: row.where }));
  refuseRepeated(path, 'questions', questions);
  return questions.map(({ where: _, ...question }) => question);
}

function questionOf(path: string, row: DataRow): MmmuQuestion {
  const place = `${path}: ${row.where}`;
  const needed = (column: string) => {
    const cell = cellOf(row, column);
    if (cell === undefined) throw new UserError(`${place}: has no ${column}; it should be of the data set MMMU/MMMU`);
    return cell;
  };
  const [id, question, answer] = ['id', 'question', 'answer'].map(needed);
  const isOpen = needed('question_type') !== 'multiple-choice';
  const options = isOpen ? [] : parsePythonList(needed('options'), `${place}: options`);
  const letters = options.map((_, i) => letterOf(i));
  if (!isOpen && !letters.includes(answer))
    throw new UserError(
      `${place}: the answer ${JSON.stringify(answer)} of ${id} is none of ${letters.join(', ')}; the test split is scored by its server`,
    );
  const words = isOpen
    ? shortAnswer(question)
    : letterAnswer([question, ...options.map((option, i) => `(${letters[i]}) ${option}`), ''].join('\n'));
  // where a question names no picture, the first is shown before it, as LLaVA's call in MMMU does with all
  const prompt = /<image \d>/.test(words) ? words : `<image 1>\n${words}`;
  const shown = [...prompt.matchAll(/<image (\d)>/g)].map(([, number]) => number);
  return {
    id,
    prompt: prompt.replace(/<image \d>/g, '<image>'),
    pictures: shown.map((number) => row.picture(`image_${number}`, `${id}_${number}`)),
    references: isOpen && /^\[['"]/.test(answer) ? parsePythonList(answer, `${place}: answer`) : [answer],
    cluster: id,
    groups: groupsOf(id, place),
    ...(isOpen ? {} : { options: letters }),
    isOpen,
    texts: Object.fromEntries(options.map((option, i) => [letters[i], option])),
  };
}

const OUTPUT_FORM = "MMMU's output.json: an array of id, question_type, answer, response and, with options, all_choices and index2ans";
const outputEntry = z.object({
  id: z.string().min(1),
  question_type: z.string(),
  answer: texts,
  all_choices: z.array(z.string()).optional(),
  index2ans: z.record(z.string(), z.union([z.string(), z.number()]).transform(String)).optional(),
  response: z.union([z.string(), z.number().transform(String), z.null().transform(() => '')]),
});

/** An answer of a system, and the question as its file has it. */
interface Output {
  question: MmmuQuestion;
  answer: string;
  /** Place among all. */
  turn: number;
  where: string;
}

/**
 * Files of the benchmark's own output at a path: a folder of subjects (`Art/output.json` or `Art.json`), or
 * one file. Undefined where it is something else.
 */
export function outputsAt(path: string): string[] | undefined {
  if (onDisk(path, () => statSync(path)).isDirectory()) {
    const found = SUBJECTS.flatMap((subject) => {
      const places = [join(path, subject, 'output.json'), join(path, `${subject}.json`)].filter((place) => existsSync(place));
      if (places.length > 1) throw new UserError(`${path}: has ${places.join(' and ')}; which is meant?`);
      return places;
    });
    if (found.length > 0) return found;
    throw new UserError(
      `${path}: is a folder without output of MMMU, which is Accounting/output.json or Accounting.json, and so on for each subject`,
    );
  }
  const file = new JsonFile(path, OUTPUT_FORM);
  if (file.kind !== 'array') return undefined;
  const [first] = file.entries();
  return typeof first?.value === 'object' && first.value !== null && 'question_type' in first.value ? [path] : undefined;
}

function readOutputs(path: string): Omit<Output, 'turn'>[] {
  return Array.from(new JsonFile(path, OUTPUT_FORM).entries(), ({ value, where: line }) => {
    const place = `${path}: ${line}`;
    // each subject has an output.json
    const where = line.startsWith('output.json') ? `${basename(dirname(path))}/${line}` : line;
    const parsed = outputEntry.safeParse(value);
    if (!parsed.success) {
      const [{ path: field, message }] = parsed.error.issues;
      throw new UserError(`${place}: ${field.join('.')}: ${message}; it should be an entry of ${OUTPUT_FORM}`);
    }
    const { id, question_type, answer, all_choices, index2ans, response } = parsed.data;
    const isOpen = question_type !== 'multiple-choice';
    if (!isOpen && (all_choices === undefined || all_choices.length === 0 || all_choices.some((letter) => !(letter in (index2ans ?? {})))))
      throw new UserError(`${place}: all_choices and index2ans of ${id} are missing or do not agree`);
    const letters = isOpen ? [] : all_choices!;
    return {
      question: {
        ...unasked(id, place),
        references: answer,
        isOpen,
        texts: Object.fromEntries(letters.map((letter) => [letter, index2ans![letter]])),
        ...(isOpen ? {} : { options: letters }),
      },
      answer: response,
      where,
    };
  });
}

/**
 * Answers with the questions that their files hold, in the order of these files, or of the questions where
 * some were given. UserError for ids that are missing, strange or come twice, and for other right answers.
 */
export function withOutputs(
  path: string,
  files: readonly string[],
  questions: readonly MmmuQuestion[] | undefined,
): (Answered<MmmuQuestion> & { turn: number })[] {
  const outputs: Output[] = files.flatMap(readOutputs).map((output, turn) => ({ ...output, turn }));
  const lines = outputs.map(({ question, answer, where }) => ({
    id: question.id,
    text: answer,
    where,
  }));
  const byId = new Map(outputs.map((output) => [output.question.id, output]));
  const asked = questions ?? outputs.map(({ question }) => question);
  return joinById(path, asked, lines).map(({ question, answer }) => {
    const { question: held, turn, where } = byId.get(question.id)!;
    if (question.references.join('\n') !== held.references.join('\n'))
      throw new UserError(
        `${path}: ${where}: says that ${question.id} is ${held.references.join(' or ')}, but its question file says ${question.references.join(' or ')}`,
      );
    // read by the options that the file has, as the official scorer does
    return { question: { ...question, texts: held.texts, isOpen: held.isOpen }, answer, turn };
  });
}
