// How MMMU's scorer reads answers (mmmu/utils/eval_utils.py of MMMU-Benchmark/MMMU), rule by rule, and the
// Python lists that its data set has as text.

import { UserError } from '../errors.ts';
import { pythonFloat, pythonRound } from './python-numbers.ts';
import { pythonSplit, pythonStrip } from './python-text.ts';

/** `text.strip(character)`. */
function stripped(text: string, character: string): string {
  let [start, end] = [0, text.length];
  while (start < end && text[start] === character) start++;
  while (end > start && text[end - 1] === character) end--;
  return text.slice(start, end);
}

/** The last of several that is found latest in a text; the first of those that are found there. */
const latest = (letters: readonly string[], placeOf: (letter: string) => number) =>
  letters.reduce((best, letter) => (placeOf(letter) > placeOf(best) ? letter : best));

/** Answers of more words may name an option by its text. */
const FEW_WORDS = 5;

/**
 * The option that an answer names: `(A)`, else `A` between spaces, else, in more than five words, its text;
 * the last one of several. Undefined where the official scorer draws one. `texts` are the options by letter.
 */
export function parseChoice(response: string, texts: Readonly<Record<string, string>>): string | undefined {
  const letters = Object.keys(texts);
  const answer = ` ${[...",.!?;:'"].reduce(stripped, response)} `;
  for (const formOf of [(letter: string) => `(${letter})`, (letter: string) => ` ${letter} `]) {
    const found = letters.filter((letter) => answer.includes(formOf(letter)));
    if (found.length > 0) return latest(found, (letter) => answer.lastIndexOf(formOf(letter)));
  }
  if (pythonSplit(answer).length <= FEW_WORDS) return undefined;
  const lower = answer.toLowerCase();
  const named = letters.filter((letter) => lower.includes(texts[letter].toLowerCase()));
  return named.length === 0 ? undefined : latest(named, (letter) => lower.lastIndexOf(texts[letter].toLowerCase()));
}

/** A text, or a number rounded to two digits. */
type Value = string | number;

/** A number where the text is one; else the text in lower case, a single character with a space beside it. */
function normalized(text: string): Value[] {
  const value = pythonStrip(text);
  const number = pythonFloat(value.replaceAll(',', ''));
  if (number !== undefined) return [pythonRound(number, 2)];
  const lower = value.toLowerCase();
  return [...lower].length === 1 ? [` ${lower}`, `${lower} `] : [lower];
}

// Python's \b and \d know the letters and digits of all scripts
const [WORD, DIGIT] = ['[\\p{L}\\p{N}_]', '\\p{Nd}'];
const EDGE = `(?:(?<=${WORD})(?!${WORD})|(?<!${WORD})(?=${WORD}))`;
const NUMBERS = [
  `-?${EDGE}${DIGIT}{1,3}(?:,${DIGIT}{3})+${EDGE}`,
  `-?${DIGIT}+(?:\\.${DIGIT}+)?[eE][+-]?${DIGIT}+`,
  `-?(?:${DIGIT}+\\.${DIGIT}+|\\.${DIGIT}+|${DIGIT}+${EDGE})(?![eE][+-]?${DIGIT}+)(?![,\\p{Nd}])`,
].map((pattern) => new RegExp(pattern, 'gu'));

/** Numbers in a text: with commas, in scientific notation, and plain ones. */
const numbersIn = (text: string): string[] => NUMBERS.flatMap((pattern) => text.match(pattern) ?? []);

const INDICATORS = ['could be ', 'so ', 'is ', 'thus ', 'therefore ', 'final ', 'answer ', 'result '];
const TRIVIAL = new Set([...":,.!?;'"]);

/** Of each line, what stands behind the words that announce an answer; the whole where there are none. */
function keyParts(response: string): string[] {
  const answer = stripped(pythonStrip(response), '.').toLowerCase();
  const lines = answer.split('\n');
  const parts = lines.flatMap((line, i) => {
    // the last line may be an equation
    const indicators = i === lines.length - 1 ? [...INDICATORS, '='] : INDICATORS;
    const tails = indicators.filter((indicator) => line.includes(indicator)).map((indicator) => pythonStrip(line.split(indicator).at(-1)!));
    const shortest = tails.reduce((best, tail) => (best === '' || tail.length < best.length ? tail : best), '');
    return shortest === '' || TRIVIAL.has(shortest) ? [] : [shortest];
  });
  return parts.length > 0 ? parts : [answer];
}

/** What a free answer may say: texts, and numbers rounded to two digits. */
export function parseOpen(response: string): Value[] {
  const parts = keyParts(response);
  return [...parts, ...parts.flatMap(numbersIn)].flatMap(normalized);
}

/** Whether a free answer is right: it contains a right text, or has an equal number. */
export function isOpenRight(golds: readonly string[], values: readonly Value[]): boolean {
  const right = golds.flatMap(normalized);
  return values.some((value) =>
    right.some((gold) => (typeof value === 'string' ? typeof gold === 'string' && value.includes(gold) : value === gold)),
  );
}

const ESCAPES: Record<string, string> = { n: '\n', t: '\t', r: '\r', '\n': '' };

function unescaped(text: string): string {
  return text.replace(/\\(x[\da-fA-F]{2}|u[\da-fA-F]{4}|U[\da-fA-F]{8}|[\s\S])/g, (_, code: string) => {
    if (code.length > 1) return String.fromCodePoint(Number.parseInt(code.slice(1), 16));
    // what Python knows no escape of stays as it is, with its backslash
    return ESCAPES[code] ?? (`\\'"`.includes(code) ? code : `\\${code}`);
  });
}

/** A list as Python prints it: `['a', "it's", 3]`. UserError that begins with `where`. */
export function parsePythonList(text: string, where: string): string[] {
  const element = /\s*(?:'((?:[^'\\]|\\[\s\S])*)'|"((?:[^"\\]|\\[\s\S])*)"|([^\s'",[\]]+))\s*(,|$)/y;
  const trimmed = text.trim();
  const inner = trimmed.slice(1, -1);
  const values: string[] = [];
  if (!trimmed.startsWith('[') || !trimmed.endsWith(']')) throw new UserError(`${where}: is no list of Python: ${trimmed.slice(0, 60)}`);
  while (element.lastIndex < inner.trimEnd().length) {
    const at = element.lastIndex;
    const found = element.exec(inner);
    if (!found) throw new UserError(`${where}: is no list of Python's texts: ${inner.slice(at, at + 60)}`);
    values.push(found[3] ?? unescaped(found[1] ?? found[2]));
  }
  return values;
}
