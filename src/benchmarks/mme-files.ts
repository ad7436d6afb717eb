// The files of MME: the folders of its release, in both layouts; the text files of its evaluation tool, with
// or without answers; data sets in rows; and answers in LLaVA's form, which have the id of a picture twice.

import { existsSync, readdirSync, statSync } from 'node:fs';
import { basename, extname, join } from 'node:path';
import { isFolder, onDisk } from '../disk.ts';
import { UserError } from '../errors.ts';
import { readAnswers } from './answer-files.ts';
import type { AnswerLine } from './answers.ts';
import type { BenchmarkQuestion, QuestionPicture } from './benchmark.ts';
import { fileIn, pictureFile, readText } from './files.ts';
import { byGroup } from './means.ts';
import { shortAnswer } from './prompts.ts';
import { cellOf, readRows } from './rows.ts';

export const PERCEPTION: readonly string[] = [
  'existence',
  'count',
  'position',
  'color',
  'posters',
  'celebrity',
  'scene',
  'landmark',
  'artwork',
  'OCR',
];
export const COGNITION: readonly string[] = ['commonsense_reasoning', 'numerical_calculation', 'text_translation', 'code_reasoning'];
export const TASKS: readonly string[] = [...PERCEPTION, ...COGNITION];

/** Where the release is looked for. */
export const RELEASE_PLACES: [string, ...string[]] = [
  'MME_Benchmark_release_version',
  '../MME/MME_Benchmark_release_version',
  'MME_Benchmark',
];
/** Where questions without pictures are looked for: the results of other systems have them too. */
export const TEXT_PLACES: [string, ...string[]] = [
  'eval_tool/Your_Results',
  'Your_Results',
  '../MME/eval_tool/Your_Results',
  'eval_tool/LaVIN',
  'LaVIN',
];

export interface MmeQuestion extends BenchmarkQuestion {
  groups: { task: string };
  /** The question's words, by which an answer is matched. */
  words: string;
}

/** Words of a question without what is asked of the form of its answer: files differ in it. */
export const wordsOf = (text: string): string =>
  text
    .replaceAll('<image>', ' ')
    .replace('Answer the question using a single word or phrase.', ' ')
    .replace(/please answer yes or no\.?/i, ' ')
    .replace(/\s+/g, ' ')
    .trim();

/** One of the two questions of a picture, as a file has it. */
interface Line {
  task: string;
  image: string;
  question: string;
  gold: string;
  picture: QuestionPicture;
  /** With the path, for errors. */
  place: string;
  where: string;
  /** What a system answered, where the file says it. */
  answer?: string;
}

/** Questions, numbered by picture. UserError for a picture that has not two, or the same twice. */
function numbered(lines: readonly Line[]): MmeQuestion[] {
  const pictures = byGroup(lines, ({ task, image }) => `${task}/${image}`);
  return [...pictures].flatMap(([cluster, pair]) => {
    const [{ place, task }] = pair;
    if (pair.length !== 2) throw new UserError(`${place}: ${cluster} has ${pair.length} questions; each picture of MME has two`);
    const words = pair.map(({ question }) => wordsOf(question));
    if (words[0] === words[1]) throw new UserError(`${pair[1].place}: ${cluster} has the same question twice: ${words[0]}`);
    return pair.map(({ gold, picture, place }, i) => {
      const label = gold.trim().toLowerCase();
      if (label !== 'yes' && label !== 'no')
        throw new UserError(`${place}: the right answer must be Yes or No, not ${JSON.stringify(gold)}`);
      return {
        // LLaVA's own script reads task and picture out of it
        id: `${cluster}#${i + 1}`,
        prompt: `<image>\n${shortAnswer(words[i])}`,
        pictures: [picture],
        references: [label],
        cluster,
        groups: { task },
        options: ['yes', 'no'],
        words: words[i],
      };
    });
  });
}

/** Lines with something in them, each with its place. */
function* linesOf(path: string): Generator<{ fields: string[]; place: string; where: string }> {
  const lines = readText(path).split('\n');
  for (const [i, line] of lines.entries()) {
    const text = line.replace(/\r$/, '');
    if (text.trim() !== '') yield { fields: text.split('\t'), place: `${path}:${i + 1}`, where: `${basename(path)}:${i + 1}` };
  }
}

