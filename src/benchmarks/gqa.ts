// GQA (Hudson and Manning 2019, arXiv 1902.09506): compositional questions about scenes, with one right
// answer each. Accuracy and its parts follow the official eval.py; GQA-OOD (Kervadec et al. 2021, arXiv
// 2006.05121) scores questions with frequent (head) and rare answers (tail) by the same rules.
//
// llava: scripts/convert_gqa_for_eval.py of haotian-liu/LLaVA, then eval.py.

import { join } from 'node:path';
import { z } from 'zod';
import { UserError } from '../errors.ts';
import { readAnswers } from './answer-files.ts';
import { joinById, refuseRepeated } from './answers.ts';
import type { Answered, Benchmark, BenchmarkQuestion, GroupScores, Judged, QuestionSources, Summary } from './benchmark.ts';
import { firstOf, pictureIn } from './files.ts';
import { JsonFile } from './json-entries.ts';
import { byGroup, mean, percent } from './means.ts';
import { shortAnswer } from './prompts.ts';
import { pythonSplit } from './python-text.ts';

const FORM = 'questions of GQA: an object from question ids to questions with their answer and types';
const QUESTIONS = ['testdev_balanced_questions.json', 'ood_testdev_all.json', 'ood_testdev_head.json', 'ood_testdev_tail.json'];
const CHOICES = ['testdev_balanced_choices.json', 'testdev_choices.json', 'val_choices.json'];
const FOLDERS = ['', 'data', 'data/questions1.2', 'questions1.2', 'data/eval', 'eval'];
const placesOf = (names: readonly string[]) =>
  names.flatMap((name) => FOLDERS.map((folder) => join(folder, name))) as [string, ...string[]];
const PICTURES: [string, ...string[]] = ['data/images', 'images'];

/** Groupings of eval.py, named as it names them. */
const GROUPINGS = ['accuracyPerStructuralType', 'accuracyPerSemanticType', 'accuracyPerSteps', 'accuracyPerLength'] as const;

interface GqaQuestion extends BenchmarkQuestion {
  groups: Partial<Record<(typeof GROUPINGS)[number], string>>;
  gold: string;
  /** Only questions of the balanced set count for accuracy. */
  isBalanced: boolean;
  /** What its answers are about, within which their distribution is compared. */
  globalGroup?: string;
  /** Ids of questions whose answers follow from this one's. */
  entailed: readonly string[];
  /** Answers that make sense for the question, and those that occur with its object. */
  choices?: { valid: ReadonlySet<string>; plausible: ReadonlySet<string> };
}

interface GqaJudged extends Judged<GqaQuestion> {
  /** The answer as it is compared. */
  predicted: string;
}

const questionSchema = z.object({
  question: z.string(),
  answer: z.string('answer is missing: questions of the test and challenge splits are scored by their server'),
  imageId: z.string(),
  isBalanced: z.boolean().default(true),
  types: z.object({ structural: z.string(), semantic: z.string().nullish(), detailed: z.string().nullish() }),
  groups: z.object({ global: z.string().nullish() }).nullish(),
  semantic: z.array(z.object({ operation: z.string(), argument: z.string() })).nullish(),
  entailed: z.array(z.string()).nullish(),
});

/** Operations that only ask, and add no step of reasoning. */
const ASKING = ['exist', 'query: name', 'choose name'];

const stepsOf = (program: readonly { operation: string; argument: string }[]) =>
  program.filter(({ operation, argument }) => !ASKING.some((asking) => `${operation}: ${argument}`.includes(asking))).length;

function readQuestions(path: string, folder: string): GqaQuestion[] {
  const file = new JsonFile(path, FORM);
  if (file.kind !== 'object' || !file.isWhole)
    throw new UserError(`${path}: is not one object; it should be ${FORM} (LLaVA's llava_gqa_testdev_balanced.jsonl has no right answers)`);
  const pictures = firstOf(folder, PICTURES) ?? join(folder, PICTURES[0]);
  const read: GqaQuestion[] = [];
  for (const { key, value, where } of file.entries()) {
    const parsed = questionSchema.safeParse(value);
    if (!parsed.success) throw new UserError(`${path}: ${where}, question ${key}: ${issueOf(parsed.error)}; it should be ${FORM}`);
    read.push(questionOf(key!, parsed.data, pictures));
  }
  return read;
}

const issueOf = (error: z.ZodError) => {
  const [{ path, message }] = error.issues;
  return `${path.join('.')}: ${message}`;
};

function questionOf(id: string, data: z.output<typeof questionSchema>, pictures: string): GqaQuestion {
  const { question, answer, imageId, types, semantic, groups } = data;
  const image = `${imageId}.jpg`;
  return {
    id,
    prompt: `<image>\n${shortAnswer(question)}`,
    pictures: [pictureIn(pictures, image)],
    references: [answer],
    cluster: imageId,
    groups: {
      accuracyPerStructuralType: types.structural,
      ...(types.semantic ? { accuracyPerSemanticType: types.semantic } : {}),
      ...(semantic ? { accuracyPerSteps: String(stepsOf(semantic)) } : {}),
      accuracyPerLength: String(pythonSplit(question).length),
    },
    gold: answer,
    isBalanced: data.isBalanced,
    globalGroup: groups?.global ?? undefined,
    // "Common" questions ask what two things have in common, whatever the choices file says
    choices: types.detailed?.includes('Common') ? { valid: COMMON, plausible: COMMON } : undefined,
    entailed: (data.entailed ?? []).filter((other) => other !== id),
  };
}

