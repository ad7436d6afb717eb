// Questions answered greedily by a model, with their pictures and (blind) before blank ones of the mean
// color, and judged.

import type { SessionPrompt } from '../generate/session.ts';
import { type Answer, type AskedModel, type Asker, type AskOptions, createAsker } from './asking.ts';
import { type OpenAnswer, openAnswer } from './open-answers.ts';
import type { Asked, OpenQuestion, Question } from './questions.ts';
import { judgeSample, type Sample } from './samples.ts';

export interface AnsweringOptions extends Omit<AskOptions, 'onAnswers'> {
  /** Called after each batch of questions; those before a blank picture are not counted. */
  onProgress?: (done: number, total: number) => void;
}

export interface EvaluationOptions extends AnsweringOptions {
  /** Also answer before a blank picture. */
  blind: boolean;
  /** Called with the samples of each batch, in the order of the questions. */
  onSamples?: (samples: readonly Sample[]) => void;
}

const promptOf = ({ prompt, imagePaths }: Asked): SessionPrompt => ({ turns: prompt, images: imagePaths });

/**
 * Answers every question and judges the answers; samples in the order of the questions. A question that
 * cannot be asked is a wrong answer with a `problem`.
 */
export async function answerQuestions(
  model: AskedModel,
  questions: readonly Question[],
  { blind, onSamples, onProgress, ...options }: EvaluationOptions,
): Promise<Sample[]> {
  const asker = createAsker(model);
  const askBlind = blind ? await createBlindAsker(asker, options) : undefined;
  const samples: Sample[] = [];
  for await (const { batch, answers } of inBatches(asker, questions, options)) {
    const blindAnswers = await askBlind?.(batch.map(promptOf));
    const judged = batch.map((question, i) => judgeSample({ ...sampleOf(question, answers[i]), blindAnswer: blindAnswers?.[i].text }));
    samples.push(...judged);
    onSamples?.(judged);
    onProgress?.(samples.length, questions.length);
  }
  return samples;
}

function sampleOf({ id, images, task, split, prompt, expected }: Question, { text, problem }: Answer): Parameters<typeof judgeSample>[0] {
  return {
    id,
    image: images[0] ?? '',
    images: images.length > 1 ? images : undefined,
    task,
    split,
    prompt: prompt.map(({ value }) => value).join('\n'),
    expected,
    answer: text,
    problem,
  };
}

/** Answers questions without scoring them, in their order. `onAnswers` gets those of each batch. */
export async function answerOpenQuestions(
  model: AskedModel,
  questions: readonly OpenQuestion[],
  { modelId, onAnswers, onProgress, ...options }: AnsweringOptions & { modelId: string; onAnswers?: (answers: OpenAnswer[]) => void },
): Promise<OpenAnswer[]> {
  const all: OpenAnswer[] = [];
  for await (const { batch, answers } of inBatches(createAsker(model), questions, options)) {
    const lines = batch.map(({ question_id, text }, i) => openAnswer(modelId, question_id, text, answers[i]));
    all.push(...lines);
    onAnswers?.(lines);
    onProgress?.(all.length, questions.length);
  }
  return all;
}

async function* inBatches<Q extends Asked>(asker: Asker, questions: readonly Q[], options: AnsweringOptions) {
  for (let start = 0; start < questions.length; start += options.batchSize) {
    options.signal?.throwIfAborted();
    const batch = questions.slice(start, start + options.batchSize);
    yield { batch, answers: await asker.ask(batch.map(promptOf), options) };
  }
}

/**
 * Answers before a blank picture in place of each prompt's own. There, the same words get the same answer:
 * they are asked once.
 */
async function createBlindAsker(asker: Asker, options: AnsweringOptions) {
  const blank = await asker.blankPicture();
  const known = new Map<string, Answer>();
  return async (prompts: readonly SessionPrompt[]): Promise<Answer[]> => {
    const keys = prompts.map(({ turns, images = [] }) => JSON.stringify([turns, images.length]));
    const fresh = new Map<string, SessionPrompt>();
    prompts.forEach(({ turns, images = [] }, i) => {
      if (!known.has(keys[i])) fresh.set(keys[i], { turns, images: images.map(() => blank) });
    });
    const answers = await asker.ask([...fresh.values()], options);
    [...fresh.keys()].forEach((key, i) => {
      known.set(key, answers[i]);
    });
    return keys.map((key) => known.get(key)!);
  };
}
