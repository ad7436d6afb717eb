// VQAv2 (Goyal et al. 2017, arXiv 1612.00837): open questions about pictures of COCO, each with the answers of
// ten annotators. Validation is scored by the official vqaEval.py; the answers to test-dev and test are not
// public, and EvalAI scores an upload.
//
// llava: scripts/convert_vqav2_for_submission.py of haotian-liu/LLaVA, then the official scorer.

import { basename, join } from 'node:path';
import { UserError } from '../errors.ts';
import { readAnswers } from './answer-files.ts';
import { joinById } from './answers.ts';
import type { Answered, Benchmark, BenchmarkQuestion, Harness, Judged, QuestionSources } from './benchmark.ts';
import { firstOf, pictureFile } from './files.ts';
import { byGroup, percent } from './means.ts';
import { shortAnswer } from './prompts.ts';
import { evalAiAnswer, lmmsEvalAnswer } from './vqa-answers.ts';
import { isJsonLines, readLlavaQuestions, readVqaQuestions, type VqaEntry } from './vqa-files.ts';
import { agreement, vqaForms } from './vqa-scorer.ts';

const FORM = "questions or annotations of VQA (an object with 'questions' or 'annotations'), or LLaVA's question file";
const SPLITS = ['val2014', 'test-dev2015', 'test2015'] as const;
type Split = (typeof SPLITS)[number];

const questionPlaces = (split: Split): [string, ...string[]] => [
  `v2_OpenEnded_mscoco_${split}_questions.json`,
  `Questions/v2_OpenEnded_mscoco_${split}_questions.json`,
];
const ANNOTATIONS: [string, ...string[]] = ['v2_mscoco_val2014_annotations.json', 'Annotations/v2_mscoco_val2014_annotations.json'];
const picturePlaces = (subset: string): [string, ...string[]] => [subset, `Images/mscoco/${subset}`, `../coco/${subset}`];

interface VqaQuestion extends BenchmarkQuestion {
  groups: { per_question_type?: string; per_answer_type?: string };
}

/** `COCO_test2015_000000262144.jpg`: the files of a split are told by the name of its question file. */
function pictureOf({ image }: VqaEntry, split: Split, folder: string) {
  const subset = split === 'val2014' ? split : 'test2015';
  const name = image.includes('.') ? image : `COCO_${subset}_${image.padStart(12, '0')}.jpg`;
  return pictureFile(join(firstOf(folder, picturePlaces(subset)) ?? join(folder, subset), name), name);
}

const splitOf = (paths: readonly string[]): Split =>
  SPLITS.find((split) => paths.some((path) => basename(path).includes(split))) ?? 'val2014';

function questionOf(entry: VqaEntry, split: Split, folder: string): VqaQuestion {
  const { annotation, question = '' } = entry;
  return {
    id: entry.id,
    prompt: `<image>\n${shortAnswer(question)}`,
    pictures: [pictureOf(entry, split, folder)],
    references: annotation?.answers ?? [],
    cluster: entry.image,
    groups: { per_question_type: annotation?.questionType, per_answer_type: annotation?.answerType },
  };
}

/** LLaVA's question files hold whole prompts, of which the question is the part before what is asked for. */
function readLlavaFile(path: string, entries: Map<string, VqaEntry>): void {
  for (const { id, image, text, where } of readLlavaQuestions(path)) {
    if (entries.get(id)?.question !== undefined) throw new UserError(`${path}: question ${id} comes twice (${where}); each must come once`);
    entries.set(id, { ...entries.get(id), id, image, question: text.replace(shortAnswer(''), '') });
  }
}

/** The credit of an answer, and what it was read as. */
export function judgeByAgreement(
  { question, answer, submitted }: Answered,
  harness: string,
): { credit: number; parsed: string | undefined } {
  const given = harness === 'llava' && !submitted ? evalAiAnswer(answer) : answer;
  const forms =
    harness === 'lmms-eval'
      ? { answer: lmmsEvalAnswer(answer), references: question.references.map(lmmsEvalAnswer) }
      : vqaForms(given, question.references);
  return { credit: agreement(forms.answer, forms.references), parsed: answer.trim() === '' ? undefined : forms.answer };
}

/** Mean credit in percent by group of a grouping, in alphabetical order. */
export function accuracyBy<Q extends BenchmarkQuestion>(judged: readonly Judged<Q>[], grouping: keyof Q['groups'] & string) {
  const groups = [...byGroup(judged, ({ question }) => question.groups[grouping] as string | undefined)];
  return Object.fromEntries(
    groups
      .sort(([a], [b]) => (a < b ? -1 : 1))
      .map(([group, of]) => [group, { accuracy: percent(of.map(({ credit }) => credit)), n: of.length }]),
  );
}

