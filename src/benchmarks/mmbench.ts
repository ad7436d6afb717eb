// MMBench (Liu et al. 2023, arXiv 2307.06281): questions with two to four options, each asked once for every
// rotation of its options. Circular evaluation takes a question for right when all its passes are; passes of
// one question have indices that are equal modulo 1,000,000.
//
// Asked as llava/eval/model_vqa_mmbench.py of haotian-liu/LLaVA does. The benchmark's server reads answers by
// rules and, where these fail, by a language model; here they are then wrong, and counted.

import { basename } from 'node:path';
import { UserError } from '../errors.ts';
import { readAnswers } from './answer-files.ts';
import { isTable, readAnswerTable } from './answer-tables.ts';
import { joinById, refuseRepeated } from './answers.ts';
import type {
  Benchmark,
  BenchmarkFile,
  BenchmarkQuestion,
  GroupScores,
  Judged,
  QuestionPicture,
  QuestionSources,
  Summary,
} from './benchmark.ts';
import { fileIn, firstOf } from './files.ts';
import { inferLetter } from './infer-letter.ts';
import { byGroup, percent } from './means.ts';
import { letterAnswer, letterAnswerInChinese } from './prompts.ts';
import { cellOf, type DataRow, type DataRows, readRows } from './rows.ts';
import { isMissing, wholeNumber } from './table.ts';

type Language = 'en' | 'cn';

const LETTERS = ['A', 'B', 'C', 'D', 'E'] as const;
/** Indices of passes of one question differ by multiples of it. */
const PASS = 1_000_000;
/** Sheets that have right letters without questions. */
const SHEETS = ['dev_20230712_llava-v1.5-13b_even.tsv'];
/** A picture in base64 is longer; what is shorter is the index of the row that has it. */
const SHORTEST_PICTURE = 64;

const GROUPINGS = ['category', 'l2-category', 'split'] as const;
const ANSWERS = "answers to MMBench: an upload sheet exported as TSV or CSV (index, prediction), or LLaVA's answers.jsonl";

interface MmbenchQuestion extends BenchmarkQuestion {
  groups: Partial<Record<(typeof GROUPINGS)[number], string>>;
  /** Texts by letter; undefined where the file has letters alone. */
  texts: Record<string, string | undefined>;
  /** Which rotation of the options it shows, from 0. */
  pass: number;
}

/** Texts of the options, by letter. */
const textsOf = ({ cells }: DataRow) =>
  Object.fromEntries(LETTERS.map((letter) => [letter, cells[letter.toLowerCase()] ?? '']).filter(([, text]) => text !== ''));

/** Those that are shown: LLaVA's get_options stops before the first that is missing, or says none. */
function shownOptions(texts: Readonly<Record<string, string>>): [string, string][] {
  const entries = Object.entries(texts);
  const end = entries.findIndex(([, text]) => isMissing(text));
  return end < 0 ? entries : entries.slice(0, end);
}

const lettersAlone = { A: undefined, B: undefined, C: undefined, D: undefined };

function promptOf(row: DataRow, texts: Record<string, string>, language: Language): string {
  const hint = cellOf(row, 'hint');
  const question = cellOf(row, 'question') ?? '';
  const lines = [...(hint === undefined ? [] : [hint]), question, ...shownOptions(texts).map(([letter, text]) => `${letter}. ${text}`)];
  return `<image>\n${(language === 'cn' ? letterAnswerInChinese : letterAnswer)(lines.join('\n'))}`;
}

/** Stands for the picture of a question of which only letters are known: it can be scored, not asked. */
const absent = (path: string, name: string): QuestionPicture => ({
  name,
  read: () => Promise.reject(new UserError(`${path}: has no pictures; to ask, give MMBench's own file (llava-gemma benchmarks mmbench)`)),
});

function pictureOf(path: string, rows: DataRows, row: DataRow, base: string, byIndex: ReadonlyMap<string, DataRow>): QuestionPicture {
  if (!rows.columns.includes('image')) return absent(path, base);
  const hint = row.cells.image ?? '';
  const other = hint.length > 0 && hint.length < SHORTEST_PICTURE ? byIndex.get(wholeNumber(hint)) : undefined;
  return (other ?? row).picture('image', base);
}

