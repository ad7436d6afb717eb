// What a score must beat: always giving the most frequent answer, and guessing.
// The third baseline, blind (the same model before a blank picture), is measured and comes with the samples.
import { type AnswerKind, answerKind, isCorrect, parseAnswer } from './scoring.ts';

/** Letters offered in a question: lines such as `B. animal`, as ScienceQA and LLaVA write them. */
export function choicesIn(prompt: string): number {
  return prompt.match(/^[A-Z]\. /gm)?.length ?? 0;
}

export interface MajorityBaseline {
  /** The one answer given to every question. */
  answer: string;
  accuracy: number;
  /**
   * Whose most frequent answer it is. The evaluation's own gives an upper bound, since it has seen the
   * answers.
   */
  from: 'training' | 'evaluation';
}

/**
 * The accuracy of always giving the most frequent answer of training, or, where no training answers are
 * known, of the evaluation.
 */
export function majorityBaseline(kind: AnswerKind, expected: readonly string[], trainingAnswers: readonly string[] = []): MajorityBaseline {
  const from = trainingAnswers.length > 0 ? 'training' : 'evaluation';
  const counts = new Map<string, number>();
  for (const text of from === 'training' ? trainingAnswers : expected) {
    const answer = parseAnswer(kind, text);
    counts.set(answer, (counts.get(answer) ?? 0) + 1);
  }
  // The first of equals in alphabetical order, so that the result doesn't depend on the order of the samples.
  const [answer] = [...counts.keys()].sort((a, b) => counts.get(b)! - counts.get(a)! || (a < b ? -1 : 1));
  const correct = expected.filter((text) => isCorrect(kind, text, answer)).length;
  return { answer, accuracy: expected.length === 0 ? 0 : correct / expected.length, from };
}

/**
 * The expected accuracy of guessing uniformly: 1/2 for yes/no, 1/choices for letters (averaged over the
 * questions), and one over the number of different answers for counts and words.
 */
export function randomBaseline(task: string, questions: readonly { prompt: string; expected: string }[]): number {
  if (questions.length === 0) return 0;
  const kind = answerKind(task);
  if (kind === 'yes-no') return 0.5;
  const different = 1 / new Set(questions.map(({ expected }) => parseAnswer(kind, expected))).size;
  if (kind !== 'letter') return different;
  let sum = 0;
  for (const { prompt } of questions) {
    const choices = choicesIn(prompt);
    sum += choices > 0 ? 1 / choices : different;
  }
  return sum / questions.length;
}
