// A whole evaluation: a model folder and a choice of questions become samples.

import { basename, resolve } from 'node:path';
import { cachedEmojiDataset, type EvaluationSplit } from '../data/emoji/build.ts';
import type { DeviceName } from '../engine/engine.ts';
import { type LoadedModel, loadModel } from '../pretrained/load.ts';
import type { Quantization } from '../weights/quantize.ts';
import { type AnsweringOptions, answerOpenQuestions, answerQuestions, type EvaluationOptions } from './evaluate.ts';
import type { OpenAnswer } from './open-answers.ts';
import { type OpenQuestion, type Question, readQuestions } from './questions.ts';
import type { Sample } from './samples.ts';

/** Enough for a short answer. */
const MAX_NEW_TOKENS = 24;

/** Held-out splits of the emoji scenes: `scenes` in each, drawn from `seed`. */
export interface EmojiQuestions {
  generate: 'emoji';
  splits: readonly EvaluationSplit[];
  scenes: number;
  seed: number;
  heldOutArtist?: string;
}

/** A file in LLaVA JSON whose entries carry a `task`. */
export interface QuestionFile {
  dataPath: string;
  imageFolder: string;
}

export interface ModelEvaluation extends Omit<EvaluationOptions, 'maxNewTokens'> {
  /** Longest answer in tokens. Default: what the model's generation_config.json says, else 24. */
  maxNewTokens?: number;
  /** Hugging Face folder of a LLaVA model. */
  model: string;
  data: EmojiQuestions | QuestionFile | readonly Question[];
  /** At most so many questions of each task in each split. */
  limit?: number;
  /** Packs the matrices while loading. */
  quantize?: Quantization;
  /** What the model runs on. Default: cpu. */
  device?: DeviceName;
}

/**
 * Loads a model and lets it answer; samples in the order of the questions. What is wrong with model or
 * questions is a UserError.
 */
export async function evaluateModel({
  model: dir,
  data,
  limit,
  quantize,
  device,
  maxNewTokens,
  ...options
}: ModelEvaluation): Promise<Sample[]> {
  const questions = await questionsOf(data);
  const model = await loadModel(dir, { quantize, device });
  return answerQuestions(model, limitQuestions(questions, limit), { ...options, maxNewTokens: longestAnswer(model, maxNewTokens) });
}

/**
 * Loads a model and lets it answer questions that expect nothing, at most `limit` of them; answers in the
 * order of the questions.
 */
export async function answerWithModel({
  model: dir,
  questions,
  limit,
  quantize,
  device,
  maxNewTokens,
  ...options
}: Omit<AnsweringOptions, 'maxNewTokens'> &
  Pick<ModelEvaluation, 'model' | 'limit' | 'quantize' | 'device' | 'maxNewTokens'> & {
    questions: readonly OpenQuestion[];
    onAnswers?: (answers: OpenAnswer[]) => void;
  }): Promise<OpenAnswer[]> {
  const model = await loadModel(dir, { quantize, device });
  const longest = longestAnswer(model, maxNewTokens);
  return answerOpenQuestions(model, questions.slice(0, limit), { ...options, maxNewTokens: longest, modelId: basename(resolve(dir)) });
}

const longestAnswer = ({ generation }: LoadedModel, asked: number | undefined) => asked ?? generation.maxNewTokens ?? MAX_NEW_TOKENS;

async function questionsOf(data: ModelEvaluation['data']): Promise<readonly Question[]> {
  if ('generate' in data) return emojiQuestions(data);
  return 'dataPath' in data ? readQuestions(data.dataPath, data.imageFolder) : data;
}

async function emojiQuestions({ splits, scenes, seed, heldOutArtist }: EmojiQuestions): Promise<Question[]> {
  const drawn = { seed, trainScenes: 0, splits: [...splits], evaluationScenes: scenes, heldOutArtist };
  const { evaluation, imageFolder } = await cachedEmojiDataset('.cache/emoji-eval', drawn);
  return (await Promise.all(splits.map((split) => readQuestions(evaluation[split], imageFolder, split)))).flat();
}

/** The first `limit` questions of each task in each split. */
export function limitQuestions(questions: readonly Question[], limit = Number.POSITIVE_INFINITY): Question[] {
  const asked = new Map<string, number>();
  return questions.filter(({ split, task }) => {
    const key = `${split} ${task}`;
    const count = (asked.get(key) ?? 0) + 1;
    asked.set(key, count);
    return count <= limit;
  });
}
