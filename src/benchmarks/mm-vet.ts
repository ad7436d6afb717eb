// MM-Vet (Yu et al. 2023, arXiv 2308.02490): 218 questions that take up to six capabilities together,
// answered freely and graded by a language model. Scores are those of mm-vet_evaluator.py of
// yuweihao/MM-Vet.

import { mapConcurrently } from '../concurrent.ts';
import { UserError } from '../errors.ts';
import { joinById } from './answers.ts';
import type { Answered, Benchmark, BenchmarkQuestion, GroupScores, Judged, Summary } from './benchmark.ts';
import type { Judge, JudgeReport } from './judge.ts';
import { byGroup, mean } from './means.ts';
import {
  PARQUET,
  PICTURE_PLACES,
  QUESTION_PLACES,
  type QuestionEntry,
  questionFilesIn,
  readAnswerFile,
  readQuestionFile,
} from './mm-vet-files.ts';
import { GRADING_PROMPT, GRADING_RULE, type Grade, gradeByWords, gradeWith, LEXICAL_RULE } from './mm-vet-grading.ts';

const QUESTIONS = 218;
/** A judge's endpoint limits its requests itself. */
const JUDGED_AT_A_TIME = 64;

interface MmVetQuestion extends BenchmarkQuestion {
  question: string;
  /** Empty where no file told them. */
  capabilities: readonly string[];
}

interface MmVetAnswered extends Answered<MmVetQuestion> {
  /** Those of the file of answers, one for each run. */
  grades?: { scores: number[]; models: string[] };
}

interface MmVetJudged extends Judged<MmVetQuestion> {
  /** One for each run; undefined where the judge gave none, which counts as 0. */
  grades: readonly (number | undefined)[];
  by: JudgeReport;
}

/** A set of capabilities, whatever their order. */
const setName = (capabilities: readonly string[]) => [...new Set(capabilities)].sort().join('_');

function questionOf({ id, question = '', reference, capabilities = [], picture }: QuestionEntry): MmVetQuestion {
  const sets = capabilities.length > 0 ? { integration: setName(capabilities) } : undefined;
  return {
    id,
    question,
    prompt: `<image>\n${question}`,
    pictures: picture ? [picture] : [],
    references: reference === undefined ? [] : [reference],
    cluster: picture?.name ?? id,
    capabilities: [...new Set(capabilities)],
    groups: { capability: capabilities, ...sets },
  };
}

/** What several files say of the same questions. UserError where they are of different ones. */
function mergeFiles(files: readonly { path: string; entries: readonly QuestionEntry[] }[]): QuestionEntry[] {
  const [first, ...others] = files;
  const merged = new Map(first.entries.map((entry) => [entry.id, entry]));
  for (const { path, entries } of others) {
    for (const entry of entries) {
      const known = merged.get(entry.id);
      if (known === undefined) throw new UserError(`${path}: question ${entry.id} (${entry.where}) is not in ${first.path}`);
      const said = Object.fromEntries(Object.entries(entry).filter(([, value]) => value !== undefined));
      merged.set(entry.id, { ...known, ...said });
    }
    if (entries.length < merged.size) {
      const ids = new Set(entries.map(({ id }) => id));
      throw new UserError(`${path}: has no question ${[...merged.keys()].find((id) => !ids.has(id))}, which ${first.path} has`);
    }
  }
  return [...merged.values()];
}

/** `numpy.round`, as the published tables are rounded. */
export function numpyRound(value: number, digits = 1): number {
  const scaled = value * 10 ** digits;
  const down = Math.floor(scaled);
  const rounded = scaled - down === 0.5 ? down + (down % 2 === 0 ? 0 : 1) : Math.round(scaled);
  return rounded / 10 ** digits;
}

const populationStd = (values: readonly number[]) => Math.sqrt(mean(values.map((value) => (value - mean(values)) ** 2)));

