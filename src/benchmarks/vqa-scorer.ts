// Credit by agreement with ten annotators (Antol et al. 2015, VQA, arXiv 1505.00468): each of the ten is left
// out in turn, and an answer earns a third for each of the other nine who gave it, at most 1.

import { mean } from './means.ts';
import { plainAnswer, vqaAnswer } from './vqa-answers.ts';

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