const COMMON: ReadonlySet<string> = new Set(['color', 'material', 'shape']);

const choicesSchema = z.object({ valid: z.array(z.string()), plausible: z.array(z.string()) });

/** Adds what a choices file says of the questions. Without one, validity and plausibility are left out. */
function withChoices(questions: readonly GqaQuestion[], path: string | undefined): GqaQuestion[] {
  if (path === undefined) return questions.map((question) => ({ ...question, choices: undefined }));
  const form = 'choices of GQA: an object from question ids to valid and plausible answers';
  const wanted = new Set(questions.map(({ id }) => id));
  const choices = new Map<string, GqaQuestion['choices']>();
  for (const { key, value, where } of new JsonFile(path, form).entries()) {
    if (!wanted.has(key!)) continue;
    const parsed = choicesSchema.safeParse(value);
    if (!parsed.success) throw new UserError(`${path}: ${where}, question ${key}: ${issueOf(parsed.error)}; it should be ${form}`);
    choices.set(key!, { valid: new Set(parsed.data.valid), plausible: new Set(parsed.data.plausible) });
  }
  const missing = questions.find(({ id }) => !choices.has(id));
  if (missing) throw new UserError(`${path}: has no choices for question ${missing.id}; are they of another split?`);
  return questions.map((question) => ({ ...question, choices: question.choices ?? choices.get(question.id) }));
}

