// What a model is shown for its diagnosis: scenes that no committed model was trained on, or a file.

import { cachedEmojiDataset } from '../data/emoji/build.ts';
import { readLlavaJson, type Sample } from '../data/llava-json.ts';
import { UserError } from '../errors.ts';
import { type Question, readQuestions } from '../evaluate/questions.ts';

/** Pictures that are read one by one, at most, and questions that are asked. */
const PICTURES = 32;
const QUESTIONS = 300;

const SEED = 7;

export interface DiagnosisData {
  /** Samples with one picture each, whose answers are read. */
  captions: Sample[];
  /** The same with short answers. */
  questions: Sample[];
  /** Questions that the model answers itself; empty where the file has no tasks. */
  asked: Question[];
  /** The captions as questions. */
  described: Question[];
}

/** A question as a conversation with its answer. */
const answered = ({ id, imagePaths, prompt, expected }: Question): Sample => ({
  id,
  images: imagePaths,
  conversations: [...prompt, { from: 'gpt', value: expected }],
  fields: {},
});

/** UserError where a file has fewer than two pictures. */
export async function diagnosisData(file?: { dataPath: string; imageFolder: string }, scenes = PICTURES): Promise<DiagnosisData> {
  if (!file) {
    const built = await cachedEmojiDataset('.cache/emoji-diagnose', {
      seed: SEED,
      trainScenes: Math.max(2, Math.min(scenes, PICTURES)),
      evaluationScenes: scenes,
      splits: ['unseen-scenes'],
    });
    const asked = await readQuestions(built.evaluation['unseen-scenes'], built.imageFolder, 'unseen-scenes');
    const [captions, described] = [
      await readLlavaJson(built.captions, built.imageFolder),
      await readQuestions(built.captions, built.imageFolder),
    ];
    return { captions, questions: firstOfPictures(asked).map(answered), asked, described };
  }
  const { dataPath, imageFolder } = file;
  const samples = (await readLlavaJson(dataPath, imageFolder)).filter(({ images }) => images.length === 1);
  const captions = firstOf(samples, ({ images }) => images[0]).slice(0, PICTURES);
  if (captions.length < 2)
    throw new UserError(`${dataPath}: a diagnosis exchanges pictures and needs two samples with a picture each, or more`);
  const asked = (await readQuestions(dataPath, imageFolder)).filter(({ images }) => images.length === 1);
  const hasTasks = samples.some(({ fields }) => fields.task !== undefined);
  return { captions, questions: captions, asked: hasTasks ? asked.slice(0, QUESTIONS) : [], described: firstOfPictures(asked) };
}

function firstOf<T>(items: readonly T[], keyOf: (item: T) => string): T[] {
  const seen = new Set<string>();
  return items.filter((item) => !seen.has(keyOf(item)) && seen.add(keyOf(item)));
}

const firstOfPictures = (questions: readonly Question[]) => firstOf(questions, ({ imagePaths }) => imagePaths[0]).slice(0, PICTURES);
