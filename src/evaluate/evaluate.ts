// Questions in LLaVA JSON answered greedily by a model, with the picture and (blind) before a blank one of
// the mean color, and judged.

import { basename, relative } from 'node:path';
import { readLlavaJson } from '../data/llava-json.ts';
import { UserError } from '../errors.ts';
import { createSession, type Session, type SessionPrompt } from '../generate/session.ts';
import type { LoadedModel } from '../pretrained/load.ts';
import { pictureReader } from '../pretrained/pictures.ts';
import type { Turn } from '../text/chat.ts';
import { judgeSample, type Sample } from './samples.ts';

/** One question about one picture. */
export interface Question {
  id: string;
  /** Path of the picture; absent for a question without one. */
  imagePath?: string;
  /** The same relative to the image folder, as samples name it. */
  image: string;
  task: string;
  split: string;
  prompt: Turn[];
  expected: string;
}

/**
 * The questions of a LLaVA JSON file: the last answer of each conversation is asked for. Entries may carry a
 * `task`.
 */
export async function readQuestions(path: string, imageFolder: string, split = basename(path, '.json')): Promise<Question[]> {
  return (await readLlavaJson(path, imageFolder)).map(({ id, images, conversations, fields }) => {
    const answer = conversations.at(-1)!;
    if (answer.from !== 'gpt' || conversations.length < 2)
      throw new UserError(`${path}: sample ${id}: does not end with an expected answer`);
    if (images.length > 1) throw new UserError(`${path}: sample ${id}: has ${images.length} images; questions are about one`);
    return {
      id,
      imagePath: images[0],
      image: images[0] === undefined ? '' : relative(imageFolder, images[0]),
      task: typeof fields.task === 'string' ? fields.task : 'question',
      split,
      prompt: conversations.slice(0, -1),
      expected: answer.value,
    };
  });
}

export interface EvaluationOptions {
  /** Questions answered at a time. */
  batchSize: number;
  /** Longest answer in tokens. */
  maxNewTokens: number;
  /** Also answer before a blank picture. */
  blind: boolean;
  /** Ends the work by throwing `signal.reason`. */
  signal?: AbortSignal;
  /** Called after each batch of questions; those before a blank picture are not counted. */
  onProgress?: (done: number, total: number) => void;
}

/** Answers every question and judges the answers; samples in the order of the questions. */
export async function answerQuestions(
  model: Pick<LoadedModel, 'generator' | 'tokenizer' | 'processor'> & Partial<Pick<LoadedModel, 'generation'>>,
  questions: readonly Question[],
  { blind, ...options }: EvaluationOptions,
): Promise<Sample[]> {
  const session = createSession({ ...model, ...pictureReader(model) });
  const prompts = questions.map(({ prompt, imagePath }) => ({ turns: prompt, images: imagePath === undefined ? [] : [imagePath] }));
  const answers = await session.answerAll(prompts, options);
  const blindAnswers = blind ? await answerBlind(session, prompts, { ...options, onProgress: undefined }) : undefined;
  return questions.map(({ id, image, task, split, prompt, expected }, i) =>
    judgeSample({
      id,
      image,
      task,
      split,
      prompt: prompt.map(({ value }) => value).join('\n'),
      expected,
      answer: answers[i],
      ...(blindAnswers ? { blindAnswer: blindAnswers[i] } : {}),
    }),
  );
}

/**
 * Answers before a blank picture in place of each prompt's own. There, the same words get the same answer:
 * they are asked once.
 */
async function answerBlind(
  session: Session,
  prompts: readonly SessionPrompt[],
  options: Omit<EvaluationOptions, 'blind'>,
): Promise<string[]> {
  const blank = await session.blankPicture();
  const keys = prompts.map(({ turns }) => JSON.stringify(turns));
  const distinct = new Map(prompts.map(({ turns, images = [] }, i) => [keys[i], { turns, images: images.map(() => blank) }]));
  const answers = await session.answerAll([...distinct.values()], options);
  const answerOf = new Map([...distinct.keys()].map((key, i) => [key, answers[i]]));
  return keys.map((key) => answerOf.get(key)!);
}
