// MMVP (Tong et al. 2024, arXiv 2401.06209): 150 pairs of pictures that CLIP takes for alike, with the same
// question and other answers. A pair is right when both answers are. The benchmark's gpt_grader.py has GPT-4
// say yes or no to each answer, and counts replies that are yes and nothing else; here such replies are
// counted, or else the letter of the option is read out of an answer.

import { join } from 'node:path';
import { z } from 'zod';
import { UserError } from '../errors.ts';
import { readAnswers } from './answer-files.ts';
import { joinById, refuseRepeated } from './answers.ts';
import type { Answered, Benchmark, BenchmarkQuestion, Judged, QuestionPicture, QuestionSources, Summary } from './benchmark.ts';
import { fileIn, firstOf, pictureFile, readJsonLines } from './files.ts';
import { inferLetter } from './infer-letter.ts';
import { JsonFile } from './json-entries.ts';
import { byGroup, mean } from './means.ts';
import { letterAnswer } from './prompts.ts';
import { cellOf, type DataRow, type DataRows, readRows } from './rows.ts';
import { wholeNumber } from './table.ts';

const QUESTIONS: [string, ...string[]] = ['Questions.csv', 'questions.csv', 'MMVP/Questions.csv', '../MMVP/Questions.csv'];
const PICTURES: [string, ...string[]] = ['MMVP Images', 'MMVP/MMVP Images', '../MMVP/MMVP Images'];
const LETTERS = ['A', 'B'];
const ANSWERS =
  "answers to MMVP: its answer.jsonl (question_id, prompt, answer, response), LLaVA's answers.jsonl, or a JSON list of a grader's replies";

/** Labels that lmms-eval takes to be exchanged in the published file (its issue 1018). */
const CORRECTED: Readonly<Record<string, string>> = { 99: 'B', 100: 'A', 279: 'B', 280: 'A' };

interface MmvpQuestion extends BenchmarkQuestion {
  /** Texts of the options, by letter; undefined where they are unknown. */
  texts: Readonly<Record<string, string | undefined>>;
}

interface MmvpAnswered extends Answered<MmvpQuestion> {
  /** Whether the answer is a grader's reply. */
  isGraded?: boolean;
}

interface MmvpJudged extends Judged<MmvpQuestion> {
  isGraded?: boolean;
}

/** Questions 1 and 2 are a pair, 3 and 4 the next one. */
const pairOf = (id: number) => `pair ${Math.ceil(id / 2)}`;

/** The options of `(a) Open (b) Closed`. */
function textsOf(options: string): MmvpQuestion['texts'] {
  const found = /^\s*\(a\)\s*(.*?)\s*\(b\)\s*(.*?)\s*$/is.exec(options);
  return found ? { A: found[1], B: found[2] } : { A: undefined, B: undefined };
}

/** `(a)` or `a` as a letter. */
const letterOf = (answer: string) => /^\s*\(?([ab])\)?\.?\s*$/i.exec(answer)?.[1].toUpperCase();

const unknown = { A: undefined, B: undefined };

function readQuestion(path: string, rows: DataRows, row: DataRow, id: number, folder: string, harness: string): MmvpQuestion {
  const place = `${path}: ${row.where}`;
  const needed = (...names: string[]) => {
    const cell = cellOf(row, ...names);
    if (cell === undefined) throw new UserError(`${place}: has no ${names[0]}; it should be a question of MMVP's Questions.csv`);
    return cell.trim();
  };
  const [question, options, answer] = [needed('question'), needed('options'), needed('correct answer', 'answer')];
  const gold = letterOf(answer);
  if (gold === undefined) throw new UserError(`${place}: the right answer must be (a) or (b), not ${JSON.stringify(answer)}`);
  const texts = textsOf(options);
  return {
    id: String(id),
    prompt: `<image>\n${promptOf(question, options, texts, harness)}`,
    pictures: [pictureOf(rows, row, id, folder)],
    references: [(harness === 'lmms-eval' ? CORRECTED[id] : undefined) ?? gold],
    cluster: pairOf(id),
    groups: {},
    options: LETTERS,
    texts,
  };
}

function promptOf(question: string, options: string, texts: MmvpQuestion['texts'], harness: string): string {
  if (harness !== 'lmms-eval') return `${question} ${options}`;
  return letterAnswer(`${question}\n${LETTERS.map((letter) => `${letter}. ${texts[letter] ?? ''}`).join('\n')}`);
}

function pictureOf(rows: DataRows, row: DataRow, id: number, folder: string): QuestionPicture {
  const name = `${id}.jpg`;
  if (rows.columns.includes('image')) return row.picture('image', name);
  return pictureFile(join(firstOf(folder, PICTURES) ?? join(folder, PICTURES[0]), name));
}

