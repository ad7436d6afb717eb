// VizWiz-VQA (Gurari et al. 2018, arXiv 1802.08218): questions that blind people asked about their own
// pictures, many of which cannot be answered, scored as VQA is. Its annotations have no answer_id, and so the
// scorer can be read in two ways, see `agreementOfDistinct`; both numbers are given.
//
// llava: scripts/convert_vizwiz_for_submission.py of haotian-liu/LLaVA, then the VQA scorer.

import { join, parse } from 'node:path';
import { z } from 'zod';
import { UserError } from '../errors.ts';
import { readAnswers } from './answer-files.ts';
import { type AnswerLine, joinById, refuseRepeated } from './answers.ts';
import type { Benchmark, BenchmarkQuestion, Judged, QuestionSources } from './benchmark.ts';
import { firstOf, pictureIn } from './files.ts';
import type { JsonFile } from './json-entries.ts';
import { byGroup, percent } from './means.ts';
import { unanswerableOrShort } from './prompts.ts';
import { pythonCapitalize } from './python-text.ts';
import {
  annotationFields,
  annotationOf,
  checked,
  isJsonLines,
  readLlavaQuestions,
  readVqaQuestions,
  type VqaAnnotation,
  type VqaEntry,
} from './vqa-files.ts';
import { agreementOfDistinct, formsOf, judgeByAgreement, refuseUnannotated, uploadRecords, vqaHarnesses } from './vqa-scorer.ts';

const FORM = 'questions of VizWiz (an array of image, question and answers), of the VQA form, or of LLaVA';
const VALIDATION: [string, ...string[]] = ['val.json', 'Annotations/val.json', 'annotations/val.json', 'val_0-499_annotations.json'];
const TEST: [string, ...string[]] = ['test.json', 'Annotations/test.json', 'annotations/test.json', 'llava_test.jsonl'];
const picturePlaces = (split: string): [string, ...string[]] => [split, `images/${split}`, `Images/${split}`];

interface VizWizQuestion extends BenchmarkQuestion {
  groups: { per_answer_type?: string };
  /** Names that answers may call it by: the picture's, with and without its ending, and a number. */
  names: readonly string[];
  annotation?: VqaAnnotation;
}

interface VizWizJudged extends Judged<VizWizQuestion> {
  /** The credit if annotators with equal entries are taken as one. */
  creditOfDistinct: number;
}

const recordSchema = z.object({
  image: z.string().min(1),
  question: z.string(),
  ...annotationFields,
  answers: annotationFields.answers.optional(),
});

/** VizWiz's own files, and LLaVA's, which number the same questions in their way. */
function readOther(file: JsonFile, entries: Map<string, VqaEntry>): void {
  const seen = new Set<string>();
  const add = (entry: VqaEntry, where: string) => {
    if (seen.has(entry.id)) throw new UserError(`${file.path}: ${entry.image} comes twice (${where}); each must come once`);
    seen.add(entry.id);
    entries.set(entry.id, { ...entries.get(entry.id), ...entry });
  };
  if (isJsonLines(file)) {
    for (const { id: alias, image, text, where } of readLlavaQuestions(file.path))
      add({ id: image, alias, image, question: text.replace(unanswerableOrShort(''), '') }, where);
    return;
  }
  for (const { value, where } of file.entries()) {
    const { image, question, answers, ...types } = checked(file, recordSchema, value, where);
    const annotation = answers && annotationOf({ answers, ...types });
    add({ id: image, image, question, ...(annotation && { annotation }) }, where);
  }
}

/** The number in `VizWiz_val_00000012.jpg`, which counts the questions of a split. */
const numberIn = (image: string) => /_0*(\d+)\.\w+$/.exec(image)?.[1];

function questionOf({ id, image, alias, question = '', annotation }: VqaEntry, pictures: string, harness: string): VizWizQuestion {
  return {
    id: image,
    prompt: `<image>\n${unanswerableOrShort(harness === 'lmms-eval' ? pythonCapitalize(question) : question)}`,
    pictures: [pictureIn(pictures, image)],
    references: annotation?.answers ?? [],
    cluster: image,
    groups: { per_answer_type: annotation?.answerType ?? annotation?.questionType },
    names: [image, parse(image).name, alias ?? (id === image ? (numberIn(image) ?? image) : id)],
    annotation,
  };
}

