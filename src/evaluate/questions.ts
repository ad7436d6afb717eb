// The questions of an evaluation: samples in LLaVA JSON whose last answer is the expected one, or LLaVA's
// question.jsonl (`question_id`, `image`, `text`; llava/eval/model_vqa_loader.py), which expects none.

import { basename, extname, isAbsolute, join, relative } from 'node:path';
import { forEachElement, lineInFile } from '../data/json-elements.ts';
import { parseSample } from '../data/llava-json.ts';
import { UserError } from '../errors.ts';
import type { Turn } from '../text/chat.ts';
import { imageToken } from '../text/tokenizer.ts';
import { decodeUtf8 } from '../utf8.ts';

/** What a model is asked. */
export interface Asked {
  prompt: Turn[];
  /** Paths of the pictures, in the order of their `<image>` tokens; whether they are there is not checked. */
  imagePaths: string[];
}

/** One question with the answer that is right. */
export interface Question extends Asked {
  id: string;
  /** The pictures relative to the image folder, as samples name them. */
  images: string[];
  task: string;
  split: string;
  expected: string;
}

/** One question of a question.jsonl, which someone else will score. */
export interface OpenQuestion extends Asked {
  /** As in the file. */
  question_id: string | number;
  text: string;
}

/** A file has questions of one kind. */
export type QuestionList = { scored: Question[] } | { open: OpenQuestion[] };

/**
 * Reads a file of questions, a JSON array or JSON Lines. In LLaVA JSON the last answer of each conversation
 * is asked for, and entries may carry a `task`. UserError with file and entry for what is malformed, for a
 * conversation without a final answer, and for a file with both kinds of questions.
 */
export async function readQuestionFile(path: string, imageFolder: string, split = basename(path, extname(path))): Promise<QuestionList> {
  const scored: Question[] = [];
  const open: OpenQuestion[] = [];
  await forEachElement(path, (json, offset) => {
    const index = scored.length + open.length;
    const text = decodeUtf8(json, `${path}: question #${index}`, (at) => lineInFile(path, offset + at));
    const question = openQuestionOf(text, `${path}: question #${index}`, imageFolder);
    if (question) open.push(question);
    else scored.push(scoredQuestion(parseSample(json, { path, imageFolder }, index, offset), path, imageFolder, split));
    if (scored.length > 0 && open.length > 0)
      throw new UserError(
        `${path}: question #${index}: some questions have an expected answer and some have none; put them into two files`,
      );
  });
  if (scored.length + open.length === 0) throw new UserError(`${path}: there are no questions in it.`);
  return open.length > 0 ? { open } : { scored };
}

/** The questions of a file that have expected answers. UserError if they have none. */
export async function readQuestions(path: string, imageFolder: string, split?: string): Promise<Question[]> {
  const questions = await readQuestionFile(path, imageFolder, split);
  if ('open' in questions) throw new UserError(`${path}: its questions have no expected answers, and cannot be scored`);
  return questions.scored;
}

function scoredQuestion(
  { id, images, conversations, fields }: ReturnType<typeof parseSample>,
  path: string,
  imageFolder: string,
  split: string,
): Question {
  const answer = conversations.at(-1)!;
  if (answer.from !== 'gpt' || conversations.length < 2) throw new UserError(`${path}: sample ${id}: does not end with an expected answer`);
  return {
    id,
    imagePaths: images,
    images: images.map((image) => relative(imageFolder, image)),
    task: typeof fields.task === 'string' ? fields.task : 'question',
    split,
    prompt: conversations.slice(0, -1),
    expected: answer.value,
  };
}

/** An entry of a question.jsonl; undefined for one of another form, which others report on. */
function openQuestionOf(json: string, where: string, imageFolder: string): OpenQuestion | undefined {
  let entry: unknown;
  try {
    entry = JSON.parse(json);
  } catch {
    return undefined;
  }
  if (typeof entry !== 'object' || entry === null || !('question_id' in entry) || 'conversations' in entry) return undefined;
  const { question_id, text, image } = entry as Record<string, unknown>;
  if (typeof question_id !== 'string' && typeof question_id !== 'number')
    throw new UserError(`${where}: question_id: must be text or a number`);
  if (typeof text !== 'string' || text.trim() === '') throw new UserError(`${where}: text: must be the question`);
  const images = [image ?? []].flat();
  if (!images.every((name) => typeof name === 'string' && name !== ''))
    throw new UserError(`${where}: image: must be the path of an image file, or a list of them`);
  const imagePaths = (images as string[]).map((name) => (isAbsolute(name) ? name : join(imageFolder, name)));
  return { question_id, text, imagePaths, prompt: [{ from: 'human', value: withPictures(text, images.length) }] };
}

/** Pictures before the question, as LLaVA puts them, unless the text has a place for each of several. */
function withPictures(text: string, pictures: number): string {
  const places = text.split(imageToken).length - 1;
  if (pictures === 0 || (pictures > 1 && places === pictures)) return text;
  return `${imageToken}\n`.repeat(pictures) + text.replaceAll(imageToken, '').trim();
}
