// SEED-Bench-1 (Li et al. 2023, arXiv 2307.16125): questions with four options about pictures, and about
// videos, of which LLaVA shows the frame in the middle. Scored as scripts/convert_seed_for_submission.py of
// haotian-liu/LLaVA does: the answer must be the right letter and nothing else.

import { basename, join } from 'node:path';
import { z } from 'zod';
import { UserError } from '../errors.ts';
import { readAnswers } from './answer-files.ts';
import { isTable, readAnswerTable } from './answer-tables.ts';
import { joinById, refuseRepeated } from './answers.ts';
import type {
  Answered,
  Benchmark,
  BenchmarkQuestion,
  GroupScores,
  Judged,
  QuestionPicture,
  QuestionSources,
  Summary,
} from './benchmark.ts';
import { fileIn, firstOf, pictureFile, readJsonLines } from './files.ts';
import { type JsonEntry, JsonFile } from './json-entries.ts';
import { byGroup, percent } from './means.ts';
import { letterAnswer } from './prompts.ts';
import { cellOf, type DataRow, type DataRows, readRows } from './rows.ts';
import { wholeNumber } from './table.ts';

const LETTERS = ['A', 'B', 'C', 'D'];
const QUESTIONS: [string, ...string[]] = ['SEED-Bench.json', '../seed_bench/SEED-Bench.json'];
/** Tables that have right letters without questions. */
const TABLES = ['image_even.tsv'];
const PROMPTS = ['llava-seed-bench.jsonl', '../seed_bench/llava-seed-bench.jsonl'];
const PICTURES: [string, ...string[]] = ['SEED-Bench-image', '../seed_bench/SEED-Bench-image'];
const FRAMES = ['SEED-Bench-video-image', '../seed_bench/SEED-Bench-video-image'];
const ANSWERS = "answers to SEED-Bench: LLaVA's answers.jsonl, its upload (question_id, prediction), or a table with these columns";
const FORM = 'questions of SEED-Bench: an object with questions and question_type';

type DataType = 'image' | 'video';

interface SeedQuestion extends BenchmarkQuestion {
  groups: { question_type?: string; data_type?: DataType };
  options: string[];
  /** Ids of questions in the same file that the harness leaves out: answers to them are no mistake. */
  leftOut: ReadonlySet<string>;
}

interface SeedAnswered extends Answered<SeedQuestion> {
  /** Where a table has answers of several systems: of each. The answer is that of the first. */
  systems?: Record<string, string>;
}

interface SeedJudged extends Judged<SeedQuestion> {
  systems?: Record<string, string>;
}

const id = z.union([z.string().min(1), z.number()]).transform(String);
const gold = z.enum(['A', 'B', 'C', 'D'], 'must be A, B, C or D');
const questionSchema = z.object({
  question_id: id,
  question: z.string(),
  choice_a: z.string(),
  choice_b: z.string(),
  choice_c: z.string(),
  choice_d: z.string(),
  answer: gold,
  data_type: z.enum(['image', 'video']),
  data_id: z.union([z.string(), z.number()]).transform(String),
  question_type_id: z.number().int(),
});

const promptLine = z.looseObject({ question_id: id, image: z.string(), text: z.string() });

const promptOf = (question: string, choices: readonly string[]) =>
  `<image>\n${letterAnswer([question, ...choices.map((choice, i) => `${LETTERS[i]}. ${choice}`)].join('\n'))}`;

/** Words and pictures that LLaVA's llava-seed-bench.jsonl has for each question. */
function readPrompts(path: string | undefined): Map<string, { image: string; text: string }> {
  if (path === undefined) return new Map();
  const lines = readJsonLines(path, promptLine, "LLaVA's questions: question_id, image and text in each line");
  return new Map(lines.map(({ value }) => [value.question_id, value]));
}

function readSeedJson(path: string, prompts: string | undefined, folder: string): SeedQuestion[] {
  const file = new JsonFile(path, FORM);
  const types = new Map(Array.from(file.entries('question_type'), ({ key, value }) => [value, key!]));
  const words = readPrompts(prompts);
  const pictures = firstOf(folder, PICTURES) ?? join(folder, PICTURES[0]);
  const frames = firstOf(folder, FRAMES) ?? join(folder, FRAMES[0]);
  const questions = Array.from(file.entries('questions'), (entry) => {
    const data = checked(path, entry);
    const given = words.get(data.question_id);
    const shown = given
      ? join(pictures, '..', given.image)
      : data.data_type === 'image'
        ? join(pictures, data.data_id)
        : join(frames, `${data.question_type_id}_${data.question_id}.png`);
    return {
      id: data.question_id,
      prompt: given ? `<image>\n${given.text}` : promptOf(data.question, [data.choice_a, data.choice_b, data.choice_c, data.choice_d]),
      pictures: [pictureFile(shown, data.data_id)],
      references: [data.answer],
      cluster: data.data_id,
      groups: { question_type: types.get(data.question_type_id) ?? String(data.question_type_id), data_type: data.data_type },
      options: LETTERS,
      where: entry.where,
    };
  });
  return finished(path, questions);
}

