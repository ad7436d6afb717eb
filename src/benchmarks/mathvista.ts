// MathVista (Lu et al. 2023, arXiv 2310.02255), testmini: 1,000 problems of mathematics in pictures. What a
// free answer says is extracted by rules or by a model, then scored as calculate_score.py of
// lupantech/MathVista stands today.

import { mapConcurrently } from '../concurrent.ts';
import { UserError } from '../errors.ts';
import { joinById } from './answers.ts';
import type { Answered, Benchmark, BenchmarkQuestion, GroupScores, Judged, JudgingOptions, Summary } from './benchmark.ts';
import type { JudgeReport } from './judge.ts';
import { type AnswerForm, extractByRules, normalizeExtraction, type Reading } from './mathvista-answers.ts';
import { type ExtractionPrompt, extractionPrompt, extractionRequest } from './mathvista-extraction.ts';
import {
  GROUPINGS,
  PROMPT_PLACES,
  type Problem,
  problemFileIn,
  QUESTION_PLACES,
  readAnswerFile,
  readProblems,
  type Stored,
} from './mathvista-files.ts';
import { byGroup } from './means.ts';
import { pythonStrip } from './python-text.ts';

const QUESTIONS = 1000;
/** A judge's endpoint limits its requests itself. */
const JUDGED_AT_A_TIME = 64;
/** Longest extraction in tokens: models/gpt.py. */
const EXTRACTION_TOKENS = 1024;
/** Problems that a note names. */
const SHOWN = 10;

interface MathVistaQuestion extends BenchmarkQuestion {
  form: AnswerForm;
  query: string;
  answer: string | undefined;
}

interface MathVistaAnswered extends Answered<MathVistaQuestion> {
  stored?: Stored;
}

/** Who extracted: the file has it, rules, or a model. */
type Extractor = 'file' | 'rules' | 'model';

interface MathVistaJudged extends Judged<MathVistaQuestion> {
  /** undefined where nothing could be extracted. */
  extraction: unknown;
  extractor: Extractor;
  reading: Reading | 'unread';
  /** What is compared with the right answer. */
  prediction: string | undefined;
  stored?: Stored;
  by: JudgeReport;
}

function questionOf({ id, questionType, answerType, choices, precision, answer, query, groups, picture }: Problem): MathVistaQuestion {
  return {
    id,
    prompt: `<image>\n${query}`,
    pictures: [picture],
    references: answer === undefined ? [] : [answer],
    cluster: picture.name || id,
    groups,
    options: questionType === 'multi_choice' ? choices : undefined,
    form: { questionType, answerType, choices, precision },
    query,
    answer,
  };
}

const isEmpty = (extraction: unknown) => extraction === null || (typeof extraction === 'string' && pythonStrip(extraction) === '');

const BY_FILE: JudgeReport = { judge: 'extractions of the file', rule: 'as they are' };
const BY_RULES: JudgeReport = {
  judge: 'rules',
  rule: 'an option\'s text, a number alone, The answer is "...", or the only letter that is named (extract_answer.py --quick_extract, and letters)',
};

interface Extracted {
  extraction: unknown;
  extractor: Extractor;
  by: JudgeReport;
}

/** Reads an answer: what the file says of it, else rules, else the judge's model. */
async function extract(
  { question, answer, stored }: MathVistaAnswered,
  { judge }: Pick<JudgingOptions, 'judge'>,
  prompt: ExtractionPrompt | undefined,
): Promise<Extracted> {
  const found = stored?.extraction;
  const ask = judge?.reply;
  // the official script, too, extracts again where it had extracted nothing
  if (found !== undefined && !(ask && isEmpty(found))) return { extraction: found, extractor: 'file', by: BY_FILE };
  if (answer === '') return { extraction: '', extractor: 'rules', by: BY_RULES };
  const read = extractByRules(answer, question.form, ask === undefined);
  if (read !== undefined || ask === undefined || prompt === undefined) return { extraction: read, extractor: 'rules', by: BY_RULES };
  const { text } = await ask(extractionRequest(prompt, question.query, answer), { maxTokens: EXTRACTION_TOKENS });
  const by = { judge: judge!.name, prompt: prompt.name, rule: "an option's text or a number alone as it is, else what the judge replies" };
  return { extraction: pythonStrip(text), extractor: 'model', by };
}

