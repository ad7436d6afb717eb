// A search over any function of a recipe's fields: proposes, evaluates, several at a time, and can be gone on
// with. What is proposed depends on the trials by their order, never on which of them ended first: trial i
// knows the outcomes up to trial i - atOnce, and of those after it that they are pending.

import { UserError } from '../errors.ts';
import { type Job, nextJob, type Outcome, type SearchPlan, type Trial, winnerOf } from './proposals.ts';

export type { Job, Outcome, SearchPlan } from './proposals.ts';
export { type Dimension, type Space, searchSpace, type Values } from './space.ts';

export type FinishedTrial = Trial & { outcome: Outcome };

export interface SearchOptions extends SearchPlan {
  /** Trials that run at a time. Default: 1. */
  atOnce?: number;
  /**
   * Judges a trial: its value at the end of a schedule of `share` of the whole length. Throws what is to end
   * the search, and what `signal` is aborted with.
   */
  evaluate(job: Job, signal: AbortSignal): Promise<Outcome>;
  /** Trials of an earlier sitting, in order: they are not evaluated again. */
  recorded?: readonly FinishedTrial[];
  /** Is told of each trial that was evaluated, in order. */
  onTrial?(trial: FinishedTrial): void;
  signal?: AbortSignal;
}

export interface SearchResult {
  trials: FinishedTrial[];
  /** The best whole schedule; undefined where none has a value. */
  winner?: FinishedTrial;
}

/** Trials that fail before it is told that all will. */
const HOPELESS = 3;

/**
 * Searches until the budget is spent. UserError where recorded trials are not what this search would have
 * tried, and where the first three trials all fail.
 */
export async function runSearch(options: SearchOptions): Promise<SearchResult> {
  const { atOnce = 1, evaluate, recorded = [], onTrial, signal } = options;
  const stop = new AbortController();
  const either = signal ? AbortSignal.any([signal, stop.signal]) : stop.signal;
  const begun: Job[] = [];
  const outcomes: Promise<Outcome>[] = [];
  const trials: FinishedTrial[] = [];

  /** Waits for the trials before `end`, in order. */
  const settle = async (end: number) => {
    while (trials.length < end) {
      const { length: index } = trials;
      const trial = { ...begun[index], outcome: await outcomes[index] };
      trials.push(trial);
      if (index >= recorded.length) onTrial?.(trial);
      refuseHopeless(trials);
    }
  };

  try {
    for (;;) {
      await settle(begun.length - atOnce + 1);
      signal?.throwIfAborted();
      const job = nextJob([...trials, ...begun.slice(trials.length)], options);
      if (!job) break;
      const known = recorded[job.index];
      if (known) requireSame(known, job);
      begun.push(job);
      const outcome = known ? Promise.resolve(known.outcome) : evaluate(job, either);
      // it is awaited in its turn
      outcome.catch(() => {});
      outcomes.push(outcome);
    }
    await settle(begun.length);
  } catch (error) {
    stop.abort(error);
    await Promise.allSettled(outcomes);
    throw error;
  }
  return { trials, winner: winnerOf(trials, options) };
}

function requireSame(known: FinishedTrial, job: Job): void {
  const wordsOf = ({ values, rung }: Job) => JSON.stringify([values, rung]);
  if (wordsOf(known) !== wordsOf(job))
    throw new UserError(
      `trial ${job.index} was recorded with ${wordsOf(known)} and would now have ${wordsOf(job)}: it is of another search`,
    );
}

function refuseHopeless(trials: readonly FinishedTrial[]): void {
  const [{ outcome }] = trials;
  if (trials.length !== HOPELESS || trials.some((trial) => trial.outcome.status !== 'failed')) return;
  throw new UserError(`the first ${HOPELESS} trials all failed; the first one: ${outcome.status === 'failed' ? outcome.reason : ''}`);
}