/** UserError where there is nothing to compare answers with. */
export function refuseUnannotated(title: string, answered: readonly Answered[]): void {
  if (answered.every(({ question }) => question.references.length > 0)) return;
  throw new UserError(
    `${title}: these questions have no annotations, as those of the test splits: their server scores an upload (llava-gemma score --upload FILE writes it)`,
  );
}

/** Harnesses that VQAv2 and VizWiz have in common. */
export const vqaHarnesses: readonly [Harness, Harness] = [
  {
    name: 'llava',
    about: "LLaVA's answers through the EvalAI processor, as LLaVA hands them in, and results as they are; then the official vqaEval.py",
  },
  { name: 'vqa', about: 'the official vqaEval.py on every answer as it is' },
];

const download = (name: string) => `https://s3.amazonaws.com/cvmlp/vqa/mscoco/vqa/${name}.zip`;
const LICENSE = 'CC BY 4.0';

export const vqav2: Benchmark<VqaQuestion> = {
  name: 'vqav2',
  title: 'VQAv2: validation scored here, test-dev and test by upload',
  source: 'Goyal et al. 2017, Making the V in VQA Matter, arXiv 1612.00837',
  headline: { name: 'overall', best: 100 },
  maxNewTokens: 128,
  harnesses: [
    ...vqaHarnesses,
    { name: 'lmms-eval', about: 'vqav2/utils.py of lmms-eval: both sides are processed also where all ten annotators agree' },
  ],
  files: [
    {
      places: questionPlaces('val2014'),
      holds: '214,354 questions of the validation split',
      url: download('v2_Questions_Val_mscoco'),
      bytes: 3_400_000,
      license: LICENSE,
      needed: 'score',
    },
    {
      places: ANNOTATIONS,
      holds: 'the ten answers to each',
      url: download('v2_Annotations_Val_mscoco'),
      bytes: 10_500_000,
      license: LICENSE,
      needed: 'score',
    },
    {
      places: picturePlaces('val2014'),
      holds: 'pictures of COCO 2014, validation',
      url: 'http://images.cocodataset.org/zips/val2014.zip',
      bytes: 6_645_013_297,
      license: `those of the pictures on Flickr; annotations ${LICENSE}`,
      needed: 'ask',
      count: 40_504,
    },
  ],

  async questions({ files, folder = '.' }: QuestionSources) {
    const paths = files ?? filesIn(folder);
    const split = splitOf(paths);
    const entries = readVqaQuestions(paths, FORM, (file, into) => {
      if (!isJsonLines(file)) throw new UserError(`${file.path}: is not ${FORM}`);
      readLlavaFile(file.path, into);
    });
    return entries.map((entry) => questionOf(entry, split, folder));
  },

  async answers(path, questions) {
    if (questions === undefined)
      throw new UserError(`${path}: VQA's answers are in its annotations; give them with --questions or --data, besides the questions`);
    return joinById(path, questions, await readAnswers(path, RESULTS));
  },

  judge(answered, { harness }) {
    refuseUnannotated(this.title, answered);
    return answered.map((one) => ({ ...one, ...judgeByAgreement(one, harness) }));
  },

  summarize: (judged) => ({
    scores: { overall: percent(judged.map(({ credit }) => credit)) },
    groups: { per_answer_type: accuracyBy(judged, 'per_answer_type'), per_question_type: accuracyBy(judged, 'per_question_type') },
  }),

  upload: {
    server: 'the VQA challenge on EvalAI, which wants test-dev and the rest of test in one file',
    write: (answered, harness) => uploadOf(answered, harness, ({ id }) => ({ question_id: Number(id) })),
  },
};

const RESULTS = { id: 'question_id', answer: 'answer', about: 'results of VQA (an array of question_id and answer)' };

/** Records with the fields that `naming` gives and the answer, as the harness hands it in. */
export function uploadOf<Q extends BenchmarkQuestion>(
  answered: readonly Answered<Q>[],
  harness: string,
  naming: (question: Q) => object,
): string {
  const records = answered.map(({ question, answer, submitted }) => ({
    ...naming(question),
    answer: submitted || harness === 'vqa' ? answer : evalAiAnswer(answer),
  }));
  return JSON.stringify(records);
}

/** Validation where it can be scored; otherwise a split that can be asked. */
function filesIn(folder: string): string[] {
  const annotations = firstOf(folder, ANNOTATIONS);
  const questions = SPLITS.map((split) => firstOf(folder, questionPlaces(split)));
  const [validation, ...tests] = questions;
  if (annotations !== undefined) return validation === undefined ? [annotations] : [validation, annotations];
  const test = tests.find((path) => path !== undefined) ?? validation;
  return test === undefined ? [] : [test];
}