function judged(one: MathVistaAnswered, { extraction, extractor, by }: Extracted): MathVistaJudged {
  const { question, answer, stored } = one;
  const { text, reading } =
    extraction === undefined ? { text: undefined, reading: 'unread' as const } : normalizeExtraction(extraction, question.form);
  const parsed = reading === 'empty' ? undefined : text;
  const credit = text !== undefined && text === question.answer ? 1 : 0;
  return { question, answer, stored, extraction, extractor, by, reading, prediction: text, parsed, credit };
}

const ratio = (part: number, whole: number) => (whole === 0 ? 0 : part / whole);
const correctOf = (of: readonly MathVistaJudged[]) => of.reduce((sum, { credit }) => sum + credit, 0);

function countsOf(of: readonly MathVistaJudged[]): GroupScores {
  const correct = correctOf(of);
  return { n: of.length, correct, accuracy: ratio(correct, of.length) };
}

/** Scores of the groups that `groupsOf` names, the best first, as the official tables have them. */
function countsBy(all: readonly MathVistaJudged[], groupsOf: (one: MathVistaJudged) => string | readonly string[] | undefined) {
  const counts = [...byGroup(all, groupsOf)].map(([group, found]) => [group, countsOf(found)] as const);
  return Object.fromEntries(counts.sort(([, a], [, b]) => b.accuracy - a.accuracy));
}

function groupsOf(all: readonly MathVistaJudged[]): Summary['groups'] {
  const official = GROUPINGS.map((name) => [name, countsBy(all, ({ question }) => question.groups[name])] as const);
  const own = [
    ['extracted_by', countsBy(all, ({ extractor }) => extractor)],
    ['read_as', countsBy(all, ({ reading }) => reading)],
  ] as const;
  return Object.fromEntries([...official.filter(([, groups]) => Object.keys(groups).length > 0), ...own]);
}

/** Verdicts that the file holds beside today's; undefined where it lacks some. */
function storedScores(all: readonly MathVistaJudged[]): Record<string, number> | undefined {
  if (all.length === 0 || all.some(({ stored }) => stored?.trueFalse === undefined)) return undefined;
  const correct = all.filter(({ stored }) => stored?.trueFalse).length;
  return {
    stored_accuracy: ratio(correct, all.length),
    stored_correct: correct,
    changed_predictions: all.filter(isOtherPrediction).length,
    changed_verdicts: all.filter(isOtherVerdict).length,
  };
}

const isOtherPrediction = ({ stored, prediction }: MathVistaJudged) =>
  stored?.prediction !== undefined && (stored.prediction ?? undefined) !== prediction;
const isOtherVerdict = ({ stored, credit }: MathVistaJudged) => stored?.trueFalse !== undefined && stored.trueFalse !== (credit === 1);

const named = (of: readonly MathVistaJudged[]) =>
  `${of
    .slice(0, SHOWN)
    .map(({ question }) => question.id)
    .join(', ')}${of.length > SHOWN ? ', ...' : ''}`;

function notesOf(all: readonly MathVistaJudged[]): string[] {
  const notes: string[] = [];
  if (all.length !== QUESTIONS) notes.push(`testmini has ${QUESTIONS} problems; these are ${all.length}.`);
  const [predictions, verdicts] = [all.filter(isOtherPrediction), all.filter(isOtherVerdict)];
  if (predictions.length > 0)
    notes.push(
      `The file holds other predictions than today's scorer makes for ${predictions.length} problems (${named(predictions)}), and other verdicts for ${verdicts.length}${verdicts.length > 0 ? ` (${named(verdicts)})` : ''}.`,
    );
  const empty = all.filter(({ reading }) => reading === 'empty');
  if (empty.some(({ question }) => question.form.questionType === 'multi_choice'))
    notes.push(
      `Nothing was extracted from ${empty.length} answers; where there are options, the official scorer takes the shortest one for said.`,
    );
  const unread = all.filter(({ reading }) => reading === 'unread');
  if (unread.length > 0)
    notes.push(`Rules read nothing out of ${unread.length} answers, which count as wrong: --judge names a model that may.`);
  return notes;
}

/** What accuracy would be if all answers out of which nothing was read had been wrong, or right. */
function boundsOf(all: readonly MathVistaJudged[]): Summary['bounds'] {
  const unparsed = all.filter(({ parsed }) => parsed === undefined);
  if (unparsed.length === 0) return undefined;
  const surely = correctOf(all) - correctOf(unparsed);
  return { low: ratio(surely, all.length), high: ratio(surely + unparsed.length, all.length) };
}

