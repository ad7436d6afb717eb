// VQAv2 (Goyal et al. 2017, arXiv 1612.00837): open questions about pictures of COCO, each with the
// answers of ten annotators. Validation is scored by the official vqaEval.py; the answers to test-dev and
// test are not public, and EvalAI scores an upload.
//
// llava: scripts/convert_vqav2_for_submission.py of haotian-liu/LLaVA, then the official scorer.

import { basename, join } from 'node:path';
import { UserError } from '../errors.ts';
import { readAnswers } from './answer-files.ts';
import { joinById } from './answers.ts';
import type { Benchmark, BenchmarkQuestion, QuestionSources } from './benchmark.ts';
import { firstOf, pictureIn } from './files.ts';
import { percent } from './means.ts';
import { shortAnswer } from './prompts.ts';
import { isJsonLines, readLlavaQuestions, readVqaQuestions, type VqaEntry } from './vqa-files.ts';
import { accuracyBy, formsOf, judgeByAgreement, refuseUnannotated, uploadRecords, vqaHarnesses } from './vqa-scorer.ts';

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

/** The pictures of a split. */
const subsetOf = (split: Split) => (split === 'val2014' ? split : 'test2015');

const splitOf = (paths: readonly string[]): Split =>
  SPLITS.find((split) => paths.some((path) => basename(path).includes(split))) ?? 'val2014';

function questionOf({ id, image, question = '', annotation }: VqaEntry, subset: string, folder: string): VqaQuestion {
  const name = image.includes('.') ? image : `COCO_${subset}_${image.padStart(12, '0')}.jpg`;
  return {
    id,
    prompt: `<image>\n${shortAnswer(question)}`,
    pictures: [pictureIn(folder, name)],
    references: annotation?.answers ?? [],
    cluster: image,
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

const download = (name: string) => `https://s3.amazonaws.com/cvmlp/vqa/mscoco/vqa/${name}.zip`;
const LICENSE = 'CC BY 4.0';

export const vqav2: Benchmark<VqaQuestion> = {
  name: 'vqav2',
  title: 'VQAv2, validation; test-dev and test by upload',
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
    const subset = subsetOf(splitOf(paths));
    const pictures = firstOf(folder, picturePlaces(subset)) ?? join(folder, subset);
    const entries = readVqaQuestions(paths, FORM, (file, into) => {
      if (!isJsonLines(file)) throw new UserError(`${file.path}: is not ${FORM}`);
      readLlavaFile(file.path, into);
    });
    return entries.map((entry) => questionOf(entry, subset, pictures));
  },

  async answers(path, questions) {
    if (questions === undefined)
      throw new UserError(`${path}: VQA's answers are in its annotations; give them with --questions or --data, besides the questions`);
    return joinById(path, questions, await readAnswers(path, RESULTS));
  },

  judge(answered, { harness }) {
    refuseUnannotated(this.name, answered);
    return answered.map((one) => ({ ...one, ...judgeByAgreement(one, formsOf(one, harness, this.name)) }));
  },

  summarize: (judged) => ({
    scores: { overall: percent(judged.map(({ credit }) => credit)) },
    groups: { per_answer_type: accuracyBy(judged, 'per_answer_type'), per_question_type: accuracyBy(judged, 'per_question_type') },
  }),

  upload: {
    server: 'the VQA challenge on EvalAI, which wants test-dev and the rest of test in one file',
    write: (answered, harness) => uploadRecords(answered, harness, ({ id }) => ({ question_id: Number(id) })),
  },
};

const RESULTS = { id: 'question_id', answer: 'answer', about: 'results of VQA (an array of question_id and answer)' };

/** Validation where it can be scored; otherwise a split that can be asked. */
function filesIn(folder: string): string[] {
  const annotations = firstOf(folder, ANNOTATIONS);
  const questions = SPLITS.map((split) => firstOf(folder, questionPlaces(split)));
  const [validation, ...tests] = questions;
  if (annotations !== undefined) return validation === undefined ? [annotations] : [validation, annotations];
  const test = tests.find((path) => path !== undefined) ?? validation;
  return test === undefined ? [] : [test];
}