/** The score of each run, in percent. */
function runScores(judged: readonly MmVetJudged[]): number[] {
  const runs = judged[0]?.grades.length ?? 0;
  return Array.from({ length: runs }, (_, run) => (judged.reduce((sum, { grades }) => sum + (grades[run] ?? 0), 0) / judged.length) * 100);
}

function groupScores(judged: readonly MmVetJudged[]): GroupScores {
  const score = mean(runScores(judged));
  return { n: judged.length, score, rounded: numpyRound(score) };
}

/** Scores of the groups that `groupsOf` names; the largest group first, as in official tables. */
function scoresBy(judged: readonly MmVetJudged[], groupsOf: (question: MmVetQuestion) => readonly string[]) {
  const largestFirst = [...byGroup(judged, ({ question }) => groupsOf(question))].sort(([, a], [, b]) => b.length - a.length);
  return Object.fromEntries(largestFirst.map(([group, found]) => [group, groupScores(found)]));
}

/** What the total would be if all answers without a grade had been wrong, or right. */
function boundsOf(judged: readonly MmVetJudged[]): Summary['bounds'] {
  if (judged.every(({ parsed }) => parsed !== undefined)) return undefined;
  const totalIf = (score: number) => mean(runScores(judged.map((one) => ({ ...one, grades: one.grades.map((grade) => grade ?? score) }))));
  return { low: totalIf(0), high: totalIf(1) };
}

function notesOf(judged: readonly MmVetJudged[]): string[] {
  const notes: string[] = [];
  if (judged.length !== QUESTIONS) notes.push(`MM-Vet has ${QUESTIONS} questions; these are ${judged.length}.`);
  if (judged.some(({ question }) => question.capabilities.length === 0))
    notes.push('The capabilities of the questions are not known: mm-vet.json, or capabilities.json beside the question file, has them.');
  if (judged.some(({ by }) => by.judge === 'rules')) notes.push('Graded by words alone: these are not the scores that others report.');
  return notes;
}

/** One judge for all; its models where it named several. */
function reportOf(judged: readonly MmVetJudged[]): JudgeReport | undefined {
  const [first] = judged;
  return first && { ...first.by, judge: [...new Set(judged.map(({ by }) => by.judge))].join(', ') };
}

function judgedBy(one: Answered<MmVetQuestion>, grades: readonly (number | undefined)[], by: JudgeReport): MmVetJudged {
  const { question, answer } = one;
  const parsed = grades.includes(undefined) ? undefined : grades.join(', ');
  return { question, answer, grades, by, parsed, credit: mean(grades.map((grade) => grade ?? 0)) };
}

/** Grades that came with the answers. */
function fromFile(one: Answered<MmVetQuestion>, { scores, models }: NonNullable<MmVetAnswered['grades']>): MmVetJudged {
  const named = [...new Set(models)].join(', ');
  return judgedBy(one, scores, { judge: `grades of the file${named && `, by ${named}`}`, rule: 'as they are' });
}

async function grade(one: Answered<MmVetQuestion>, judge: Judge): Promise<MmVetJudged> {
  const { question, answer } = one;
  const [reference] = question.references;
  if (reference === undefined) throw new UserError(`question ${question.id}: its right answer is not known: grading needs mm-vet.json`);
  const pair = { question: question.question, reference, answer };
  const ask = judge.reply;
  const grades: Grade[] = [];
  for (let run = 1; run <= judge.runs; run++) grades.push(ask ? await gradeWith(ask, pair, run) : gradeByWords(pair));
  const models = [...new Set(grades.flatMap(({ model }) => model ?? []))].filter((model) => !judge.name.endsWith(` ${model}`));
  const by = ask
    ? { judge: [judge.name, ...models].join(', '), prompt: GRADING_PROMPT, rule: GRADING_RULE }
    : { judge: judge.name, rule: LEXICAL_RULE };
  return judgedBy(
    one,
    grades.map(({ score }) => score),
    by,
  );
}

