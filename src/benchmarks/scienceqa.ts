// ScienceQA (Lu et al. 2022, arXiv 2209.09513): questions of school books with two to five options, half of
// them about a picture. Scored as llava/eval/eval_science_qa.py of haotian-liu/LLaVA does, which reads an
// answer that it cannot parse as wrong. Its older version drew an option instead, and stored it.

import { join } from 'node:path';
import { z } from 'zod';
import { UserError } from '../errors.ts';
import { FAILED, parseLetter } from '../evaluate/scoring.ts';
import { readAnswers } from './answer-files.ts';
import { type AnswerLine, joinById, refuseRepeated } from './answers.ts';
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
import { fileIn, firstOf, pictureFile } from './files.ts';
import { type JsonEntry, JsonFile } from './json-entries.ts';
import { letterAnswer } from './prompts.ts';

const LETTERS = 'ABCDE';
const LLAVA: [string, ...string[]] = ['llava_test_CQM-A.json'];
const PROBLEMS: [string, ...string[]] = ['problems.json', 'data/scienceqa/problems.json'];
const SPLITS: [string, ...string[]] = ['pid_splits.json', 'data/scienceqa/pid_splits.json'];
const PICTURES: [string, ...string[]] = ['images/test', 'test', 'images'];

const FORM = "questions of ScienceQA: problems.json with pid_splits.json, or LLaVA's llava_test_CQM-A.json";
const ANSWERS =
  "answers to ScienceQA: LLaVA's answers.jsonl, the result JSON of its scorer (results and outputs), or its list of correct and incorrect ones";

interface ScienceQuestion extends BenchmarkQuestion {
  groups: { picture: 'with' | 'without'; subject?: string; grade?: string; context?: string[] };
  options: string[];
}

interface ScienceAnswered extends Answered<ScienceQuestion> {
  /** The letter that the file says was read out of the answer, or drawn. */
  stored?: string;
}

interface ScienceJudged extends Judged<ScienceQuestion> {
  stored?: string;
}

const text = z.string();

const llavaQuestion = z.object({
  id: z.union([text, z.number()]).transform(String),
  image: text.optional(),
  conversations: z.tuple([z.object({ value: text }), z.object({ value: text })]).rest(z.unknown()),
});

const problem = z.object({
  question: text,
  choices: z.array(text).min(2).max(LETTERS.length),
  answer: z.number().int().nonnegative(),
  hint: text.nullish(),
  image: text.nullish(),
  split: text.optional(),
  subject: text.optional(),
  grade: text.optional(),
});

function checked<T>(path: string, schema: z.ZodType<T>, { value, where }: JsonEntry): T {
  const parsed = schema.safeParse(value);
  if (parsed.success) return parsed.data;
  const [{ path: field, message }] = parsed.error.issues;
  throw new UserError(`${path}: ${where}: ${field.join('.')}: ${message}; the file should be ${FORM}`);
}

/** `<image>` first, as model_vqa_science.py asks. */
const promptOf = (question: string, hasPicture: boolean) => {
  const words = letterAnswer(question.replaceAll('<image>', '').trim());
  return hasPicture ? `<image>\n${words}` : words;
};

/** The letters before the options of a question in LLaVA's words: `A. x` in a line each, or `(A) x (B) y`. */
function optionsIn(words: string): string[] {
  const listed = [...LETTERS].filter((letter) => new RegExp(`^${letter}\\. `, 'm').test(words));
  return listed.length > 0 ? listed : [...LETTERS].filter((letter) => words.includes(`(${letter}) `));
}

function readLlavaQuestions(path: string, folder: string): ScienceQuestion[] {
  const pictures = firstOf(folder, PICTURES) ?? join(folder, PICTURES[0]);
  return Array.from(new JsonFile(path, FORM).entries(), (entry) => {
    const { id, image, conversations } = checked(path, llavaQuestion, entry);
    const [question, answer] = conversations;
    const options = optionsIn(question.value);
    const gold = parseLetter(answer.value.trim(), LETTERS);
    if (!options.includes(gold))
      throw new UserError(`${path}: ${entry.where}: the answer to ${id} is none of its options: ${JSON.stringify(answer.value)}`);
    return {
      id,
      prompt: promptOf(question.value, image !== undefined),
      pictures: image === undefined ? [] : [pictureFile(join(pictures, image), image)],
      references: [gold],
      cluster: id,
      groups: { picture: image === undefined ? ('without' as const) : ('with' as const) },
      options,
    };
  });
}

