// POPE (Li et al. 2023, arXiv 2305.10355): is an object in the picture? Half of the answers are yes; the
// objects of the others are chosen at random, for being frequent (popular), or for appearing together with
// what is there (adversarial).
//
// llava: llava/eval/eval_pope.py of haotian-liu/LLaVA, whose F1 is the mean of the three. The paper's models
// were scored on the random file of August 2023, which has 2,910 questions (RUCAIBox/POPE at e3e3926), and
// not on the 3,000 of today.

import { basename, join } from 'node:path';
import { z } from 'zod';
import { UserError } from '../errors.ts';
import { parseYesNo } from '../evaluate/scoring.ts';
import { type AnswerLine, joinById, readLlavaAnswers, refuseRepeated } from './answers.ts';
import type { Benchmark, BenchmarkQuestion, GroupScores, Judged, QuestionSources } from './benchmark.ts';
import { firstOf, pictureFile, readJsonLines } from './files.ts';
import { mean } from './means.ts';
import { shortAnswer } from './prompts.ts';

/** In the order of LLaVA's llava_pope_test.jsonl, which numbers a category's questions from a base on. */
const CATEGORIES = { adversarial: 0, random: 10_000_000, popular: 20_000_000 } as const;
type Category = keyof typeof CATEGORIES;
/** By base. */
const names = Object.keys(CATEGORIES) as Category[];

const ADVICE =
  "are they to another question file? LLaVA's answers are to the 2,910 random questions of commit e3e3926, not to the 3,000 of today";

const PICTURES: [string, ...string[]] = ['val2014', '../coco/val2014'];

interface PopeQuestion extends BenchmarkQuestion {
  groups: { category: Category };
}

const questionLine = z.object({
  question_id: z.number().int(),
  image: z.string().min(1),
  text: z.string().min(1),
  label: z.enum(['yes', 'no'], 'label: must be yes or no'),
});

/** The category that a question file's name tells, as all published ones do. */
function categoryOf(path: string): Category {
  const category = names.find((name) => basename(path).includes(name));
  if (category === undefined)
    throw new UserError(`${path}: its name does not say which of POPE's files it is; it should have ${names.join(', ')} in it`);
  return category;
}

const places = (category: Category): [string, ...string[]] => {
  const file = `coco_pope_${category}.json`;
  const pinned = category === 'random' ? ['coco/coco_pope_random_2910.json', 'coco_pope_random_2910.json'] : [];
  return [`coco/${file}`, ...pinned, file];
};

function readQuestions(path: string, folder: string): PopeQuestion[] {
  const pictures = firstOf(folder, PICTURES) ?? join(folder, PICTURES[0]);
  const category = categoryOf(path);
  const lines = readJsonLines(path, questionLine, "POPE's questions: question_id, image, text and label in each line");
  const questions = lines.map(({ value: { question_id, image, text, label }, where }) => ({
    id: String(CATEGORIES[category] + question_id),
    prompt: `<image>\n${shortAnswer(text)}`,
    pictures: [pictureFile(join(pictures, image), image)],
    references: [label],
    cluster: image,
    groups: { category },
    options: ['yes', 'no'],
    where,
  }));
  refuseRepeated(path, 'questions', questions);
  return questions;
}

const categoryOfId = (id: string) => names.findLast((name) => Number(id) > CATEGORIES[name] || name === 'adversarial');

/**
 * Answers of the categories whose questions were given: LLaVA answers all three in one file. Where all
 * answers are numbered as one question file alone is, that file's are meant.
 */
function ofTheirCategories(lines: readonly AnswerLine[], questions: readonly PopeQuestion[]): AnswerLine[] {
  const categories = new Set<string | undefined>(questions.map(({ groups }) => groups.category));
  const [only] = categories.size === 1 ? [questions[0].groups.category] : [];
  if (only !== undefined && lines.every(({ id }) => categoryOfId(id) === 'adversarial'))
    return lines.map((line) => ({ ...line, id: String(CATEGORIES[only] + Number(line.id)) }));
  return lines.filter(({ id }) => categories.has(categoryOfId(id)));
}

type YesNo = 'yes' | 'no';

interface PopeJudged extends Judged<PopeQuestion> {
  /** What the rule takes as said; undefined where it is neither. */
  said: YesNo | undefined;
}

const ratio = (part: number, whole: number) => (whole === 0 ? 0 : part / whole);

/** POPE's counts and ratios, `yes` being the positive class. A ratio without anything to count is 0. */
function countsOf(judged: readonly PopeJudged[]): GroupScores {
  const count = (label: YesNo, what: YesNo) =>
    judged.filter(({ question, said }) => question.references[0] === label && said === what).length;
  const [TP, FP, TN, FN, n] = [count('yes', 'yes'), count('no', 'yes'), count('no', 'no'), count('yes', 'no'), judged.length];
  const [precision, recall] = [ratio(TP, TP + FP), ratio(TP, TP + FN)];
  return {
    n,
    TP,
    FP,
    TN,
    FN,
    accuracy: ratio(TP + TN, n),
    precision,
    recall,
    f1: ratio(2 * precision * recall, precision + recall),
    yes_ratio: ratio(TP + FP, n),
  };
}

