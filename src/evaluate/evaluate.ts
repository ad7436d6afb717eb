// Scoring: questions in LLaVA JSON answered greedily by a model, with the picture and (blind) before a blank one of the mean colour.

import { basename, relative } from 'node:path';
import { readLlavaJson } from '../data/llava-json.ts';
import { UserError } from '../errors.ts';
import type { Generator } from '../generate/generator.ts';
import type { ImageProcessorConfig } from '../images/processor.ts';
import { imageSize, imageTokenCount } from '../models/llava.ts';
import { pixelValuesOf } from '../pretrained/processor.ts';
import { encodePrompt, type Turn } from '../text/chat.ts';
import type { Tokenizer } from '../text/tokenizer.ts';
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

/** The questions of a LLaVA JSON file: the last answer of each conversation is asked for. Entries may carry a `task`. */
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

export interface AnswerOptions {
  batchSize: number;
  maxNewTokens: number;
  /** Also answer before a blank picture. */
  blind: boolean;
  signal?: AbortSignal;
  onProgress?: (done: number, total: number) => void;
}

export interface AnsweringModel {
  generator: Generator;
  tokenizer: Tokenizer;
  processor: ImageProcessorConfig;
}

/** Answers every question and judges the answers; samples in the order of the questions. */
export async function answerQuestions(model: AnsweringModel, questions: readonly Question[], options: AnswerOptions): Promise<Sample[]> {
  const { generator, tokenizer } = model;
  const imageTokens = imageTokenCount(generator.config);
  const size = imageSize(generator.config);
  const encoded = questions.map(({ prompt }) => encodePrompt(tokenizer, prompt, { imageTokens }));
  const answers = new Array<string>(questions.length);
  const stopTokenIds = [tokenizer.endOfTurnTokenId, tokenizer.eosTokenId];
  const generate = async (prompts: { inputIds: readonly number[]; imageRows?: Float32Array }[]) =>
    (await generator.generate(prompts, { maxNewTokens: options.maxNewTokens, stopTokenIds })).map((ids) =>
      tokenizer.decode(ids, { skipSpecialTokens: true }).trim(),
    );

  // neighbours in length share a batch: little padding
  const order = [...questions.keys()].sort((a, b) => encoded[a].length - encoded[b].length || a - b);
  const rows = await imageRowsByPath(model, questions);
  let done = 0;
  for (let start = 0; start < order.length; start += options.batchSize) {
    options.signal?.throwIfAborted();
    const batch = order.slice(start, start + options.batchSize);
    const texts = await generate(batch.map((i) => ({ inputIds: encoded[i], imageRows: rows(questions[i].imagePath) })));
    batch.forEach((i, j) => {
      answers[i] = texts[j];
    });
    done += batch.length;
    options.onProgress?.(done, order.length);
  }

  // before the same blank picture, the same words get the same answer: each distinct prompt is asked once
  const blindAnswers = new Map<string, string>();
  if (options.blind) {
    // pixel values of zero: the mean colour everywhere
    const blank = await generator.imageRows(await generator.imageFeatures(new Float32Array(3 * size * size)));
    const distinct = new Map(order.map((i) => [encoded[i].join(), i]));
    const keys = [...distinct.keys()];
    for (let start = 0; start < keys.length; start += options.batchSize) {
      options.signal?.throwIfAborted();
      const batch = keys.slice(start, start + options.batchSize);
      const texts = await generate(
        batch.map((key) => {
          const i = distinct.get(key)!;
          return { inputIds: encoded[i], imageRows: questions[i].imagePath === undefined ? undefined : blank };
        }),
      );
      batch.forEach((key, j) => {
        blindAnswers.set(key, texts[j]);
      });
    }
  }

  return questions.map(({ id, image, task, split, prompt, expected }, i) =>
    judgeSample({
      id,
      image,
      task,
      split,
      prompt: prompt.map(({ value }) => value).join('\n'),
      expected,
      answer: answers[i],
      ...(options.blind ? { blindAnswer: blindAnswers.get(encoded[i].join())! } : {}),
    }),
  );
}

/** Rows of every picture, encoded in batches; each picture once. */
async function imageRowsByPath(
  { generator, processor }: AnsweringModel,
  questions: readonly Question[],
): Promise<(path: string | undefined) => Float32Array | undefined> {
  const paths = [...new Set(questions.flatMap(({ imagePath }) => imagePath ?? []))];
  const rows = new Map<string, Float32Array>();
  for (let start = 0; start < paths.length; start += 32) {
    const batch = paths.slice(start, start + 32);
    const all = await generator.imageRows(await generator.imageFeatures(await pixelValuesOf(batch, processor)));
    const size = all.length / batch.length;
    batch.forEach((path, i) => {
      rows.set(path, all.slice(i * size, (i + 1) * size));
    });
  }
  return (path) => (path === undefined ? undefined : rows.get(path));
}