/** Answers by picture, whatever name of the question they have. */
function byPicture(lines: readonly AnswerLine[], questions: readonly VizWizQuestion[]): AnswerLine[] {
  const images = new Map(questions.flatMap(({ id, names }) => names.map((name) => [name, id] as const)));
  return lines.map((line) => ({ ...line, id: images.get(line.id) ?? line.id }));
}

const RESULTS = { id: 'image', answer: 'answer', about: 'results of VizWiz (an array of image and answer)' };

const accuracies = (judged: readonly VizWizJudged[]) => ({
  answers_told_apart_by_position: percent(judged.map(({ credit }) => credit)),
  identical_answers_taken_as_one: percent(judged.map(({ creditOfDistinct }) => creditOfDistinct)),
});

export const vizwiz: Benchmark<VizWizQuestion, VizWizJudged> = {
  name: 'vizwiz',
  title: 'VizWiz-VQA, validation; test by upload',
  source: 'Gurari et al. 2018, VizWiz Grand Challenge: Answering Visual Questions from Blind People, arXiv 1802.08218',
  headline: { name: 'overall', best: 100 },
  maxNewTokens: 128,
  harnesses: [...vqaHarnesses, { name: 'lmms-eval', about: 'vizwiz_vqa/utils.py of lmms-eval: both sides through the EvalAI processor' }],
  files: [
    {
      places: VALIDATION,
      holds: '4,319 questions of the validation split with ten answers each',
      url: 'https://vizwiz.cs.colorado.edu/VizWiz_final/vqa_data/Annotations.zip',
      bytes: 3_700_000,
      license: 'CC BY 4.0',
      needed: 'score',
    },
    {
      places: picturePlaces('val'),
      holds: 'the pictures of the validation split',
      url: 'https://vizwiz.cs.colorado.edu/VizWiz_final/images/val.zip',
      bytes: 3_300_000_000,
      license: 'CC BY 4.0',
      needed: 'ask',
      count: 4319,
    },
  ],

  async questions({ files, folder = '.', harness }: QuestionSources) {
    const found = firstOf(folder, VALIDATION) ?? firstOf(folder, TEST);
    const entries = readVqaQuestions(files ?? (found === undefined ? [] : [found]), FORM, readOther);
    const split = /_(train|val|test)_/.exec(entries[0]?.image ?? '')?.[1] ?? 'val';
    const pictures = firstOf(folder, picturePlaces(split)) ?? join(folder, split);
    const questions = entries.map((entry) => questionOf(entry, pictures, harness));
    refuseRepeated((files ?? []).join(', '), 'questions', questions);
    return questions;
  },

  async answers(path, questions) {
    if (questions === undefined)
      throw new UserError(`${path}: VizWiz's answers are in its question files; give one with --questions or --data`);
    return joinById(path, questions, byPicture(await readAnswers(path, RESULTS), questions));
  },

  judge(answered, { harness }) {
    refuseUnannotated(this.name, answered);
    return answered.map((one) => {
      const forms = formsOf(one, harness, this.name);
      const creditOfDistinct = agreementOfDistinct(forms.answer, forms.references, one.question.annotation!.marks);
      return { ...one, ...judgeByAgreement(one, forms), creditOfDistinct };
    });
  },

  unasked: (judged) => ({ ...judged, creditOfDistinct: 0 }),

  summarize(judged) {
    const { answers_told_apart_by_position: overall, ...distinct } = accuracies(judged);
    const types = byGroup(judged, ({ question }) => question.groups.per_answer_type);
    const rows = [...types].sort(([a], [b]) => (a < b ? -1 : 1));
    return {
      scores: { overall, answers_told_apart_by_position: overall, ...distinct },
      groups: { per_answer_type: Object.fromEntries(rows.map(([type, of]) => [type, { ...accuracies(of), n: of.length }])) },
    };
  },

  upload: {
    server: 'the VizWiz challenge on EvalAI',
    write: (answered, harness) => uploadRecords(answered, harness, ({ id }) => ({ image: id })),
  },
};
