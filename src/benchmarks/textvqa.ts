// TextVQA (Singh et al. 2019, arXiv 1904.08920): questions that need the text in a picture read, each with
// the answers of ten annotators. LLaVA and its successors also show what a reader of text (Rosetta) found.
//
// llava: llava/eval/eval_textvqa.py and m4c_evaluator.py of haotian-liu/LLaVA, whose answers are to a
// picture and tell the question in their prompt.

import { join } from 'node:path';
import { z } from 'zod';
import { UserError } from '../errors.ts';
import { readAnswers } from './answer-files.ts';
import { type AnswerLine, joinById, refuseRepeated } from './answers.ts';
import type { Answered, Benchmark, BenchmarkQuestion, Judged, QuestionSources } from './benchmark.ts';
import { firstOf, pictureIn } from './files.ts';
import { JsonFile } from './json-entries.ts';
import { percent } from './means.ts';
import { shortAnswer, withOcrTokens } from './prompts.ts';
import { pythonCapitalize } from './python-text.ts';
import { evalAiAnswer } from './vqa-answers.ts';
import { checked, isJsonLines, readLlavaQuestions } from './vqa-files.ts';
import { agreement, judgeByAgreement, refuseUnannotated, uploadRecords, vqaForms } from './vqa-scorer.ts';

const FORM = "TextVQA_0.5.1_val.json (an object with 'data'), LLaVA's question file or Rosetta's OCR tokens";
const QUESTIONS: [string, ...string[]] = ['TextVQA_0.5.1_val.json', 'TextVQA_0.5.1_val_first2500.json'];
const LLAVA_QUESTIONS: [string, ...string[]] = ['llava_textvqa_val_v051_ocr.jsonl'];
const OCR: [string, ...string[]] = ['TextVQA_Rosetta_OCR_v0.2_val.json'];
const PICTURES: [string, ...string[]] = ['train_images', 'train_val_images/train_images'];

interface TextVqaQuestion extends BenchmarkQuestion {
  image: string;
  /** In lower case: what, with the picture, LLaVA's answers are matched by. */
  text: string;
}

interface Entry {
  id: string;
  image: string;
  question: string;
  references: string[];
}

const entrySchema = z.object({
  question_id: z.union([z.number(), z.string().min(1)]).transform(String),
  image_id: z.string().min(1),
  question: z.string(),
  answers: z.array(z.string()).optional(),
});
const ocrSchema = z.object({ image_id: z.string(), ocr_tokens: z.array(z.string()) });

const keyOf = (image: string, question: string) => `${image}\n${question.toLowerCase()}`;

/** What is read of all files that were given or found. */
interface Sources {
  entries: Entry[];
  /** LLaVA's prompts, by picture and question. */
  prompts: Map<string, string>;
  /** Words in a picture. */
  tokens: Map<string, string[]>;
}

function readSource(path: string, into: Sources): void {
  const file = new JsonFile(path, FORM);
  if (isJsonLines(file)) {
    for (const { id, text, where } of readLlavaQuestions(path)) into.prompts.set(keyOf(id, questionIn(text, `${path}: ${where}`)), text);
    return;
  }
  for (const { value, where } of file.entries('data')) {
    if (typeof value === 'object' && value !== null && 'ocr_tokens' in value && !('question_id' in value)) {
      const { image_id, ocr_tokens } = checked(file, ocrSchema, value, where);
      into.tokens.set(image_id, ocr_tokens);
    } else {
      const { question_id: id, image_id: image, question, answers: references = [] } = checked(file, entrySchema, value, where);
      into.entries.push({ id, image, question, references });
    }
  }
}

/** Harnesses that show no OCR tokens. */
const BARE = new Set(['llava-no-ocr', 'lmms-eval']);

function questionOf(
  { id, image, question, references }: Entry,
  { prompts, tokens }: Sources,
  harness: string,
  pictures: string,
): TextVqaQuestion {
  const bare = shortAnswer(pythonCapitalize(question));
  const seen = tokens.get(image);
  const shown = prompts.get(keyOf(image, question)) ?? (seen ? withOcrTokens(pythonCapitalize(question), seen) : bare);
  const name = `${image}.jpg`;
  return {
    id,
    prompt: `<image>\n${BARE.has(harness) ? bare : shown}`,
    pictures: [pictureIn(pictures, name)],
    references,
    cluster: image,
    groups: {},
    image,
    text: question.toLowerCase(),
  };
}

/** The question that a prompt of LLaVA's asks, in lower case, as eval_textvqa.py finds it. */
function questionIn(prompt: string, place: string): string {
  const text = prompt.replace(/^<image>\n?|\n?<image>$/g, '');
  const lines = text.split('\n');
  if (text.startsWith('OCR tokens: ')) {
    const question = /Question: (.*?) Short answer:/s.exec(text)?.[1];
    if (question !== undefined) return question.toLowerCase();
  } else if (text.includes('Reference OCR token: ') && lines.length === 3) {
    return lines[text.startsWith('Reference OCR token:') ? 1 : 0].toLowerCase();
  } else if (lines.length === 2) return lines[0].toLowerCase();
  throw new UserError(`${place}: its prompt does not tell the question in one of LLaVA's forms: ${JSON.stringify(prompt.slice(0, 80))}`);
}

/**
 * Answers by question. Where they are numbered by pictures, as LLaVA's are, the prompt tells which question
 * of the picture is meant.
 */