/** Characters of Python's string.punctuation, which lmms-eval drops. */
const PUNCTUATION = /[!-/:-@[-`{-~]/g;
const withoutPunctuation = (text: string) => text.toLowerCase().replace(PUNCTUATION, '');

/** An answer as the harness compares it. */
function predictionOf({ answer, submitted }: Answered, harness: string): string {
  if (harness === 'lmms-eval') return withoutPunctuation(answer);
  return harness === 'llava' && !submitted ? answer.replace(/\.+$/, '').toLowerCase() : answer;
}

const accuracyOf = (judged: readonly GqaJudged[]) => percent(judged.map(({ credit }) => credit));

/**
 * How far the answers are from the right ones in their frequencies: chi-square by group of questions,
 * weighted by the group's size, divided by 100. Lower is better.
 */
function distributionOf(judged: readonly GqaJudged[]): number | undefined {
  const groups = new Map<string, { gold: Map<string, number>; predicted: Map<string, number> }>();
  const count = (counts: Map<string, number>, answer: string) => counts.set(answer, (counts.get(answer) ?? 0) + 1);
  for (const { question, predicted } of judged) {
    if (question.globalGroup === undefined) continue;
    const group = groups.get(question.globalGroup) ?? { gold: new Map(), predicted: new Map() };
    groups.set(question.globalGroup, group);
    count(group.gold, question.gold);
    count(group.predicted, predicted);
  }
  let [weighted, overall] = [0, 0];
  for (const { gold, predicted } of groups.values()) {
    let [score, size] = [0, 0];
    for (const [answer, expected] of gold) {
      score += ((predicted.get(answer) ?? 0) - expected) ** 2 / expected;
      size += expected;
    }
    weighted += score * size;
    overall += size;
  }
  return overall === 0 ? undefined : weighted / overall / 100;
}

/**
 * Of questions answered right, how many of those that they entail are right as well. Undefined where
 * questions that are entailed were not asked, as in the balanced set alone.
 */
function consistencyOf(balanced: readonly GqaJudged[], all: readonly GqaJudged[]): number | undefined {
  const byId = new Map(all.map((one) => [one.question.id, one]));
  const starting = balanced.filter(({ credit, question }) => credit === 1 && question.entailed.length > 0);
  if (starting.length === 0 || starting.some(({ question }) => question.entailed.some((id) => !byId.has(id)))) return undefined;
  return percent(starting.map(({ question }) => mean(question.entailed.map((id) => byId.get(id)!.credit))));
}

function groupsOf(judged: readonly GqaJudged[]): Summary['groups'] {
  const groupings = GROUPINGS.map((grouping) => {
    const members = byGroup(judged, ({ question }) => question.groups[grouping]);
    return [grouping, Object.fromEntries([...members].sort(([a], [b]) => collate(a, b)).map(([name, of]) => [name, scoresOfGroup(of)]))];
  });
  return Object.fromEntries(groupings);
}

const collate = (a: string, b: string) => Number(a) - Number(b) || (a < b ? -1 : 1);

const scoresOfGroup = (of: readonly GqaJudged[]): GroupScores => ({
  accuracy: accuracyOf(of),
  n: of.length,
  correct: of.filter(({ credit }) => credit === 1).length,
});

function summarize(judged: readonly GqaJudged[]): Summary {
  const balanced = judged.filter(({ question }) => question.isBalanced);
  const isOpen = ({ question }: GqaJudged) => question.groups.accuracyPerStructuralType === 'query';
  const withOptions = balanced.filter(({ question }) => question.choices !== undefined);
  const measured = {
    accuracy: accuracyOf(balanced),
    binary: accuracyOf(balanced.filter((one) => !isOpen(one))),
    open: accuracyOf(balanced.filter(isOpen)),
    validity: memberships(withOptions, 'valid'),
    plausibility: memberships(withOptions, 'plausible'),
    consistency: consistencyOf(balanced, judged),
    distribution: distributionOf(balanced),
  };
  const scores = Object.fromEntries(Object.entries(measured).filter((entry): entry is [string, number] => entry[1] !== undefined));
  return { scores, groups: groupsOf(balanced), notes: notesOf(judged, balanced, scores) };
}

const memberships = (judged: readonly GqaJudged[], which: 'valid' | 'plausible') =>
  judged.length === 0 ? undefined : percent(judged.map(({ question, predicted }) => Number(question.choices![which].has(predicted))));

function notesOf(judged: readonly GqaJudged[], balanced: readonly GqaJudged[], scores: Record<string, number>): string[] {
  const notes: string[] = [];
  const missing = ['validity', 'plausibility', 'consistency'].filter((name) => !(name in scores));
  if (missing.length > 0)
    notes.push(
      `Not measured: ${missing.join(', ')}. Validity and plausibility need a choices file (${CHOICES[0]}); consistency needs answers to all questions that are entailed, which are not all in the balanced set.`,
    );
  if (balanced.length < judged.length)
    notes.push(`Accuracy is of the ${balanced.length} balanced questions among the ${judged.length}, as eval.py has it.`);
  return notes;
}

export const gqa: Benchmark<GqaQuestion, GqaJudged> = {
  name: 'gqa',
  title: 'GQA: test-dev balanced, GQA-OOD',
  source: 'Hudson and Manning 2019, GQA: A New Dataset for Real-World Visual Reasoning, arXiv 1902.09506; GQA-OOD: arXiv 2006.05121',
  headline: { name: 'accuracy', best: 100 },
  maxNewTokens: 128,
  harnesses: [
    {
      name: 'llava',
      about:
        "convert_gqa_for_eval.py of LLaVA: LLaVA's answers without final full stops, in lower case, then eval.py; predictions as they are",
    },
    { name: 'gqa', about: "GQA's eval.py on every answer as it is: letter by letter" },
    { name: 'lmms-eval', about: 'gqa.yaml of lmms-eval: both sides in lower case and without punctuation' },
  ],
  files: [
    {
      places: placesOf(QUESTIONS),
      holds: '12,578 balanced questions of test-dev (in question1.2.zip), or the head, tail or all of GQA-OOD',
      url: 'https://downloads.cs.stanford.edu/nlp/data/gqa/questions1.2.zip',
      bytes: 1_400_000_000,
      license: 'CC BY 4.0',
      needed: 'score',
    },
    {
      places: PICTURES,
      holds: 'the pictures (148,854; test-dev shows 398)',
      url: 'https://downloads.cs.stanford.edu/nlp/data/gqa/images.zip',
      bytes: 21_800_000_000,
      license: 'CC BY 4.0; those of the pictures on Flickr',
      needed: 'ask',
      count: 398,
    },
  ],

  async questions({ files, folder = '.' }: QuestionSources) {
    const found = firstOf(folder, placesOf(QUESTIONS));
    const given = files ?? (found === undefined ? [] : [found]);
    const isChoices = (path: string) => /choices[^/]*$/.test(path);
    const questions = given.filter((path) => !isChoices(path)).flatMap((path) => readQuestions(path, folder));
    refuseRepeated(given.join(', '), 'questions', questions);
    const choices = given.find(isChoices) ?? (files ? undefined : firstOf(folder, placesOf(CHOICES)));
    return withChoices(questions, choices);
  },

  async answers(path, questions) {
    if (questions === undefined)
      throw new UserError(`${path}: GQA's right answers are in its question files; give one with --questions or --data`);
    const form = { id: 'questionId', answer: 'prediction', about: "GQA's predictions (questionId and prediction)" };
    const lines = await readAnswers(path, form);
    // one file of answers serves all parts of GQA-OOD, and eval.py looks up those that it wants
    const known = new Set(questions.map(({ id }) => id));
    return joinById(
      path,
      questions,
      lines.filter(({ id }) => known.has(id)),
    );
  },

  judge: (answered, { harness }) =>
    answered.map((one) => {
      const { question, answer } = one;
      const predicted = predictionOf(one, harness);
      const gold = harness === 'lmms-eval' ? withoutPunctuation(question.gold) : question.gold;
      return { ...one, predicted, parsed: answer.trim() === '' ? undefined : predicted, credit: predicted === gold ? 1 : 0 };
    }),

  summarize,
};