/** All who extracted, in one report. */
function reportOf(all: readonly MathVistaJudged[]): JudgeReport | undefined {
  const reports = [...new Map(all.map(({ by }) => [by.judge, by])).values()];
  if (reports.length === 0) return undefined;
  const join = (texts: readonly (string | undefined)[]) => texts.filter((text) => text !== undefined).join('; ');
  const prompt = join(reports.map(({ prompt }) => prompt));
  return {
    judge: reports.map(({ judge }) => judge).join(', then '),
    ...(prompt === '' ? {} : { prompt }),
    rule: join(reports.map(({ rule }) => rule)),
  };
}

/** Right answers of an output beside those of the question files. UserError where they differ. */
function checkAnswer(path: string, question: MathVistaQuestion, problem: Problem | undefined): void {
  if (problem?.answer === undefined || question.answer === undefined || problem.answer === question.answer) return;
  throw new UserError(
    `${path}: the right answer to problem ${question.id} is ${JSON.stringify(problem.answer)} here (${problem.where}) and ${JSON.stringify(question.answer)} in the questions: are they of another date?`,
  );
}

export const mathVista: Benchmark<MathVistaQuestion, MathVistaJudged> = {
  name: 'mathvista',
  title: 'MathVista testmini: mathematics in pictures',
  source: 'Lu et al. 2023, MathVista: Evaluating Mathematical Reasoning of Foundation Models in Visual Contexts, arXiv 2310.02255',
  headline: { name: 'accuracy', best: 1 },
  // models/gpt.py
  maxNewTokens: 1024,
  judged: 'perhaps',
  harnesses: [
    {
      name: 'mathvista',
      about:
        'calculate_score.py as it stands: options by letter or fewest edits, integers cut off, floats rounded; extraction by rules or --judge',
    },
  ],
  files: [
    {
      places: [...QUESTION_PLACES],
      holds: 'the problems of testmini (also as Parquet with pictures, AI4Math/MathVista on Hugging Face, 142 MB)',
      url: 'https://github.com/lupantech/MathVista/blob/main/data/testmini.json',
      bytes: 872_000,
      license: 'CC BY-SA 4.0',
      needed: 'score',
    },
    {
      places: ['images', QUESTION_PLACES[1], QUESTION_PLACES[2]],
      holds: 'the pictures, those of testmini being among them',
      url: 'https://huggingface.co/datasets/AI4Math/MathVista/resolve/main/images.zip',
      bytes: 866_000_000,
      license: 'CC BY-SA 4.0; the pictures are of their 31 origins',
      needed: 'ask',
      count: QUESTIONS,
    },
    {
      places: [...PROMPT_PLACES],
      holds: 'the examples that a judge gets; without, it gets others',
      url: 'https://github.com/lupantech/MathVista/blob/main/evaluation/prompts/ext_ans.py',
      bytes: 2_000,
      license: 'CC BY-SA 4.0',
      needed: 'judge',
    },
  ],

  async questions({ files, folder = '.' }) {
    const found = files === undefined ? problemFileIn(folder) : undefined;
    const paths = files ?? (found === undefined ? [] : [found]);
    const problems = await Promise.all(paths.map((path) => readProblems(path, folder)));
    return problems.flat().map(questionOf);
  },

  async answers(given, questions): Promise<MathVistaAnswered[]> {
    const { path, lines } = await readAnswerFile(given);
    const problems = lines.flatMap(({ problem }) => problem ?? []);
    if (questions === undefined && problems.length < lines.length)
      throw new UserError(`${path}: does not hold the problems themselves; give them with --questions or --data`);
    const joined = joinById(path, questions ?? problems.map(questionOf), lines);
    const byId = new Map(lines.map((line) => [line.id, line]));
    return joined.map((one) => {
      const { stored, problem } = byId.get(one.question.id)!;
      checkAnswer(path, one.question, problem);
      if (one.question.answer === undefined && problem?.answer === undefined)
        throw new UserError(`${path}: the right answer to problem ${one.question.id} is not known; testmini.json has those of testmini`);
      return { ...one, question: { ...one.question, answer: one.question.answer ?? problem?.answer }, stored };
    });
  },

  async judge(answered: readonly MathVistaAnswered[], { judge, folder }) {
    const prompt = judge?.reply ? extractionPrompt(folder) : undefined;
    return mapConcurrently(answered, JUDGED_AT_A_TIME, async (one) => judged(one, await extract(one, { judge }, prompt)));
  },

  summarize(all) {
    const correct = correctOf(all);
    return {
      scores: { accuracy: ratio(correct, all.length), correct, total: all.length, ...storedScores(all) },
      groups: groupsOf(all),
      bounds: boundsOf(all),
      judge: reportOf(all),
      notes: notesOf(all),
    };
  },
};
