// What a model is shown beside its questions: their own pictures; blank ones (what is right then was not
// seen); those of another question (what is right then would be said of any picture).

import type { BenchmarkQuestion, QuestionPicture } from './benchmark.ts';

export const conditions = ['plain', 'blind', 'exchanged'] as const;
export type Condition = (typeof conditions)[number];

/** Questions of equal keys get equal answers: they are asked once. */
export function keyOf(condition: Condition, { id, prompt, pictures }: BenchmarkQuestion): string {
  return condition === 'blind' ? JSON.stringify([prompt, pictures.length]) : id;
}

const nameOf = (pictures: readonly QuestionPicture[]) => JSON.stringify(pictures.map(({ name }) => name));

/**
 * For each question that has pictures, by id, those of a question about others, as many: in the order of
 * the file, the ones half of all further on. Left out are questions of which there is no other.
 */
export function exchangedPictures(questions: readonly BenchmarkQuestion[]): Map<string, readonly QuestionPicture[]> {
  const byCount = new Map<number, Map<string, readonly QuestionPicture[]>>();
  for (const { pictures } of questions) {
    const sets = byCount.get(pictures.length) ?? new Map();
    byCount.set(pictures.length, sets.set(nameOf(pictures), pictures));
  }
  const partner = new Map<string, readonly QuestionPicture[]>();
  for (const [count, sets] of byCount) {
    if (count === 0 || sets.size === 1) continue;
    const all = [...sets.values()];
    const half = Math.floor(all.length / 2);
    all.forEach((pictures, i) => {
      partner.set(nameOf(pictures), all[(i + half) % all.length]);
    });
  }
  return new Map(
    questions.flatMap(({ id, pictures }) => {
      const others = partner.get(nameOf(pictures));
      return others === undefined ? [] : [[id, others] as const];
    }),
  );
}
