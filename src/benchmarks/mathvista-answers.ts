// What an answer to MathVista says, as extract_answer.py and calculate_score.py of lupantech/MathVista read
// it.

import { pythonRound } from './python-numbers.ts';
import { pythonStrip } from './python-text.ts';
import { floatOf, floatText, integerText, textOf, truncatedText } from './python-values.ts';

/** What of a problem decides how its answer is read. */
export interface AnswerForm {
  questionType: string;
  answerType: string;
  choices: readonly string[] | undefined;
  /** Digits behind the point. */
  precision: number | undefined;
}

/** How an extraction became a prediction. */
export type Reading = 'letter' | 'option' | 'nearest' | 'number' | 'list' | 'empty' | 'none';

export interface Prediction {
  /** As the official scorer has it; undefined for its None. */
  text: string | undefined;
  reading: Reading;
}

const letterOf = (index: number) => String.fromCharCode('A'.charCodeAt(0) + index);

/** Edits (insertion, deletion, exchange) from one text to another, in characters (Levenshtein 1966). */
export function editDistance(from: string, to: string): number {
  const [a, b] = [[...from], [...to]];
  let row = Array.from({ length: b.length + 1 }, (_, j) => j);
  for (const [i, character] of a.entries()) {
    const next = [i + 1];
    for (const [j, other] of b.entries()) next.push(Math.min(row[j + 1] + 1, next[j] + 1, row[j] + (character === other ? 0 : 1)));
    row = next;
  }
  return row[b.length];
}

/** The first of the options with the fewest edits. */
function nearest(text: string, choices: readonly string[]): string {
  const distances = choices.map((choice) => editDistance(text, choice));
  return choices[distances.indexOf(Math.min(...distances))];
}

function optionOf(extraction: unknown, choices: readonly string[]): Prediction {
  const text = typeof extraction === 'string' ? pythonStrip(extraction) : textOf(extraction);
  const said = /\(([a-zA-Z])\)/.exec(text)?.[1].toUpperCase() ?? text;
  const index = choices.findIndex((_, i) => letterOf(i) === said);
  if (index >= 0) return { text: choices[index], reading: 'letter' };
  if (choices.includes(said)) return { text: said, reading: 'option' };
  const isEmpty = said === '' || extraction === null || extraction === undefined;
  return { text: nearest(said, choices), reading: isEmpty ? 'empty' : 'nearest' };
}

/**
 * The official `normalize_extracted_answer`: an option for its letter, else the option with the fewest edits;
 * an integer cut off towards zero; a float rounded to the question's digits.
 */
export function normalizeExtraction(extraction: unknown, { questionType, answerType, choices, precision }: AnswerForm): Prediction {
  if (questionType === 'multi_choice') return optionOf(extraction, choices ?? []);
  const none: Prediction = { text: undefined, reading: 'none' };
  if (answerType === 'list') {
    const isEmpty = extraction === null || extraction === undefined || textOf(extraction).trim() === '';
    return { text: textOf(extraction), reading: isEmpty ? 'empty' : 'list' };
  }
  const number = floatOf(extraction);
  if (number === undefined) return none;
  const text =
    answerType === 'integer'
      ? truncatedText(number)
      : precision === undefined
        ? undefined
        : floatText(number === 0 ? number : pythonRound(number, Math.trunc(precision)));
  return text === undefined ? none : { text, reading: 'number' };
}

/** Letters that an answer names in parentheses, each once. */
const namedLetters = (answer: string) => [...new Set([...answer.matchAll(/\(([A-Z])\)/g)].map(([, letter]) => letter))];

/** The option's letter that an answer is, or the only one that it names. */
function plainLetter(answer: string, choices: readonly string[]): string | undefined {
  const text = pythonStrip(answer);
  const [, alone] = /^\(?([A-Z])\)?[.:]?$/.exec(text) ?? [];
  const named = namedLetters(text);
  const letter = alone ?? (named.length === 1 ? named[0] : undefined);
  return letter !== undefined && choices.some((_, i) => letterOf(i) === letter) ? letter : undefined;
}

/**
 * What rules read out of an answer, as extract_answer.py has it: an option's text, or a number alone. `quick`
 * reads more, for where no model will: `The answer is "..."` as its --quick_extract does, and the option's
 * letter. undefined where they read nothing.
 */
export function extractByRules(answer: string, { questionType, answerType, choices = [] }: AnswerForm, quick: boolean): string | undefined {
  const isChoice = questionType === 'multi_choice';
  if (isChoice && choices.includes(answer)) return answer;
  const whole = answerType === 'integer' ? integerText(answer) : undefined;
  if (whole !== undefined) return whole;
  const number = answerType === 'float' ? floatOf(answer) : undefined;
  if (number !== undefined) return floatText(number);
  if (!quick) return undefined;
  const [, said] = /The answer is "([^\n]*)"\./.exec(answer) ?? [];
  return said ?? (isChoice ? plainLetter(answer, choices) : undefined);
}