/** Kinds of context as the paper's tables have them. A question may have words and a picture. */
const contextsOf = (hint: string, image: string) =>
  [hint !== '' && 'TXT', image !== '' && 'IMG', hint === '' && image === '' && 'NO'].filter((kind) => kind !== false);

const SUBJECTS: Record<string, string> = { 'natural science': 'NAT', 'social science': 'SOC', 'language science': 'LAN' };

function questionOf(id: string, { question, choices, answer, hint, image, subject, grade }: z.output<typeof problem>, pictures: string) {
  const name = image ? `${id}/${image}` : '';
  const shown: QuestionPicture[] = name === '' ? [] : [pictureFile(join(pictures, name), name)];
  const lines = [...(hint ? [`Context: ${hint}`] : []), question, ...choices.map((choice, i) => `${LETTERS[i]}. ${choice}`)];
  const year = Number(/\d+/.exec(grade ?? '')?.[0] ?? Number.NaN);
  return {
    id,
    prompt: promptOf(lines.join('\n'), shown.length > 0),
    pictures: shown,
    references: [LETTERS[answer]],
    cluster: id,
    groups: {
      picture: shown.length > 0 ? ('with' as const) : ('without' as const),
      ...(subject === undefined ? {} : { subject: SUBJECTS[subject] ?? subject }),
      context: contextsOf(hint ?? '', image ?? ''),
      ...(Number.isNaN(year) ? {} : { grade: year <= 6 ? 'G1-6' : 'G7-12' }),
    },
    options: [...LETTERS].slice(0, choices.length),
  };
}

/** The test questions of problems.json, in the order of the split. */
function readProblems(path: string, splits: string | undefined, folder: string): ScienceQuestion[] {
  const pictures = firstOf(folder, PICTURES) ?? join(folder, PICTURES[0]);
  const test = splits === undefined ? undefined : testIds(splits);
  const wanted = new Set(test);
  const found = new Map<string, ScienceQuestion>();
  for (const entry of new JsonFile(path, FORM).entries()) {
    const id = entry.key!;
    if (test ? !wanted.has(id) : (entry.value as { split?: unknown }).split !== 'test') continue;
    const data = checked(path, problem, entry);
    if (data.answer >= data.choices.length)
      throw new UserError(
        `${path}: ${entry.where}: the answer to ${id} is number ${data.answer} of ${data.choices.length} choices, counted from 0`,
      );
    if (found.has(id)) throw new UserError(`${path}: ${entry.where}: problem ${id} comes twice`);
    found.set(id, questionOf(id, data, pictures));
  }
  const missing = test?.find((id) => !found.has(id));
  if (missing !== undefined) throw new UserError(`${path}: problem ${missing} is missing, which ${splits} lists for the test split`);
  return test ? test.map((id) => found.get(id)!) : [...found.values()];
}

function testIds(path: string): string[] {
  const ids = Array.from(new JsonFile(path, FORM).entries('test'), ({ value }) => String(value));
  refuseRepeated(
    path,
    'questions of the test split',
    ids.map((id) => ({ id })),
  );
  return ids;
}

/** What each of the given files is. */
function sortFiles(files: readonly string[]) {
  const sorted: { llava?: string; problems?: string; splits?: string } = {};
  for (const path of files) {
    const file = new JsonFile(path, FORM);
    const kind = file.kind === 'array' ? 'llava' : file.keys().includes('test') ? 'splits' : 'problems';
    if (sorted[kind] !== undefined) throw new UserError(`${path}: is a second file of the same form as ${sorted[kind]}; one is enough`);
    sorted[kind] = path;
  }
  return sorted;
}