/** The headline if every answer that could not be read had been right, or wrong. */
function boundsOf(judged: readonly PopeJudged[], harness: string) {
  if (judged.every(({ parsed }) => parsed !== undefined)) return undefined;
  const f1If = (right: boolean) =>
    scoresOf(
      judged.map((one) => {
        const label = one.question.references[0] as YesNo;
        return one.parsed === undefined ? { ...one, said: right ? label : label === 'yes' ? 'no' : 'yes' } : one;
      }),
      harness,
    ).f1;
  return { low: f1If(false), high: f1If(true) };
}

function byCategory(judged: readonly PopeJudged[]): Record<string, GroupScores> {
  const members = names.map((name) => [name, judged.filter(({ question }) => question.groups.category === name)] as const);
  return Object.fromEntries(members.filter(([, of]) => of.length > 0).map(([name, of]) => [name, countsOf(of)]));
}

function scoresOf(judged: readonly PopeJudged[], harness: string): Record<string, number> {
  const parts = harness === 'llava' ? Object.values(byCategory(judged)) : [countsOf(judged)];
  return Object.fromEntries(HEADLINES.map((name) => [name, mean(parts.map((part) => part[name]))]));
}

const HEADLINES = ['f1', 'accuracy', 'precision', 'recall', 'yes_ratio'];

export const pope: Benchmark<PopeQuestion, PopeJudged> = {
  name: 'pope',
  title: 'POPE on COCO: random, popular, adversarial',
  source: 'Li et al. 2023, Evaluating Object Hallucination in Large Vision-Language Models, arXiv 2305.10355',
  headline: { name: 'f1', best: 1 },
  maxNewTokens: 128,
  harnesses: [
    {
      name: 'llava',
      about: 'eval_pope.py of LLaVA: no, not or No among the words of the first sentence is no, all else yes; mean F1 of the three',
    },
    { name: 'lmms-eval', about: 'pope/utils.py of lmms-eval: the whole answer in lower case must be yes or no; all questions pooled' },
  ],
  files: [
    ...names.map((category) => ({
      places: places(category),
      holds: `the ${category} questions${category === 'random' ? ' (LLaVA scores the 2,910 of commit e3e3926)' : ''}`,
      url: `https://github.com/RUCAIBox/POPE/blob/${category === 'random' ? 'e3e3926' : 'main'}/output/coco/coco_pope_${category}.json`,
      bytes: 370_000,
      license: 'MIT',
      needed: 'score' as const,
    })),
    {
      places: PICTURES,
      holds: 'pictures of COCO 2014, validation',
      url: 'http://images.cocodataset.org/zips/val2014.zip',
      bytes: 6_645_013_297,
      license: 'those of the pictures on Flickr; annotations CC BY 4.0',
      needed: 'ask',
      count: 40_504,
    },
  ],

  async questions({ files, folder = '.' }: QuestionSources) {
    const found = files ?? names.map((category) => firstOf(folder, places(category))).filter((path) => path !== undefined);
    const categories = found.map(categoryOf);
    const twice = categories.find((category, i) => categories.indexOf(category) !== i);
    if (twice !== undefined) throw new UserError(`two files of POPE's ${twice} questions were given; one is enough`);
    return found.flatMap((path) => readQuestions(path, folder));
  },

  async answers(path, questions) {
    if (questions === undefined)
      throw new UserError(`${path}: POPE's labels are in its question files; give them with --questions or --data`);
    return joinById(path, questions, ofTheirCategories(await readLlavaAnswers(path), questions), ADVICE);
  },

  judge: (answered, { harness }) =>
    answered.map(({ question, answer }) => {
      const parsed = harness === 'llava' ? saidPlainly(answer) : nothingElse(answer);
      const said = harness === 'llava' ? parseYesNo(answer) : parsed;
      return { question, answer, parsed, said, credit: said === question.references[0] ? 1 : 0 };
    }),

  unasked: (judged) => ({ ...judged, said: undefined }),

  summarize: (judged, harness) => ({
    scores: scoresOf(judged, harness),
    groups: { category: byCategory(judged) },
    bounds: boundsOf(judged, harness),
  }),
};

/** yes or no if the first sentence says so: LLaVA's rule takes for yes whatever has no no in it. */
function saidPlainly(answer: string): YesNo | undefined {
  const says = parseYesNo(answer);
  return says === 'no' || /\byes\b/i.test(answer.split('.')[0]) ? says : undefined;
}

/** yes or no if the answer is nothing else. */
function nothingElse(answer: string): YesNo | undefined {
  const text = answer.trim().toLowerCase();
  return text === 'yes' || text === 'no' ? text : undefined;
}