function checked(path: string, { value, where }: JsonEntry): z.output<typeof questionSchema> {
  const parsed = questionSchema.safeParse(value);
  if (parsed.success) return parsed.data;
  const [{ path: field, message }] = parsed.error.issues;
  throw new UserError(`${path}: ${where}: ${field.join('.')}: ${message}; the file should be ${FORM}`);
}

/** Refuses ids that come twice. */
function finished<Q extends Omit<SeedQuestion, 'leftOut'> & { where: string }>(path: string, questions: readonly Q[]): SeedQuestion[] {
  refuseRepeated(path, 'questions', questions);
  return questions.map(({ where: _, ...question }) => ({ ...question, leftOut: new Set<string>() }));
}

/** Questions of a table or a Parquet file: question_id and answer at least. */
async function readSeedRows(path: string): Promise<SeedQuestion[]> {
  const rows = await readRows(path);
  // vlmevalkit's tables have an index beside the id
  const idColumn = ['question_id', 'index'].find((name) => rows.columns.includes(name));
  if (idColumn === undefined) throw new UserError(`${path}: has no column question_id; its columns are ${rows.columns.join(', ')}`);
  const questions = rows.rows.map((row) => {
    const letter = cellOf(row, 'answer')?.trim() ?? '';
    if (!LETTERS.includes(letter)) throw new UserError(`${path}: ${row.where}: the answer ${JSON.stringify(letter)} must be A, B, C or D`);
    const [name, type, kind] = [
      cellOf(row, 'data_id'),
      cellOf(row, 'question_type', 'category', 'question_type_id'),
      cellOf(row, 'data_type'),
    ];
    const questionId = wholeNumber(row.cells[idColumn]);
    return {
      id: questionId,
      prompt: promptOf(cellOf(row, 'question') ?? '', choicesOf(row)),
      pictures: [pictureOf(path, rows, row, name ?? questionId)],
      references: [letter],
      cluster: name ?? questionId,
      groups: { ...(type === undefined ? {} : { question_type: type }), ...(kind === undefined ? {} : { data_type: kind as DataType }) },
      options: LETTERS,
      where: row.where,
    };
  });
  return finished(path, questions);
}

const choicesOf = (row: DataRow) =>
  [...'abcd'].map((letter) => cellOf(row, `choice_${letter}`, letter)).filter((choice) => choice !== undefined);

function pictureOf(path: string, rows: DataRows, row: DataRow, name: string): QuestionPicture {
  if (rows.columns.includes('image')) return row.picture('image', name);
  const read = () => Promise.reject(new UserError(`${path}: has no pictures; to ask, give SEED-Bench.json (llava-gemma benchmarks seed)`));
  return { name, read };
}

const countsOf = (credits: readonly number[]): GroupScores => ({
  accuracy: percent(credits),
  correct: credits.filter((credit) => credit === 1).length,
  n: credits.length,
});

function groupsOf(judged: readonly SeedJudged[], groupOf: (one: SeedJudged) => string | undefined): Record<string, GroupScores> {
  const members = [...byGroup(judged, groupOf)];
  return Object.fromEntries(members.map(([name, of]) => [name, countsOf(of.map(({ credit }) => credit))]));
}

function summarize(judged: readonly SeedJudged[], harness: string): Summary {
  const systems = Object.keys(judged[0]?.systems ?? {});
  const creditsOf = (system: string) =>
    judged.map(({ systems, question }) => (readLetter(systems![system], harness) === question.references[0] ? 1 : 0));
  const { accuracy, correct, n: questions } = countsOf(judged.map(({ credit }) => credit));
  const unread = judged.filter(({ parsed }) => parsed === undefined).length;
  const groups = {
    question_type: groupsOf(judged, ({ question }) => question.groups.question_type),
    data_type: groupsOf(judged, ({ question }) => question.groups.data_type),
    system: Object.fromEntries(systems.map((system) => [system, countsOf(creditsOf(system))])),
  };
  return {
    scores: { accuracy, correct, questions },
    groups: Object.fromEntries(Object.entries(groups).filter(([, members]) => Object.keys(members).length > 0)),
    bounds: unread > 0 ? { low: accuracy, high: ((correct + unread) / questions) * 100 } : undefined,
    notes: systems.length > 0 ? [`The table has answers of ${systems.join(', ')}; the scores are those of ${systems[0]}.`] : [],
  };
}