async function readQuestions(path: string, language: Language): Promise<MmbenchQuestion[]> {
  const rows = await readRows(path);
  if (!rows.columns.includes('index')) throw new UserError(`${path}: has no column index; its columns are ${rows.columns.join(', ')}`);
  const byIndex = new Map(rows.rows.map((row) => [wholeNumber(row.cells.index), row]));
  const questions = rows.rows.map((row) => {
    const id = wholeNumber(row.cells.index);
    if (!/^\d+$/.test(id)) throw new UserError(`${path}: ${row.where}: the index ${JSON.stringify(id)} is no whole number`);
    const base = Number(id) % PASS;
    const texts = textsOf(row);
    const hasTexts = Object.keys(texts).length > 0;
    const options = hasTexts ? Object.keys(texts) : Object.keys(lettersAlone);
    return {
      id,
      prompt: promptOf(row, texts, language),
      pictures: [pictureOf(path, rows, row, String(base), byIndex)],
      references: [goldOf(path, row, hasTexts ? options : LETTERS)],
      cluster: String(base),
      groups: groupsOf(row),
      options,
      texts: hasTexts ? texts : lettersAlone,
      pass: Math.floor(Number(id) / PASS),
      where: row.where,
    };
  });
  refuseRepeated(path, 'questions', questions);
  return questions.map(({ where: _, ...question }) => question);
}

function goldOf(path: string, row: DataRow, letters: readonly string[]): string {
  const gold = cellOf(row, 'answer')?.trim();
  if (gold === undefined)
    throw new UserError(`${path}: ${row.where}: has no answer; the test split is scored by the benchmark's server (opencompass.org.cn)`);
  if (!letters.includes(gold))
    throw new UserError(`${path}: ${row.where}: the answer ${JSON.stringify(gold)} is none of the options ${letters.join(', ')}`);
  return gold;
}

const groupsOf = ({ cells }: DataRow) =>
  Object.fromEntries(GROUPINGS.flatMap((name) => (isMissing(cells[name]) ? [] : [[name, cells[name]]])));

/** The passes of each question, the first one first. */
const questionsIn = <T extends { question: MmbenchQuestion }>(judged: readonly T[]): T[][] =>
  [...byGroup(judged, ({ question }) => question.cluster).values()].map((passes) =>
    passes.toSorted((a, b) => a.question.pass - b.question.pass),
  );

type MmbenchJudged = Judged<MmbenchQuestion>;

const isRight = (passes: readonly MmbenchJudged[]) => passes.every(({ credit }) => credit === 1);

const share = (part: number, whole: number) => (whole === 0 ? 0 : (part / whole) * 100);

function countsOf(questions: readonly MmbenchJudged[][]): GroupScores {
  const correct = questions.filter(isRight).length;
  return { accuracy: share(correct, questions.length), correct, n: questions.length };
}

function summarize(judged: readonly MmbenchJudged[]): Summary {
  const questions = questionsIn(judged);
  const circular = countsOf(questions);
  const passesCorrect = judged.filter(({ credit }) => credit === 1).length;
  const firstCorrect = questions.filter(([first]) => first.credit === 1).length;
  const possible = questions.filter((passes) => passes.every(({ credit, parsed }) => credit === 1 || parsed === undefined)).length;
  const groupings = GROUPINGS.map((grouping) => {
    const members = [...byGroup(questions, ([first]) => first.question.groups[grouping])].sort(([a], [b]) => (a < b ? -1 : 1));
    return [grouping, Object.fromEntries(members.map(([name, of]) => [name, countsOf(of)]))] as const;
  });
  return {
    scores: {
      circular_accuracy: circular.accuracy,
      circular_correct: circular.correct,
      questions: questions.length,
      passes: judged.length,
      passes_correct: passesCorrect,
      pass_accuracy: percent(judged.map(({ credit }) => credit)),
      first_pass_correct: firstCorrect,
      first_pass_accuracy: share(firstCorrect, questions.length),
    },
    groups: Object.fromEntries(groupings.filter(([, members]) => Object.keys(members).length > 0)),
    bounds: judged.some(({ parsed }) => parsed === undefined)
      ? { low: circular.accuracy, high: share(possible, questions.length) }
      : undefined,
    notes:
      judged.length === questions.length && judged.length > 0
        ? ['Each question was asked once only: circular accuracy is then that of the first pass.']
        : [],
  };
}

