// What a model is shown beside its questions: their own pictures; blank ones (what is right then was not
// seen); those of another question (what is right then would be said of any picture).

import type { BenchmarkQuestion } from './benchmark.ts';

export const conditions = ['plain', 'blind', 'exchanged'] as const;
export type Condition = (typeof conditions)[number];

/** Questions of equal keys get equal answers: they are asked once. */
export function keyOf(condition: Condition, { id, prompt, pictures }: BenchmarkQuestion): string {
  return condition === 'blind' ? JSON.stringify([prompt, pictures.length]) : id;
}