/** A result JSON or a list of correct and incorrect answers; undefined where the file is neither. */
function readResults(path: string): { lines: AnswerLine[]; stored: Map<string, string> } | undefined {
  const file = new JsonFile(path, ANSWERS);
  if (file.kind !== 'object' || !file.isWhole) return undefined;
  const keys = file.keys();
  const stored = new Map<string, string>();
  const line = (id: unknown, answer: unknown, where: string): AnswerLine => {
    if (typeof answer !== 'string' || (typeof id !== 'string' && typeof id !== 'number'))
      throw new UserError(`${path}: ${where}: the answer to ${id} is not a text; the file should be ${ANSWERS}`);
    return { id: String(id), text: answer, where };
  };
  if (keys.includes('results')) {
    const results = [...file.entries('results')];
    for (const { key, value } of results) stored.set(key!, LETTERS[Number(value)] ?? FAILED);
    if (!keys.includes('outputs')) return { lines: results.map(({ key, where }) => line(key, stored.get(key!), where)), stored };
    return { lines: Array.from(file.entries('outputs'), ({ key, value, where }) => line(key, value, where)), stored };
  }
  if (!keys.includes('correct') || !keys.includes('incorrect')) return undefined;
  const entries = [...file.entries('correct'), ...file.entries('incorrect')];
  const lines = entries.map(({ value, where }) => {
    const { question_id, pred } = (value ?? {}) as { question_id?: unknown; pred?: unknown };
    return line(question_id, pred, where);
  });
  return { lines, stored };
}

const isWithPicture = ({ question }: { question: ScienceQuestion }) => question.groups.picture === 'with';

interface Tally {
  correct: number;
  n: number;
}

const scoresOf = ({ correct, n }: Tally): GroupScores => ({ accuracy: n === 0 ? 0 : (correct / n) * 100, correct, n });

const GROUPINGS = ['picture', 'subject', 'context', 'grade'] as const;

/** Right answers and questions of each group, by grouping; a question may be in several groups. */
function tallied(judged: readonly ScienceJudged[]): Record<string, Map<string, Tally>> {
  const groupings = GROUPINGS.map((name) => [name, new Map<string, Tally>()] as const);
  for (const { question, credit } of judged)
    for (const [name, tallies] of groupings) {
      const groups = question.groups[name];
      for (const group of typeof groups === 'string' ? [groups] : (groups ?? [])) {
        const tally = tallies.get(group) ?? { correct: 0, n: 0 };
        tallies.set(group, tally);
        tally.correct += credit;
        tally.n++;
      }
    }
  return Object.fromEntries(groupings);
}

/** The scores of each group, in alphabetical order. */
const groupsOf = (tallies: ReadonlyMap<string, Tally>): Record<string, GroupScores> =>
  Object.fromEntries([...tallies].sort(([a], [b]) => (a < b ? -1 : 1)).map(([group, tally]) => [group, scoresOf(tally)]));

function summarize(judged: readonly ScienceJudged[]): Summary {
  const groupings = tallied(judged);
  const { with: image = { correct: 0, n: 0 }, without = { correct: 0, n: 0 } } = Object.fromEntries(groupings.picture);
  const [all, images] = [scoresOf({ correct: image.correct + without.correct, n: image.n + without.n }), scoresOf(image)];
  const unread = judged.filter((one) => one.parsed === undefined && isWithPicture(one)).length;
  return {
    scores: {
      accuracy: all.accuracy,
      correct: all.correct,
      total: all.n,
      image_accuracy: images.accuracy,
      image_correct: images.correct,
      image_total: images.n,
    },
    groups: Object.fromEntries(
      Object.entries(groupings)
        .filter(([, tallies]) => tallies.size > 0)
        .map(([name, tallies]) => [name, groupsOf(tallies)]),
    ),
    bounds: unread > 0 ? { low: images.accuracy, high: ((image.correct + unread) / image.n) * 100 } : undefined,
    notes: notesOf(judged, image.n),
  };
}

function notesOf(judged: readonly ScienceJudged[], withPicture: number): string[] {
  const notes: string[] = [];
  const drawn = judged.filter(({ stored, parsed, question }) => {
    if (stored === undefined) return false;
    const read = parsed !== undefined && question.options.includes(parsed) ? parsed : FAILED;
    return stored !== read;
  });
  const right = drawn.filter(({ stored, question }) => stored === question.references[0]).length;
  if (drawn.length > 0) {
    const shown = drawn
      .slice(0, 5)
      .map(({ question, stored, parsed }) => `${question.id} (${stored}; its text says ${parsed ?? 'nothing'})`);
    notes.push(
      `The file's results differ from what its outputs say for ${drawn.length} questions, ${right} of them right only so: ${shown.join(', ')}${drawn.length > 5 ? ', ...' : ''}. An older script drew an option there; the score counts what the outputs say.`,
    );
  }
  if (withPicture === judged.length && judged.length > 0) notes.push('Only the questions with a picture were answered.');
  return notes;
}

