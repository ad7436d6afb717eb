// Words of a text that came as tokens.

import { createTextStream, type TokenTexts } from '../text/stream.ts';

/** A run of tokens that makes a word, or the punctuation behind one. */
export interface Word {
  text: string;
  /** The first of its tokens, and how many it has. */
  first: number;
  count: number;
}

/** The text that each token adds; a character of several tokens comes with its last one. */
export function pieces(tokenizer: TokenTexts, ids: readonly number[]): string[] {
  const stream = createTextStream(tokenizer);
  const texts = ids.map((id) => stream.push(id));
  const rest = stream.end();
  return rest === '' || texts.length === 0 ? texts : [...texts.slice(0, -1), texts.at(-1)! + rest];
}

const hasLetters = (text: string) => /[\p{L}\p{N}]/u.test(text);

/**
 * Tokens joined to words: a new one begins at white space, at punctuation, behind it, and at either side of a
 * special token (`isAlone`). Every token belongs to one word.
 */
export function wordsOf(texts: readonly string[], isAlone: (token: number) => boolean = () => false): Word[] {
  const words: Word[] = [];
  texts.forEach((text, token) => {
    const word = words.at(-1);
    const before = texts[token - 1] ?? '';
    const begins =
      !word ||
      isAlone(token) ||
      isAlone(token - 1) ||
      /^\s/.test(text) ||
      /\s$/.test(before) ||
      (text !== '' && before !== '' && hasLetters(text) !== hasLetters(word.text));
    if (begins) words.push({ text, first: token, count: 1 });
    else {
      word.text += text;
      word.count++;
    }
  });
  return words.map((word) => ({ ...word, text: word.text.trim() }));
}
