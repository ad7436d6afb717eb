// Questions before the pictures of others: what is right then would be said of any picture.

import type { Question } from './questions.ts';

/** Whose place the one at `index` of `count` takes: the one half of all further on, never itself. */
export const partnerOf = (index: number, count: number): number => (index + Math.floor(count / 2)) % count;

/**
 * For each question the pictures of one about others, as many: in their order, those half of all further on.
 * `nameOf` tells pictures from each other. Undefined for a question without pictures, and where there are no
 * others.
 */
export function exchangedPictures<Q, P>(
  questions: readonly Q[],
  picturesOf: (question: Q) => readonly P[],
  nameOf: (picture: P) => string,
): (readonly P[] | undefined)[] {
  const keyOf = (pictures: readonly P[]) => JSON.stringify(pictures.map(nameOf));
  const byCount = new Map<number, Map<string, readonly P[]>>();
  for (const pictures of questions.map(picturesOf)) {
    const sets = byCount.get(pictures.length) ?? new Map<string, readonly P[]>();
    byCount.set(pictures.length, sets.set(keyOf(pictures), pictures));
  }
  const partner = new Map<string, readonly P[]>();
  for (const [count, sets] of byCount) {
    const all = [...sets];
    if (count > 0 && all.length > 1) for (const [i, [key]] of all.entries()) partner.set(key, all[partnerOf(i, all.length)][1]);
  }
  return questions.map((question) => partner.get(keyOf(picturesOf(question))));
}

/** The questions that can be asked before other pictures, with those. */
export function withExchangedPictures(questions: readonly Question[]): Question[] {
  const exchanged = exchangedPictures(
    questions,
    ({ imagePaths }) => imagePaths,
    (path) => path,
  );
  return questions.flatMap((question, i) => (exchanged[i] ? [{ ...question, imagePaths: [...exchanged[i]] }] : []));
}