function createMmbench(
  name: string,
  title: string,
  language: Language,
  places: [string, ...string[]],
  file: Partial<BenchmarkFile>,
): Benchmark<MmbenchQuestion> {
  return {
    name,
    title,
    source: 'Liu et al. 2023, MMBench: Is Your Multi-modal Model an All-around Player?, arXiv 2307.06281',
    headline: { name: 'circular_accuracy', best: 100 },
    maxNewTokens: 1024,
    harnesses: [
      {
        name: 'mmbench',
        about: 'circular evaluation; a letter standing alone, or the text of one option alone; what these rules do not read is wrong',
      },
      { name: 'exact', about: 'circular evaluation; the answer must be the letter and nothing else' },
    ],
    files: [
      {
        places,
        holds: 'questions, options, right letters and pictures of the dev split',
        url: '',
        bytes: 0,
        license: 'Apache-2.0',
        needed: 'score',
        ...file,
      },
    ],

    async questions({ files, folder = '.' }: QuestionSources) {
      const found = firstOf(folder, [...places, ...SHEETS]);
      const read = await Promise.all((files ?? (found === undefined ? [] : [found])).map((path) => readQuestions(path, language)));
      const questions = read.flat();
      refuseRepeated(files?.map((path) => basename(path)).join(', ') ?? folder, 'questions', questions);
      return questions;
    },

    async answers(path, questions) {
      const file = fileIn(path, ['.tsv', '.csv', '.jsonl', '.json'], ANSWERS);
      if (!isTable(file)) {
        if (questions === undefined)
          throw new UserError(`${file}: MMBench's right answers are in its TSV file; give it with --questions or --data`);
        return joinById(
          file,
          questions,
          await readAnswers(file, { id: 'index', answer: 'prediction', about: 'records of index and prediction' }),
        );
      }
      const [[system, lines], ...others] = readAnswerTable(file, 'index', 'question_id');
      if (others.length > 0)
        throw new UserError(
          `${file}: which of its columns are the answers? ${[system, ...others.map(([name]) => name)].join(', ')}: call it prediction`,
        );
      // a sheet may hold the right letters too
      return joinById(file, questions ?? (await readQuestions(file, language)), lines);
    },

    judge: (answered, { harness }) =>
      answered.map((one) => {
        const { question, answer } = one;
        const letter = answer.trim();
        const parsed =
          harness === 'exact' ? (question.options?.includes(letter) ? letter : undefined) : inferLetter(answer, question.texts);
        return { ...one, parsed, credit: parsed === question.references[0] ? 1 : 0 };
      }),

    summarize,
  };
}

export const mmbench = createMmbench(
  'mmbench',
  'MMBench dev, English (20230712), circular',
  'en',
  ['mmbench_dev_20230712.tsv', 'mmbench_dev_en_20231003.tsv', 'MMBench_DEV_EN.tsv'],
  { url: 'https://download.openmmlab.com/mmclassification/datasets/mmbench/mmbench_dev_20230712.tsv', bytes: 110_000_000 },
);

export const mmbenchCn = createMmbench(
  'mmbench-cn',
  'MMBench dev, Chinese (20231003), circular',
  'cn',
  [
    'mmbench_dev_cn_20231003.tsv',
    '../mmbench_cn/mmbench_dev_cn_20231003.tsv',
    '../mmbench/mmbench_dev_cn_20231003.tsv',
    'MMBench_DEV_CN.tsv',
  ],
  { url: 'https://download.openmmlab.com/mmclassification/datasets/mmbench/mmbench_dev_cn_20231003.tsv', bytes: 110_000_000 },
);
