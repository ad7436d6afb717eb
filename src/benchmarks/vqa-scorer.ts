// Credit by agreement with ten annotators (Antol et al. 2015, VQA, arXiv 1505.00468): each of the ten is left
// out in turn, and an answer earns a third for each of the other nine who gave it, at most 1.

import { UserError } from '../errors.ts';
import type { Answered, BenchmarkQuestion, Harness, Judged } from './benchmark.ts';
import { byGroup, mean, percent } from './means.ts';
import { evalAiAnswer, lmmsEvalAnswer, plainAnswer, vqaAnswer } from './vqa-answers.ts';

/** The credit of `answer`; both sides are already in the form in which they are compared. */
export function agreement(answer: string, references: readonly string[]): number {
  const given = references.filter((reference) => reference === answer).length;
  return mean(references.map((reference) => Math.min(1, (given - (reference === answer ? 1 : 0)) / 3)));
}

/**
 * The same where the scorer leaves out not one annotator, but all whose entries are equal to the one: so it
 * does without an answer_id in the entries. `marks` are what else is in each (answer_confidence).
 */
export function agreementOfDistinct(answer: string, references: readonly string[], marks: readonly string[]): number {
  return mean(
    references.map((left, i) => {
      const others = references.filter((reference, j) => reference === answer && (reference !== left || marks[j] !== marks[i]));
      return Math.min(1, others.length / 3);
    }),
  );
}

/** An answer and its references as the VQA scorer compares them: processed only where the ten differ. */
export function vqaForms(answer: string, references: readonly string[]): { answer: string; references: string[] } {
  const plain = references.map(plainAnswer);
  if (new Set(plain).size <= 1) return { answer: plainAnswer(answer), references: plain };
  return { answer: vqaAnswer(answer), references: plain.map(vqaAnswer) };
}

/** How lmms-eval brings answers into one form: for VQAv2 without the first step of the EvalAI processor. */
const lmmsEvalForm: Record<string, (answer: string) => string> = { vqav2: lmmsEvalAnswer };

/** An answer and its references as the harness of a benchmark compares them. */
export function formsOf({ question, answer, submitted }: Answered, harness: string, benchmark: string) {
  if (harness !== 'lmms-eval') return vqaForms(harness === 'llava' && !submitted ? evalAiAnswer(answer) : answer, question.references);
  const form = lmmsEvalForm[benchmark] ?? evalAiAnswer;
  return { answer: form(answer), references: question.references.map(form) };
}

/** The credit of an answer, and what it was read as: nothing if there is nothing to read. */
export function judgeByAgreement({ answer }: Answered, forms: { answer: string; references: string[] }) {
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
export function refuseUnannotated(name: string, answered: readonly Answered[]): void {
  if (answered.every(({ question }) => question.references.length > 0)) return;
  throw new UserError(
    `${name}: these questions have no annotations, as those of test splits; their server scores an upload, which llava-gemma score --upload FILE writes`,
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

/** Records with the fields that `naming` gives and the answer, as the harness hands it in. */
export function uploadRecords<Q extends BenchmarkQuestion>(
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