async function readQuestions(path: string, folder: string, harness: string): Promise<MmvpQuestion[]> {
  const rows = await readRows(path);
  // the published file writes its first column "lndex"
  const index = ['index', 'lndex'].find((name) => rows.columns.includes(name));
  const questions = rows.rows.map((row, i) => {
    const id = index === undefined ? i + 1 : Number(wholeNumber(row.cells[index]));
    if (!Number.isInteger(id) || id < 1)
      throw new UserError(`${path}: ${row.where}: ${JSON.stringify(row.cells[index!])} is no number of a question`);
    return { ...readQuestion(path, rows, row, id, folder, harness), where: row.where };
  });
  refuseRepeated(path, 'questions', questions);
  return wholePairs(
    path,
    questions.map(({ where: _, ...question }) => question),
  );
}

/** UserError for a question without the other of its pair. */
function wholePairs(path: string, questions: MmvpQuestion[]): MmvpQuestion[] {
  const single = [...byGroup(questions, ({ cluster }) => cluster).values()].find((pair) => pair.length !== 2);
  if (single)
    throw new UserError(`${path}: question ${single[0].id} has no other of its pair; questions 1 and 2 are a pair, 3 and 4 the next one`);
  return questions;
}

/** A question of which little is known but its number and, perhaps, its right letter. */
const bareQuestion = (id: number, gold?: string, prompt = ''): MmvpQuestion => {
  const options = /\(a\).*$/is.exec(prompt)?.[0];
  return {
    id: String(id),
    prompt,
    pictures: [],
    references: gold === undefined ? [] : [gold],
    cluster: pairOf(id),
    groups: {},
    options: LETTERS,
    texts: options === undefined ? unknown : textsOf(options),
  };
};

/** Replies of a grader, in the order of the questions. */
function readReplies(path: string, file: JsonFile): MmvpAnswered[] {
  const replies = Array.from(file.entries(), ({ value, where }, i) => {
    if (typeof value !== 'string') throw new UserError(`${path}: ${where}: is no text; the file should be ${ANSWERS}`);
    return { question: bareQuestion(i + 1), answer: value, isGraded: true };
  });
  if (replies.length === 0) throw new UserError(`${path}: is empty; it should be ${ANSWERS}`);
  wholePairs(
    path,
    replies.map(({ question }) => question),
  );
  return replies;
}

const ownLine = z.looseObject({
  question_id: z.union([z.string(), z.number()]).transform(Number).pipe(z.number().int().positive()),
  prompt: z.string().optional(),
  answer: z.string(),
  response: z.string(),
});

/** Questions as an answer.jsonl has them, which evaluate_mllm.py writes. */
function questionsOfOwn(path: string, harness: string): MmvpQuestion[] {
  const lines = readJsonLines(path, ownLine, "MMVP's answer.jsonl: question_id, prompt, answer and response in each line");
  const questions = lines.map(({ value: { question_id: id, answer, prompt }, where }) => {
    const gold = letterOf(answer);
    if (gold === undefined) throw new UserError(`${path}: ${where}: the right answer must be (a) or (b), not ${JSON.stringify(answer)}`);
    return { ...bareQuestion(id, (harness === 'lmms-eval' ? CORRECTED[id] : undefined) ?? gold, prompt), where };
  });
  refuseRepeated(path, 'answers', questions);
  return wholePairs(
    path,
    questions.map(({ where: _, ...question }) => question).sort((a, b) => Number(a.id) - Number(b.id)),
  );
}

/** gpt_grader.py's reading of a reply: yes or no and nothing else, in any case. */
const repliedIn = (reply: string) => /^(?:yes|no)$/i.exec(reply)?.[0].toLowerCase();

/** The option that an answer names: by its letter alone, by the letter in brackets, or by MMBench's rule. */
function optionIn(answer: string, texts: MmvpQuestion['texts']): string | undefined {
  const alone = letterOf(answer);
  if (alone !== undefined) return alone;
  const bracketed = new Set([...answer.matchAll(/\(([ab])\)/gi)].map(([, letter]) => letter.toUpperCase()));
  if (bracketed.size > 0) return bracketed.size === 1 ? [...bracketed][0] : undefined;
  const leading = /^\s*([ab])[.):,]/i.exec(answer)?.[1].toUpperCase();
  return leading ?? inferLetter(answer, texts);
}

/** lmms-eval's patterns for a letter, the first that is found; else a first character that is one. */
const LMMS_EVAL = [
  /^\s*\(?([AB])\)?\.?\s*$/i,
  /^\s*\(?([AB])\)?[.\s]/i,
  /answer\s+is\s+\(?([AB])\)?/i,
  /option\s+\(?([AB])\)?/i,
  /\(?([AB])\)?(?:\s|$)/i,
  /^([AB])/i,
];