/** The files of one task of the release: pictures and questions beside each other, or in a folder each. */
function readTaskFolder(task: string, folder: string): Line[] {
  const apart = isFolder(join(folder, 'images'));
  const [pictures, texts] = apart ? [join(folder, 'images'), join(folder, 'questions_answers_YN')] : [folder, folder];
  const entries = onDisk(texts, () => readdirSync(texts)).filter((name) => name.endsWith('.txt'));
  const images = new Map(
    readdirSync(pictures)
      .filter((name) => !name.endsWith('.txt'))
      .map((name) => [basename(name, extname(name)), name]),
  );
  return entries.sort().flatMap((entry) => {
    const stem = basename(entry, '.txt');
    const image = images.get(stem);
    if (image === undefined)
      throw new UserError(`${join(texts, entry)}: its picture is missing in ${pictures}; was the download unpacked whole?`);
    return Array.from(linesOf(join(texts, entry)), ({ fields, place, where }) => {
      if (fields.length < 2 || fields.slice(2).some((field) => field.trim() !== ''))
        throw new UserError(`${place}: should be a question, a tab and Yes or No`);
      return {
        task,
        image,
        question: fields[0],
        gold: fields[1],
        picture: pictureFile(join(pictures, image), `${task}/${image}`),
        place,
        where,
      };
    });
  });
}

/** A picture of which only the name is known: its questions can be scored, not asked. */
const absent = (place: string, name: string): QuestionPicture => ({
  name,
  read: () =>
    Promise.reject(new UserError(`${place}: has no pictures; to ask, give the folders of MME's release (llava-gemma benchmarks mme)`)),
});

/** A text file of the evaluation tool: picture, question, right answer and, where it was given, an answer. */
function readTaskText(task: string, path: string): Line[] {
  // quotes are text here, and an answer may have tabs in it
  return Array.from(linesOf(path), ({ fields: [image, question, gold, ...answer], place, where }) => {
    if (gold === undefined) throw new UserError(`${place}: should be picture, question, right answer and answer, with tabs between them`);
    const picture = absent(path, `${task}/${image}`);
    return { task, image, question, gold, picture, place, where, answer: answer.length > 0 ? answer.join('\t') : undefined };
  });
}

const textFiles = (folder: string) =>
  isFolder(folder) ? TASKS.map((task) => [task, join(folder, `${task}.txt`)] as const).filter(([, path]) => existsSync(path)) : [];

/** Rows of the Hugging Face data set, or of VLMEvalKit's table. */
async function readDataRows(path: string): Promise<Line[]> {
  const rows = await readRows(path);
  const hasPictures = rows.columns.includes('image');
  return rows.rows.map((row) => {
    const place = `${path}: ${row.where}`;
    const cells = [['category'], ['question_id', 'image_path'], ['question'], ['answer']].map((names) => {
      const cell = cellOf(row, ...names);
      if (cell === undefined) throw new UserError(`${place}: has no ${names.join(' or ')}; it should be a question of MME`);
      return cell;
    });
    const [task, id, question, gold] = cells;
    const image = basename(id);
    if (!TASKS.includes(task)) throw new UserError(`${place}: ${JSON.stringify(task)} is none of MME's tasks: ${TASKS.join(', ')}`);
    const name = `${task}/${image}`;
    return {
      task,
      image,
      question,
      gold,
      picture: hasPictures ? row.picture('image', name) : absent(path, name),
      place,
      where: row.where,
    };
  });
}

/** The questions of a folder or file in any form; none where there are none. */
export async function readQuestionsAt(path: string): Promise<MmeQuestion[]> {
  if (!onDisk(path, () => statSync(path)).isDirectory()) {
    const task = TASKS.find((name) => basename(path) === `${name}.txt`);
    return numbered(task === undefined ? await readDataRows(path) : readTaskText(task, path));
  }
  // the archive has the folder of the same name once more
  for (const folder of [path, join(path, 'MME_Benchmark_release_version'), join(path, 'MME_Benchmark')]) {
    const folders = TASKS.filter((task) => isFolder(join(folder, task)));
    if (folders.length > 0) return numbered(folders.flatMap((task) => readTaskFolder(task, join(folder, task))));
  }
  return numbered(textFiles(path).flatMap(([task, file]) => readTaskText(task, file)));
}

/** An answer with what tells which question it is to. */
export interface MmeAnswer extends AnswerLine {
  /** `code_reasoning/0020.png`, where the id is not that of a question. */
  image: string;
  words: string;
  place: string;
}

