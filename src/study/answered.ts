// What one run answered.

/** A question as one run answered it. */
export interface Answered {
  /** The same for the same question of all runs, whatever its id. */
  key: string;
  /** What it shares with others: the picture. */
  cluster: string;
  prompt: string;
  expected: string;
  answer: string;
  /** In [0, 1]. */
  credit: number;
  /** Path of the picture within the scenes of the run, if it is of those. */
  picture?: string;
}

export const BASELINES = ['blind', 'exchanged', 'chance', 'majority'] as const;
export type Baseline = (typeof BASELINES)[number];

/** A split or a benchmark, as one run answered it. */
export interface AnsweredScore {
  questions: Answered[];
  /**
   * Mean credit without the picture, with that of another question, of guessing, and of one answer: on the
   * questions of these numbers.
   */
  baselines(chosen: readonly number[]): Partial<Record<Baseline, number>>;
}
