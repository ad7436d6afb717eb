// Reading an answer out of generated text and comparing it with the expected one, as the official scorers do.
// yes/no: POPE evaluate.py (AoiDragon/POPE); letter: llava/eval/eval_science_qa.py; text:
// `rstrip('.').lower()` of llava/scripts/convert_gqa_for_eval.py (haotian-liu/LLaVA).

/** What form a task's answers have, which decides how they are read. */
export type AnswerKind = 'yes-no' | 'letter' | 'count' | 'text';

/** Tasks whose answers are not free text. */
const kindOfTask: Record<string, AnswerKind> = { existence: 'yes-no', count: 'count', category: 'letter' };

/** The form of a task's answers by the task's name; free text unless known otherwise. */
export function answerKind(task: string): AnswerKind {
  return kindOfTask[task] ?? 'text';
}

/** Stands for an answer in which nothing could be recognized; never right. */
export const FAILED = 'FAILED';

/** LLaVA's normalization: no surrounding space, no final full stops, lower case. */
export function normalizeText(text: string): string {
  return text.trim().replace(/\.+$/, '').trimEnd().toLowerCase();
}

/**
 * POPE's reading: the first sentence, commas dropped; `no` when one of its words is No, no or not, otherwise
 * `yes`.
 */
export function parseYesNo(text: string): 'yes' | 'no' {
  const words = text.split('.')[0].replaceAll(',', '').trim().split(/\s+/);
  return words.some((word) => word === 'No' || word === 'no' || word === 'not') ? 'no' : 'yes';
}

/**
 * ScienceQA's reading: the letter alone, or `B. ...`, or exactly one `The answer is B.`, whose full stop may
 * be any character; otherwise FAILED. Space around the text counts. `letters` are those of the first two
 * forms.
 */
export function parseLetter(text: string, letters = 'ABCDEFGHIJKLMNOPQRSTUVWXYZ'): string {
  const [first] = text;
  const isLetter = first !== undefined && letters.includes(first);
  if (isLetter && (text.length === 1 || text.startsWith('. ', 1))) return first;
  const stated = [...text.matchAll(/The answer is ([A-Z])[^\n]/g)];
  return stated.length === 1 ? stated[0][1] : FAILED;
}

const numberWords = ['zero', 'one', 'two', 'three', 'four', 'five', 'six', 'seven', 'eight', 'nine', 'ten'];

/** The first number in the text, in digits or as a word up to ten, as digits; FAILED when there is none. */
export function parseCount(text: string): string {
  for (const word of text.toLowerCase().match(/\d+|[a-z]+/g) ?? []) {
    if (/^\d/.test(word)) return String(Number(word));
    const number = numberWords.indexOf(word);
    if (number >= 0) return String(number);
  }
  return FAILED;
}

/** The answer that a text gives, in the one form in which answers of this kind are compared. */
export function parseAnswer(kind: AnswerKind, text: string): string {
  if (kind === 'yes-no') return parseYesNo(text);
  if (kind === 'letter') return parseLetter(text.trim());
  if (kind === 'count') return parseCount(text);
  return normalizeText(text);
}

/** Whether the generated text gives the expected answer. */
export function isCorrect(kind: AnswerKind, expected: string, answer: string): boolean {
  const given = parseAnswer(kind, answer);
  return given !== FAILED && given === parseAnswer(kind, expected);
}

export interface YesNoScores {
  accuracy: number;
  precision: number;
  recall: number;
  f1: number;
  /** Share of questions that the model answers with yes. */
  yesRate: number;
}

/**
 * POPE's scores, `yes` being the positive class. A ratio without anything to count is 0. A question with a
 * `problem` was not asked: it counts as answered wrong, and not as a yes.
 */
export function yesNoScores(pairs: readonly { expected: string; answer: string; problem?: string }[]): YesNoScores {
  let truePositive = 0;
  let falsePositive = 0;
  let trueNegative = 0;
  let falseNegative = 0;
  let unasked = 0;
  for (const { expected, answer, problem } of pairs) {
    const isYes = parseYesNo(expected) === 'yes';
    const saysYes = problem === undefined ? parseYesNo(answer) === 'yes' : !isYes;
    if (problem !== undefined && saysYes) unasked++;
    if (isYes && saysYes) truePositive++;
    else if (isYes) falseNegative++;
    else if (saysYes) falsePositive++;
    else trueNegative++;
  }
  const ratio = (part: number, whole: number) => (whole === 0 ? 0 : part / whole);
  const precision = ratio(truePositive, truePositive + falsePositive);
  const recall = ratio(truePositive, truePositive + falseNegative);
  return {
    accuracy: ratio(truePositive + trueNegative, pairs.length),
    precision,
    recall,
    f1: ratio(2 * precision * recall, precision + recall),
    yesRate: ratio(truePositive + falsePositive - unasked, pairs.length),
  };
}