/** The letter of an answer; undefined where it is none, and then wrong. */
function readLetter(answer: string, harness: string): string | undefined {
  const letter = harness === 'lmms-eval' ? answer.trim().slice(0, 1).toUpperCase() : answer;
  return LETTERS.includes(letter) ? letter : undefined;
}

export const seed: Benchmark<SeedQuestion, SeedJudged> = {
  name: 'seed',
  title: 'SEED-Bench-1, questions about images',
  source: 'Li et al. 2023, SEED-Bench: Benchmarking Multimodal LLMs with Generative Comprehension, arXiv 2307.16125',
  headline: { name: 'accuracy', best: 100 },
  maxNewTokens: 128,
  harnesses: [
    { name: 'llava', about: 'convert_seed_for_submission.py of LLaVA, questions about images: the letter and nothing else' },
    { name: 'llava-all', about: 'the same, questions about videos included, of which the frame in the middle is shown' },
    { name: 'lmms-eval', about: 'seedbench/utils.py of lmms-eval, questions about images: the first character, in any case' },
  ],
  files: [
    {
      places: QUESTIONS,
      holds: '19,242 questions (14,233 about images) with right letters and types',
      url: 'https://huggingface.co/datasets/AILab-CVC/SEED-Bench/resolve/main/SEED-Bench.json',
      bytes: 8_600_000,
      license: 'CC BY-NC 4.0',
      needed: 'score',
    },
    {
      places: PICTURES,
      holds: 'the pictures, of Conceptual Captions',
      url: 'https://huggingface.co/datasets/AILab-CVC/SEED-Bench/resolve/main/SEED-Bench-image.zip',
      bytes: 26_900_000_000,
      license: 'those of the pictures; annotations CC BY-NC 4.0',
      needed: 'ask',
    },
  ],

  async questions({ files, folder = '.', harness }: QuestionSources) {
    const found = files ?? [firstOf(folder, [...QUESTIONS, ...TABLES])].filter((path) => path !== undefined);
    const isPrompts = (path: string) => /\.jsonl$/i.test(path);
    const prompts = found.find(isPrompts) ?? (files ? undefined : firstOf(folder, PROMPTS));
    const read = found
      .filter((path) => !isPrompts(path))
      .map((path) => (/\.json$/i.test(path) ? readSeedJson(path, prompts, folder) : readSeedRows(path)));
    const questions = (await Promise.all(read)).flat();
    if (questions.length === 0 && files) throw new UserError(`${files.join(', ')}: has no right letters; give SEED-Bench.json beside it`);
    refuseRepeated(found.map((path) => basename(path)).join(', '), 'questions', questions);
    if (harness === 'llava-all') return questions;
    const leftOut = new Set(questions.filter(({ groups }) => groups.data_type === 'video').map(({ id }) => id));
    return questions.filter(({ id }) => !leftOut.has(id)).map((question) => ({ ...question, leftOut }));
  },

  async answers(path, questions) {
    const file = fileIn(path, ['.jsonl', '.tsv', '.csv', '.json'], ANSWERS);
    if (!isTable(file)) {
      if (questions === undefined)
        throw new UserError(`${file}: the right letters are in SEED-Bench.json; give it with --questions or --data`);
      const form = { id: 'question_id', answer: 'prediction', about: "LLaVA's upload: question_id and prediction in each line" };
      const lines = await readAnswers(file, form);
      const leftOut = questions[0]?.leftOut ?? new Set();
      return joinById(
        file,
        questions,
        lines.filter((line) => !leftOut.has(line.id)),
      );
    }
    const systems = readAnswerTable(file, 'question_id', 'index');
    const asked = questions ?? (await readSeedRows(file));
    const leftOut = asked[0]?.leftOut ?? new Set();
    const joined = [...systems].map(
      ([system, lines]) =>
        [
          system,
          joinById(
            file,
            asked,
            lines.filter((line) => !leftOut.has(line.id)),
          ),
        ] as const,
    );
    const [[, first]] = joined;
    if (joined.length === 1) return first;
    return first.map((one, i) => ({ ...one, systems: Object.fromEntries(joined.map(([system, of]) => [system, of[i].answer])) }));
  },

  judge: (answered: readonly SeedAnswered[], { harness }) =>
    answered.map((one) => {
      const parsed = readLetter(one.answer, harness);
      return { ...one, parsed, credit: parsed === one.question.references[0] ? 1 : 0 };
    }),

  summarize,
};