function byQuestion(path: string, lines: readonly AnswerLine[], questions: readonly TextVqaQuestion[]): AnswerLine[] {
  const images = new Set(questions.map(({ image }) => image));
  if (!lines.some(({ id }) => images.has(id))) return [...lines];
  const ids = new Map<string, string[]>();
  for (const { id, image, text } of questions) ids.set(keyOf(image, text), [...(ids.get(keyOf(image, text)) ?? []), id]);
  const used = new Map<string, number>();
  return lines.map((line) => {
    if (!images.has(line.id)) return line;
    const key = keyOf(line.id, questionIn(line.prompt ?? '', `${path}: ${line.where}`));
    const found = ids.get(key);
    if (!found)
      throw new UserError(`${path}: ${line.where}: no question of picture ${line.id} is ${JSON.stringify(key.slice(line.id.length + 1))}`);
    // a question that is there twice is answered twice, in its order
    const nth = used.get(key) ?? 0;
    used.set(key, nth + 1);
    return { ...line, id: found[Math.min(nth, found.length - 1)] };
  });
}

/** How the VQA scorer is given answers, by harness. */
const VQA_READINGS: Record<string, { name: string; form: (answer: string) => string }> = {
  vqa: { name: 'answers_as_they_are', form: (answer) => answer },
  'vqa-lowercase': { name: 'answers_lowercased', form: (answer) => answer.toLowerCase() },
  'vqa-evalai': { name: 'answers_through_the_EvalAI_processor', form: evalAiAnswer },
};

/** An answer and its references as a harness compares them. */
function formsOf({ question: { references }, answer }: Answered, harness: string) {
  const reading = VQA_READINGS[harness];
  if (reading) return vqaForms(reading.form(answer), references);
  return { answer: evalAiAnswer(answer), references: references.map(evalAiAnswer) };
}

/** The VQA scorer's numbers for each reading of the answers, by the reading's name. */
const vqaScores = (judged: readonly Judged<TextVqaQuestion>[]) =>
  Object.fromEntries(
    Object.entries(VQA_READINGS).map(([harness, { name }]) => {
      const credits = judged.map((one) => {
        const forms = formsOf(one, harness);
        return agreement(forms.answer, forms.references);
      });
      return [name, percent(credits)];
    }),
  );

const RESULTS = { id: 'question_id', answer: 'answer', about: 'results of TextVQA (an array of question_id and answer)' };
const download = (name: string) => `https://dl.fbaipublicfiles.com/textvqa/${name}`;

export const textvqa: Benchmark<TextVqaQuestion> = {
  name: 'textvqa',
  title: 'TextVQA 0.5.1, validation, with OCR tokens and without',
  source: 'Singh et al. 2019, Towards VQA Models That Can Read, arXiv 1904.08920',
  headline: { name: 'textvqa_accuracy', best: 100 },
  maxNewTokens: 128,
  harnesses: [
    { name: 'llava', about: 'eval_textvqa.py of LLaVA: both sides through the EvalAI processor; asked with OCR tokens' },
    { name: 'llava-no-ocr', about: 'the same score; asked without OCR tokens' },
    { name: 'lmms-eval', about: 'textvqa/utils.py of lmms-eval: the same score; asked without OCR tokens' },
    { name: 'vqa', about: 'the VQA scorer on answers as they are, which minds capitals where all ten annotators agree' },
    { name: 'vqa-lowercase', about: 'the VQA scorer on answers in lower case' },
    { name: 'vqa-evalai', about: 'the VQA scorer on answers through the EvalAI processor' },
  ],
  files: [
    {
      places: QUESTIONS,
      holds: '5,000 questions of the validation split with ten answers each',
      url: download('data/TextVQA_0.5.1_val.json'),
      bytes: 15_700_000,
      license: 'CC BY 4.0',
      needed: 'score',
    },
    {
      places: LLAVA_QUESTIONS,
      holds: "LLaVA's prompts with OCR tokens (in its eval.zip)",
      url: 'https://drive.google.com/file/d/1atZSBBrAX54yYpxtVVW33zFvcnaHeFPy',
      bytes: 2_000_000,
      license: 'Apache-2.0; TextVQA CC BY 4.0',
      needed: 'ask',
    },
    {
      places: PICTURES,
      holds: 'pictures of the training and validation splits; validation shows 3,166 of them',
      url: download('images/train_val_images.zip'),
      bytes: 7_072_000_000,
      license: 'CC BY 4.0; those of the pictures of Open Images',
      needed: 'ask',
      count: 25_119,
    },
  ],

  async questions({ files, folder = '.', harness }: QuestionSources) {
    const found = [QUESTIONS, LLAVA_QUESTIONS, OCR].map((places) => firstOf(folder, places)).filter((path) => path !== undefined);
    const sources: Sources = { entries: [], prompts: new Map(), tokens: new Map() };
    for (const path of files ?? found) readSource(path, sources);
    refuseRepeated((files ?? found).join(', '), 'questions', sources.entries);
    const pictures = firstOf(folder, PICTURES) ?? join(folder, PICTURES[0]);
    return sources.entries.map((entry) => questionOf(entry, sources, harness, pictures));
  },

  async answers(path, questions) {
    if (questions === undefined)
      throw new UserError(`${path}: TextVQA's answers are in its annotations; give them with --questions or --data`);
    return joinById(path, questions, byQuestion(path, await readAnswers(path, RESULTS), questions));
  },

  judge(answered, { harness }) {
    refuseUnannotated(this.name, answered);
    return answered.map((one) => ({ ...one, ...judgeByAgreement(one, formsOf(one, harness)) }));
  },

  summarize(judged, harness) {
    const accuracy = percent(judged.map(({ credit }) => credit));
    return { scores: { textvqa_accuracy: accuracy, ...(harness in VQA_READINGS ? vqaScores(judged) : {}) }, groups: {} };
  },

  upload: {
    server: 'the TextVQA challenge on EvalAI',
    write: (answered, harness) => uploadRecords(answered, harness, ({ id }) => ({ question_id: Number(id) })),
  },
};
