// Words of an answer that can be chosen, and the parts of an explanation that they belong to.

/** A run of letters and digits, a sign, or what lies between. */
export interface Piece {
  text: string;
  /** Where it begins in the answer, in UTF-16 units. */
  start: number;
  /** Whether it can be chosen: white space cannot. */
  isWord: boolean;
}

/** Cuts an answer into words and what lies between them; joined, the pieces are the answer. */
export function piecesOf(answer: string): Piece[] {
  // an apostrophe or a hyphen between letters belongs to the word
  const matches = answer.matchAll(/\s+|[\p{L}\p{N}\p{M}]+(?:['’-][\p{L}\p{N}\p{M}]+)*|[^\s\p{L}\p{N}\p{M}]+|\p{M}+/gu);
  return [...matches].map(({ 0: text, index }) => ({ text, start: index, isWord: /\S/.test(text) }));
}

/**
 * The part of an explanation that holds place `at` of the answer: an index into `parts`, of which the first
 * is the whole answer and the others its words in order.
 */
export function partAt(parts: readonly { text: string }[], answer: string, at: number): number {
  let end = 0;
  for (let i = 1; i < parts.length; i++) {
    const found = answer.indexOf(parts[i].text, end);
    // a word that is not found as it was told leaves the others in their places
    if (found < 0) continue;
    end = found + parts[i].text.length;
    if (at < end) return i;
  }
  return parts.length > 1 && end > 0 ? parts.length - 1 : 0;
}