function optionToLmmsEval(answer: string): string | undefined {
  const text = answer.trim();
  for (const pattern of LMMS_EVAL) {
    const letter = pattern.exec(text)?.[1];
    if (letter !== undefined) return letter.toUpperCase();
  }
  return undefined;
}

function judgeOne(one: MmvpAnswered, harness: string): MmvpJudged {
  const { question, answer } = one;
  if (one.isGraded) {
    const parsed = repliedIn(answer);
    return { ...one, parsed, credit: parsed === 'yes' ? 1 : 0 };
  }
  const parsed = harness === 'lmms-eval' ? optionToLmmsEval(answer) : optionIn(answer, question.texts);
  return { ...one, parsed, credit: parsed === question.references[0] ? 1 : 0 };
}

const pairsIn = (judged: readonly MmvpJudged[]) => [...byGroup(judged, ({ question }) => question.cluster).values()];

function summarize(judged: readonly MmvpJudged[]): Summary {
  const pairs = pairsIn(judged);
  const rightIf = (isRight: (one: MmvpJudged) => boolean) => pairs.filter((pair) => pair.length === 2 && pair.every(isRight)).length;
  const right = rightIf(({ credit }) => credit === 1);
  const possible = rightIf(({ credit, parsed }) => credit === 1 || parsed === undefined);
  const isGraded = judged.some(({ isGraded }) => isGraded);
  return {
    scores: {
      accuracy: pairs.length === 0 ? 0 : right / pairs.length,
      pairs_right: right,
      pairs: pairs.length,
      question_accuracy: mean(judged.map(({ credit }) => credit)),
      questions_right: judged.filter(({ credit }) => credit === 1).length,
      [isGraded ? 'replies' : 'questions']: judged.length,
    },
    groups: {},
    bounds: judged.some(({ parsed }) => parsed === undefined) ? { low: right / pairs.length, high: possible / pairs.length } : undefined,
    notes: [
      isGraded
        ? "A grader's replies were counted: yes and nothing else, in any case, is right."
        : 'Options were read out of the answers by rules; the published numbers are of answers that GPT-4 graded.',
    ],
  };
}

export const mmvp: Benchmark<MmvpQuestion, MmvpJudged> = {
  name: 'mmvp',
  title: 'MMVP: pairs of pictures that CLIP takes for alike',
  source: 'Tong et al. 2024, Eyes Wide Shut? Exploring the Visual Shortcomings of Multimodal LLMs, arXiv 2401.06209',
  headline: { name: 'accuracy', best: 1 },
  maxNewTokens: 1024,
  harnesses: [
    {
      name: 'mmvp',
      about: "MMVP's labels; replies of a grader as gpt_grader.py counts them, else the letter or the text of an option in the answer",
    },
    {
      name: 'lmms-eval',
      about:
        'mmvp/utils.py of lmms-eval: its patterns for letters, and four labels that it exchanges (questions 99, 100, 279, 280), so that numbers differ',
    },
  ],
  files: [
    {
      places: QUESTIONS,
      holds: '300 questions with their options and right answers',
      url: 'https://huggingface.co/datasets/MMVP/MMVP/resolve/main/Questions.csv',
      bytes: 33_000,
      license: 'MIT',
      needed: 'score',
    },
    {
      places: PICTURES,
      holds: '300 pictures, 1.jpg to 300.jpg, of ImageNet-1k and LAION',
      url: 'https://huggingface.co/datasets/MMVP/MMVP/tree/main/MMVP%20Images',
      bytes: 20_000_000,
      license: 'MIT; those of the pictures',
      needed: 'ask',
      count: 300,
    },
  ],

  async questions({ files, folder = '.', harness }: QuestionSources) {
    const found = files ?? [firstOf(folder, QUESTIONS)].filter((path) => path !== undefined);
    const questions = (await Promise.all(found.map((path) => readQuestions(path, folder, harness)))).flat();
    refuseRepeated(found.join(', '), 'questions', questions);
    return questions;
  },

  async answers(path, questions, harness): Promise<MmvpAnswered[]> {
    const file = fileIn(path, ['.jsonl', '.json'], ANSWERS);
    const json = new JsonFile(file, ANSWERS);
    if (json.kind === 'array') {
      const [first] = json.entries();
      if (typeof first?.value !== 'object') return readReplies(file, json);
    }
    const form = { id: 'question_id', answer: 'response', about: "MMVP's answer.jsonl (question_id, prompt, answer and response)" };
    const lines = await readAnswers(file, form);
    if (questions !== undefined) return joinById(file, questions, lines);
    if (!lines.every(({ submitted }) => submitted))
      throw new UserError(`${file}: MMVP's right answers are in Questions.csv; give it with --questions or --data`);
    return joinById(file, questionsOfOwn(file, harness), lines);
  },

  judge: (answered: readonly MmvpAnswered[], { harness }) => answered.map((one) => judgeOne(one, harness)),

  summarize,
};