export const scienceqa: Benchmark<ScienceQuestion, ScienceJudged> = {
  name: 'scienceqa',
  title: 'ScienceQA, test split: all questions, and those with a picture',
  source: 'Lu et al. 2022, Learn to Explain: Multimodal Reasoning via Thought Chains for Science Question Answering, arXiv 2209.09513',
  headline: { name: 'image_accuracy', best: 100 },
  maxNewTokens: 1024,
  harnesses: [
    {
      name: 'llava',
      about:
        'eval_science_qa.py of LLaVA: the letter alone, or at the beginning before ". ", or in the only "The answer is X."; else wrong',
    },
    {
      name: 'lmms-eval',
      about: 'scienceqa/utils.py of lmms-eval: the letter alone in any case, or a capital before a full stop at the beginning',
    },
  ],
  files: [
    {
      places: [...LLAVA, ...PROBLEMS],
      holds: "4,241 test questions in LLaVA's words (in its eval.zip), or problems.json with pid_splits.json of ScienceQA",
      url: 'https://drive.google.com/file/d/1atZSBBrAX54yYpxtVVW33zFvcnaHeFPy/view?usp=sharing',
      bytes: 1_932_005,
      license: 'CC BY-NC-SA 4.0',
      needed: 'score',
    },
    {
      places: PICTURES,
      holds: 'pictures of the test questions, a folder each',
      url: 'https://github.com/lupantech/ScienceQA/blob/main/tools/download.sh',
      bytes: 130_000_000,
      license: 'CC BY-NC-SA 4.0',
      needed: 'ask',
      count: 2_017,
    },
  ],

  async questions({ files, folder = '.' }: QuestionSources) {
    const found = [firstOf(folder, LLAVA), firstOf(folder, PROBLEMS), firstOf(folder, SPLITS)].filter((path) => path !== undefined);
    const { llava, problems, splits } = sortFiles(files ?? found);
    const read = problems === undefined ? [] : readProblems(problems, splits, folder);
    if (llava === undefined) return read;
    const questions = readLlavaQuestions(llava, folder);
    refuseRepeated(llava, 'questions', questions);
    // the words are LLaVA's; subjects and grades are in problems.json alone
    const groups = new Map(read.map((question) => [question.id, question.groups]));
    return questions.map((question) => ({ ...question, groups: groups.get(question.id) ?? question.groups }));
  },

  async answers(path, questions) {
    if (questions === undefined)
      throw new UserError(`${path}: ScienceQA's right answers are in its question files; give ${FORM} with --questions or --data`);
    const file = fileIn(path, ['.jsonl', '.json'], ANSWERS);
    const form = { id: 'question_id', answer: 'text', about: 'the result JSON of its scorer (results and outputs)' };
    const { lines, stored } = readResults(file) ?? { lines: await readAnswers(file, form), stored: new Map<string, string>() };
    const ids = new Set(lines.map(({ id }) => id));
    // many systems answer the questions with a picture alone
    const pictures = questions.filter((question) => question.groups.picture === 'with');
    const asked = pictures.length === ids.size && pictures.every(({ id }) => ids.has(id)) ? pictures : questions;
    const answered: ScienceAnswered[] = joinById(file, asked, lines);
    return answered.map((one) => ({ ...one, stored: stored.get(one.question.id) }));
  },

  judge: (answered: readonly ScienceAnswered[], { harness }) =>
    answered.map((one) => {
      const parsed = harness === 'lmms-eval' ? letterOfLmmsEval(one.answer) : parseLetter(one.answer, LETTERS);
      const credit = parsed === one.question.references[0] ? 1 : 0;
      return { ...one, parsed: parsed === FAILED ? undefined : parsed, credit };
    }),

  summarize,
};

function letterOfLmmsEval(answer: string): string {
  const words = answer.trim();
  if (/^[A-Za-z]$/.test(words)) return words.toUpperCase();
  return /^[A-Z]\./.test(words) ? words[0] : FAILED;
}
