// Which option an answer means, where it is more than a letter: the rule of MMBench before it asks a language
// model (can_infer in vlmeval/utils/matching_util.py of open-compass/VLMEvalKit).

import { pythonSplit } from './python-text.ts';

/** Characters that stand around a letter. */
const AROUND = /[.()[\],:;!*#{}]/g;
const REFUSALS = [
  "Sorry, I can't help with images of people yet.",
  "I can't process this file.",
  "I'm sorry, but without the image provided",
  'Cannot determine the answer',
];
/** Words behind a letter, counted from it, up to which it is the answer and no article. */
const LAST = 5;

/** The letter that stands alone in an answer, near its end, or behind "answer is". */
function statedLetter(answer: string, letters: readonly string[]): string | undefined {
  const words = pythonSplit(answer.replace(AROUND, ' '));
  const found = letters.filter((letter) => words.includes(letter));
  if (found.length === 1 && words.indexOf(found[0]) > words.length - LAST) return found[0];
  if (found.length === 0 && words.includes('Z')) return undefined;
  // a capital: "the answer is a boat" says no letter
  const stated = /answer\s+is\s+\**([a-z])\b/i.exec(answer)?.[1];
  return stated !== undefined && letters.includes(stated) ? stated : undefined;
}

/**
 * The letter of the option that an answer names by its letter or, if it names one alone, by its text.
 * `options` are texts by letter; undefined where only letters are known. Undefined where nothing can be read.
 */
export function inferLetter(answer: string, options: Readonly<Record<string, string | undefined>>): string | undefined {
  if (answer.includes('Failed to obtain answer via API') || REFUSALS.some((refusal) => answer.includes(refusal))) return undefined;
  const stated = statedLetter(answer, Object.keys(options));
  if (stated !== undefined) return stated;
  const texts = Object.entries(options).filter((entry): entry is [string, string] => entry[1] !== undefined);
  // a long answer names an option by chance
  if (answer.length > 2 * texts.reduce((sum, [, text]) => sum + text.length, 0)) return undefined;
  const lower = answer.toLowerCase();
  const named = texts.filter(([, text]) => lower.includes(text.toLowerCase()));
  return named.length === 1 ? named[0][0] : undefined;
}