const ANSWERS = "answers to MME: a folder of text files named by task, as its evaluation tool has it, or LLaVA's answers.jsonl";

/** The answers in a folder of text files, which have the right ones too, or in LLaVA's file. */
export async function readAnswersAt(
  path: string,
  given: readonly MmeQuestion[] | undefined,
): Promise<{ file: string; lines: MmeAnswer[]; questions: readonly MmeQuestion[] }> {
  const texts = textFiles(path);
  if (texts.length > 0) {
    refuseHalf(
      path,
      texts.map(([task]) => task),
    );
    const lines = texts.flatMap(([task, file]) => readTaskText(task, file));
    const held = numbered(lines);
    if (given !== undefined) refuseOther(path, held, given);
    return { file: path, lines: lines.map(answerOf), questions: given ?? held };
  }
  const file = fileIn(path, ['.jsonl', '.json'], ANSWERS);
  if (given === undefined)
    throw new UserError(
      `${file}: MME's right answers are in its question files; give the folder of its release, or eval_tool/Your_Results, with --questions`,
    );
  const read = await readAnswers(file, { id: 'question_id', answer: 'answer', about: 'records of question_id, prompt and answer' });
  const lines = read.map((line) => ({ ...line, image: line.id, words: wordsOf(line.prompt ?? ''), place: `${file}: ${line.where}` }));
  return { file, lines, questions: given };
}

function answerOf({ task, image, question, answer, place, where }: Line): MmeAnswer {
  if (answer === undefined) throw new UserError(`${place}: has no answer behind the right one`);
  return { id: '', image: `${task}/${image}`, words: wordsOf(question), text: answer, place, where };
}

/** A total is one only with all its tasks; one of the two is enough. */
function refuseHalf(path: string, found: readonly string[]): void {
  const missing = [PERCEPTION, COGNITION].map((tasks) => tasks.filter((task) => !found.includes(task)));
  if (missing.some((tasks) => tasks.length === 0)) return;
  throw new UserError(`${path}: text files of tasks are missing: ${missing.flat().join('.txt, ')}.txt; nothing was scored`);
}

/** Whether a file's right answers are those of the questions. */
function refuseOther(path: string, held: readonly MmeQuestion[], given: readonly MmeQuestion[]): void {
  const keyOf = ({ cluster, words }: MmeQuestion) => `${stemOf(cluster)}\n${words}`;
  const golds = new Map(given.map((question) => [keyOf(question), question.references[0]]));
  for (const question of held) {
    const gold = golds.get(keyOf(question));
    if (gold !== undefined && gold !== question.references[0])
      throw new UserError(
        `${path}: says that the right answer to ${question.id} is ${question.references[0]}, but its question file says ${gold}`,
      );
  }
}

/** `task/picture` without folders between them and without the ending, which some files leave out. */
function stemOf(image: string): string {
  const parts = image.split('/');
  const name = parts.at(-1)!;
  return `${parts[0]}/${name.replace(/\.(jpe?g|png|bmp|webp|txt)$/i, '')}`;
}

/** The question that a prompt is: its words, or else the longest that is among them. */
function meantBy(words: string, pair: readonly MmeQuestion[]): MmeQuestion | undefined {
  const exact = pair.find((question) => question.words === words);
  if (exact) return exact;
  const lower = words.toLowerCase();
  const [longest, other] = pair
    .filter((question) => lower.includes(question.words.toLowerCase()))
    .sort((a, b) => b.words.length - a.words.length);
  return other === undefined || longest.words.includes(other.words) ? longest : undefined;
}

/** Answers with the ids of their questions. UserError for one whose question is not found. */
export function matchLines(lines: readonly MmeAnswer[], questions: readonly MmeQuestion[]): AnswerLine[] {
  const known = new Set(questions.map(({ id }) => id));
  const byPicture = byGroup(questions, ({ cluster }) => stemOf(cluster));
  return lines.map(({ id, image, words, place, ...line }) => {
    if (known.has(id)) return { id, ...line };
    const pair = byPicture.get(stemOf(image));
    if (pair === undefined)
      throw new UserError(`${place}: ${image} is no picture of the questions; an id of MME is code_reasoning/0020.png`);
    const found = meantBy(words, pair);
    if (found) return { id: found.id, ...line };
    throw new UserError(
      words === ''
        ? `${place}: has no prompt, which tells to which of the two questions of ${image} it is`
        : `${place}: ${image} has no such question: ${words}`,
    );
  });
}
