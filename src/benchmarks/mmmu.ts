// MMMU (Yue et al. 2024, arXiv 2311.16502): questions of 30 college subjects, with options or free answers
// and up to seven pictures each. Scored as the benchmark's own main_parse_and_eval.py and main_eval_only.py
// do: where the first reads no option out of an answer, it draws one (Python's generator, seed 42).

import { existsSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { UserError } from '../errors.ts';
import { readAnswers } from './answer-files.ts';
import { joinById } from './answers.ts';
import type { Answered, Benchmark, Judged, QuestionSources, Summary } from './benchmark.ts';
import { byGroup, mean } from './means.ts';
import { pythonRandom } from './mersenne-twister.ts';
import { DOMAINS, type MmmuQuestion, outputsAt, partFile, readMmmuFile, SUBJECTS, withOutputs } from './mmmu-files.ts';
import { isOpenRight, parseChoice, parseOpen } from './mmmu-parsing.ts';
import { pythonRound } from './python-numbers.ts';

const SEED = 42;
/** Questions of the validation split. */
const VALIDATION = 900;
const KEY = 'answer_dict_val.json';

interface MmmuAnswered extends Answered<MmmuQuestion> {
  /** Place in the file that the official scorer goes through, which decides what it draws. */
  turn?: number;
}

interface MmmuJudged extends Judged<MmmuQuestion> {
  /** The option that was drawn because none could be read. */
  drawn?: string;
}

const compare = (a: number, b: number) => a - b;

/** The order in which the official scorer reads answers: by subject, then as they are in their file. */
function drawingOrder(answered: readonly MmmuAnswered[]): number[] {
  const placeOf = (i: number) => SUBJECTS.indexOf(answered[i].question.groups.subject);
  const turnOf = (i: number) => answered[i].turn ?? i;
  return [...answered.keys()].sort((a, b) => compare(placeOf(a), placeOf(b)) || compare(turnOf(a), turnOf(b)));
}

/** An answer that the system has parsed itself: a letter, or a free answer. */
function judgeParsed(one: MmmuAnswered): MmmuJudged {
  const { question, answer } = one;
  const { isOpen, references } = question;
  const parsed = isOpen ? answer.trim() !== '' : /^[A-Z]$/.test(answer);
  const isRight = isOpen ? isOpenRight(references, parseOpen(answer)) : references.includes(answer);
  return { ...one, parsed: parsed ? answer : undefined, credit: isRight ? 1 : 0 };
}

function judge(answered: readonly MmmuAnswered[]): MmmuJudged[] {
  const random = pythonRandom(SEED);
  const judged = new Array<MmmuJudged>(answered.length);
  for (const i of drawingOrder(answered)) {
    const one = answered[i];
    const { question, answer } = one;
    if (one.submitted || question.isOpen) judged[i] = judgeParsed(one);
    else {
      const parsed = parseChoice(answer, question.texts);
      const drawn = parsed === undefined ? random.choice(Object.keys(question.texts)) : undefined;
      judged[i] = { ...one, parsed, drawn, credit: question.references.includes(parsed ?? drawn!) ? 1 : 0 };
    }
  }
  return judged;
}

const isRight = ({ credit }: MmmuJudged) => credit === 1;
const isDrawn = ({ drawn }: MmmuJudged) => drawn !== undefined;

function countsOf(judged: readonly MmmuJudged[]) {
  const drawn = judged.filter(isDrawn);
  return {
    accuracy: mean(judged.map(({ credit }) => credit)),
    correct: judged.filter(isRight).length,
    n: judged.length,
    // what a system has parsed itself, it may have drawn as well
    ...(judged.some(({ submitted }) => submitted)
      ? {}
      : { random_fallbacks: drawn.length, random_fallbacks_right: drawn.filter(isRight).length }),
  };
}

type Counts = ReturnType<typeof countsOf>;

const withSure = (fallbacks: { random_fallbacks_right?: number }, correct: number) =>
  fallbacks.random_fallbacks_right === undefined
    ? {}
    : { ...fallbacks, correct_without_fallbacks: correct - fallbacks.random_fallbacks_right };

/** A line of the official table: the mean weighted by subject, and both as it prints them. */
function printed(subjects: readonly Counts[]): { num: number; acc: number } {
  const num = subjects.reduce((sum, { n }) => sum + n, 0);
  const acc = subjects.reduce((sum, { accuracy, n }) => sum + accuracy * n, 0) / num;
  return { num, acc: pythonRound(acc, 3) };
}

function tableOf(subjects: Readonly<Record<string, Counts>>): Record<string, { num: number; acc: number }> {
  const lines = Object.entries(DOMAINS).flatMap(([domain, members]) => {
    const found = members.filter((subject) => subject in subjects);
    if (found.length === 0) return [];
    return [
      [`Overall-${domain}`, printed(found.map((subject) => subjects[subject]))] as const,
      ...found.map((subject) => [subject, printed([subjects[subject]])] as const),
    ];
  });
  return Object.fromEntries([...lines, ['Overall', printed(Object.values(subjects))]]);
}

function summarize(judged: readonly MmmuJudged[]): Summary {
  const bySubject = byGroup(judged, ({ question }) => question.groups.subject);
  const subjects = Object.fromEntries(SUBJECTS.filter((name) => bySubject.has(name)).map((name) => [name, countsOf(bySubject.get(name)!)]));
  const byDomain = byGroup(judged, ({ question }) => question.groups.domain);
  const domains = Object.fromEntries(
    Object.keys(DOMAINS)
      .filter((name) => byDomain.has(name))
      .map((name) => [name, countsOf(byDomain.get(name)!)]),
  );
  const { n: total, correct, accuracy, ...fallbacks } = countsOf(judged);
  const unread = judged.filter(({ parsed }) => parsed === undefined);
  const sure = correct - unread.filter(isRight).length;
  return {
    scores: { accuracy, correct, total, ...withSure(fallbacks, correct) },
    groups: { domain: domains, subject: subjects, ...(total > 0 ? { printed: tableOf(subjects) } : {}) },
    bounds: unread.length > 0 ? { low: sure / total, high: (sure + unread.length) / total } : undefined,
    notes: notesOf(judged, Object.keys(subjects)),
  };
}

const SHOWN = 10;

function notesOf(judged: readonly MmmuJudged[], subjects: readonly string[]): string[] {
  const notes: string[] = [];
  const drawn = judged.filter(isDrawn);
  if (drawn.length > 0) {
    const shown = drawn.slice(0, SHOWN).map((one) => `${one.question.id} (${one.drawn}, ${isRight(one) ? 'right' : 'wrong'})`);
    notes.push(
      `The official rule drew an option for ${drawn.length} answers that name none: ${shown.join(', ')}${drawn.length > SHOWN ? ', ...' : ''}.`,
    );
  }
  const missing = SUBJECTS.filter((subject) => !subjects.includes(subject));
  if (missing.length > 0) notes.push(`Without ${missing.length} of the 30 subjects: ${missing.join(', ')}.`);
  else if (judged.length < VALIDATION) notes.push(`These are ${judged.length} of the ${VALIDATION} questions of the validation split.`);
  return notes;
}

/** The files of questions in a folder: Parquet, which has all, rather than the right answers alone. */
function questionFiles(folder: string): string[] {
  const parts = SUBJECTS.map((subject) => partFile(join(folder, subject))).filter((path) => path !== undefined);
  if (parts.length > 0) return parts;
  const whole = partFile(join(folder, 'data')) ?? partFile(folder);
  if (whole !== undefined) return [whole];
  return existsSync(join(folder, KEY)) ? [join(folder, KEY)] : [];
}

export const mmmu: Benchmark<MmmuQuestion, MmmuJudged> = {
  name: 'mmmu',
  title: 'MMMU, validation split',
  source:
    'Yue et al. 2024, MMMU: A Massive Multi-discipline Multimodal Understanding and Reasoning Benchmark for Expert AGI, arXiv 2311.16502',
  headline: { name: 'accuracy', best: 1 },
  maxNewTokens: 128,
  harnesses: [
    {
      name: 'mmmu',
      about:
        "the benchmark's own scorer: an option's letter or text, the last of several; none: one is drawn (Python, seed 42); free answers by text contained, or equal number",
    },
  ],
  files: [
    {
      places: [KEY, 'Accounting/validation-00000-of-00001.parquet', 'data/validation-00000-of-00001.parquet'],
      holds: 'right answers of the validation split; not needed where the Parquet files are there',
      url: 'https://github.com/MMMU-Benchmark/MMMU/blob/main/mmmu/answer_dict_val.json',
      bytes: 102_911,
      license: 'Apache-2.0',
      needed: 'score',
    },
    ...SUBJECTS.map((subject) => ({
      places: [`${subject}/validation-00000-of-00001.parquet`, 'data/validation-00000-of-00001.parquet'] as [string, ...string[]],
      holds: `questions and pictures of ${subject}`,
      url: `https://huggingface.co/datasets/MMMU/MMMU/resolve/main/${subject}/validation-00000-of-00001.parquet`,
      bytes: 12_000_000,
      license: 'Apache-2.0; pictures as marked in the questions',
      needed: 'ask' as const,
    })),
  ],

  async questions({ files, folder = '.' }: QuestionSources) {
    const paths = (files ?? [folder]).flatMap((path) => (existsSync(path) && statSync(path).isDirectory() ? questionFiles(path) : [path]));
    const questions = (await Promise.all(paths.map(readMmmuFile))).flat();
    return questions.toSorted((a, b) => SUBJECTS.indexOf(a.groups.subject) - SUBJECTS.indexOf(b.groups.subject));
  },

  async answers(path, questions): Promise<MmmuAnswered[]> {
    const outputs = outputsAt(path);
    if (outputs !== undefined) return withOutputs(path, outputs, questions);
    if (questions === undefined)
      throw new UserError(`${path}: holds answers alone; give the right ones, ${KEY} or the Parquet files, with --questions or --data`);
    const form = { id: 'id', answer: 'response', about: "MMMU's dictionary from ids to parsed answers, or its output.json" };
    const answered: MmmuAnswered[] = joinById(path, questions, await readAnswers(path, form));
    const open = answered.find(({ question, submitted }) => !submitted && !question.isOpen && Object.keys(question.texts).length === 0);
    if (open)
      throw new UserError(
        `${path}: to read answers out of texts, the options are needed, which ${KEY} has not; give the Parquet files of MMMU`,
      );
    return answered;
  },

  judge,
  unasked: (judged) => ({ ...judged, drawn: undefined }),
  summarize,
};