export const mmVet: Benchmark<MmVetQuestion, MmVetJudged> = {
  name: 'mm-vet',
  title: 'MM-Vet: integrated capabilities, graded by a language model',
  source: 'Yu et al. 2023, MM-Vet: Evaluating Large Multimodal Models for Integrated Capabilities, arXiv 2308.02490',
  headline: { name: 'total', best: 100 },
  // llava/eval/model_vqa.py
  maxNewTokens: 1024,
  judged: 'always',
  harnesses: [
    {
      name: 'mm-vet',
      about: "mm-vet_evaluator.py: mean grade x 100, also per capability and set of capabilities; the authors' judge is gpt-4-0613",
    },
  ],
  files: [
    {
      places: [...QUESTION_PLACES, 'capabilities.json'],
      holds: `questions with ground truth and capabilities (also as ${PARQUET} of lmms-lab/MMVet on Hugging Face)`,
      url: 'https://github.com/yuweihao/MM-Vet/releases/download/v1/mm-vet.zip',
      bytes: 67_000_000,
      license: 'CC BY-NC 4.0',
      needed: 'score',
    },
    {
      places: [...PICTURE_PLACES],
      holds: 'the pictures, in the same archive',
      url: 'https://github.com/yuweihao/MM-Vet/releases/download/v1/mm-vet.zip',
      bytes: 67_000_000,
      license: 'CC BY-NC 4.0; the pictures are of many origins',
      needed: 'ask',
      count: 200,
    },
  ],

  async questions({ files, folder = '.' }) {
    const paths = files ?? questionFilesIn(folder);
    if (paths.length === 0) return [];
    const read = await Promise.all(paths.map(async (path) => ({ path, entries: await readQuestionFile(path, folder) })));
    return mergeFiles(read).map(questionOf);
  },

  async answers(given, questions): Promise<MmVetAnswered[]> {
    const { path, lines } = await readAnswerFile(given);
    if (questions === undefined && lines.some(({ grades }) => grades === undefined))
      throw new UserError(`${path}: has answers that are not graded yet; give the questions with --questions or --data`);
    const known = questions ?? lines.map(({ id, where }) => questionOf({ id, where }));
    const joined = joinById(path, known, lines);
    const gradesOf = new Map(lines.map(({ id, grades }) => [id, grades]));
    const [{ question: first }] = joined;
    const runs = gradesOf.get(first.id)?.scores.length;
    return joined.map((one) => {
      const grades = gradesOf.get(one.question.id);
      if (grades?.scores.length !== runs)
        throw new UserError(
          `${path}: question ${one.question.id} has ${grades?.scores.length ?? 'no'} grades where ${first.id} has ${runs ?? 'none'}: it was not graded to the end`,
        );
      return { ...one, grades };
    });
  },

  judge(answered: readonly MmVetAnswered[], { judge }) {
    return mapConcurrently(answered, JUDGED_AT_A_TIME, async (one) => {
      if (one.grades) return fromFile(one, one.grades);
      if (judge) return grade(one, judge);
      throw new UserError(
        'answers to MM-Vet are graded by a judge: --judge ADDRESS of an OpenAI-compatible endpoint, local:FOLDER, or rules',
      );
    });
  },

  unasked: (judged) => ({ ...judged, grades: judged.grades.map(() => undefined) }),

  summarize(judged) {
    const runs = runScores(judged);
    const [total, std] = [mean(runs), populationStd(runs)];
    const capability = scoresBy(judged, ({ capabilities }) => capabilities);
    const integration = scoresBy(judged, ({ capabilities }) => (capabilities.length > 0 ? [setName(capabilities)] : []));
    return {
      scores: {
        total,
        std,
        total_rounded: numpyRound(total),
        std_rounded: numpyRound(std),
        ...Object.fromEntries(Object.entries(capability).map(([name, { score }]) => [name, score])),
      },
      groups: {
        run: Object.fromEntries(runs.map((score, i) => [String(i + 1), { n: judged.length, score, rounded: numpyRound(score) }])),
        ...(Object.keys(capability).length > 0 ? { capability, integration } : {}),
      },
      bounds: boundsOf(judged),
      judge: reportOf(judged),
      notes: notesOf(judged),
    };
  },
};
