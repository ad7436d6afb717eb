// What a search does next, as a pure function of the trials so far in the order in which they were begun: a
// new configuration of the sampler, or, under ASHA (Li et al. 2018, arXiv 1810.05934), a longer schedule
// for one of the best. Every rung is a run with its own schedule to its end, so that only finished
// schedules are compared.

import { haltonPoint, randomPoint, sobolPoint } from './samplers.ts';
import type { SamplerName, StartName } from './search-schema.ts';
import { type Point, pointOf, type Space, type Values, valuesAt } from './space.ts';
import { type Observation, STARTUP, tpePoint } from './tpe.ts';

export interface SearchPlan {
  space: Space;
  sampler: SamplerName;
  /** Of the first trials of tpe. Default: random. */
  start?: StartName;
  /** Seed of the proposals. */
  seed: number;
  /** Whole schedules that may be spent. */
  trials: number;
  asha?: { reduction: number; rungs: number };
  /** Whether low values are good. */
  lowest: boolean;
}

export interface Job {
  /** Place among the trials of the search. */
  index: number;
  /** Index of the trial that has tried these values first. */
  configuration: number;
  /** 0 is the shortest schedule. */
  rung: number;
  /** Share of the whole schedule. */
  share: number;
  values: Values;
}

/** What became of a trial: a value, or why there is none. */
export type Outcome = { status: 'finished'; value: number } | { status: 'diverged' | 'failed'; reason: string };

/** Without an outcome it is pending, or not to be looked at yet. */
export interface Trial extends Job {
  outcome?: Outcome;
}

export const rungsOf = ({ asha }: Pick<SearchPlan, 'asha'>) => asha?.rungs ?? 1;

/** What a trial of this rung costs, in units of which all costs are whole multiples. */
const unitsOf = ({ asha }: Pick<SearchPlan, 'asha'>, rung: number) => (asha ? asha.reduction ** rung : 1);

/** A trial's value as something to be small; undefined where it has none. */
export function lossOf({ outcome }: Trial, { lowest }: Pick<SearchPlan, 'lowest'>): number | undefined {
  return outcome?.status === 'finished' ? (lowest ? outcome.value : -outcome.value) : undefined;
}

/** Trials that have a value, the best first and, of equals, the earliest. */
export function rankTrials<T extends Trial>(trials: readonly T[], plan: Pick<SearchPlan, 'lowest'>): T[] {
  return trials
    .flatMap((trial) => {
      const loss = lossOf(trial, plan);
      return loss === undefined ? [] : [{ trial, loss }];
    })
    .sort((a, b) => a.loss - b.loss || a.trial.index - b.trial.index)
    .map(({ trial }) => trial);
}

/** The best of the whole schedules. */
export const winnerOf = <T extends Trial>(trials: readonly T[], plan: SearchPlan): T | undefined =>
  rankTrials(
    trials.filter(({ rung }) => rung === rungsOf(plan) - 1),
    plan,
  )[0];

/** The next trial; undefined where the budget is spent. */
export function nextJob(trials: readonly Trial[], plan: SearchPlan): Job | undefined {
  const top = rungsOf(plan) - 1;
  const left = plan.trials * unitsOf(plan, top) - trials.reduce((sum, { rung }) => sum + unitsOf(plan, rung), 0);
  const jobAt = (configuration: number, rung: number, values: Values): Job => ({
    index: trials.length,
    configuration,
    rung,
    share: unitsOf(plan, rung) / unitsOf(plan, top),
    values,
  });
  const chosen = promotionOf(trials, plan, left);
  const rung = chosen ? chosen.rung + 1 : 0;
  const isLastChance = top > 0 && !trials.some((trial) => trial.rung === top) && left - unitsOf(plan, rung) < unitsOf(plan, top);
  const best = isLastChance ? bestSoFar(trials, plan) : undefined;
  // of all that was spent, one whole schedule must come out
  if (best) return left >= unitsOf(plan, top) ? jobAt(best.configuration, top, best.values) : undefined;
  if (chosen) return jobAt(chosen.configuration, rung, chosen.values);
  if (left < unitsOf(plan, 0)) return undefined;
  return jobAt(trials.length, 0, valuesAt(plan.space, newPoint(trials, plan)));
}

/** The best trial of the longest schedules that have any value. */
function bestSoFar(trials: readonly Trial[], plan: SearchPlan): Trial | undefined {
  for (let rung = rungsOf(plan) - 1; rung >= 0; rung--) {
    const [best] = rankTrials(
      trials.filter((trial) => trial.rung === rung),
      plan,
    );
    if (best) return best;
  }
  return undefined;
}

/** A trial among the best of its rung that has not gone on yet, from the highest rung that has one. */
function promotionOf(trials: readonly Trial[], plan: SearchPlan, left: number): Trial | undefined {
  if (!plan.asha) return undefined;
  for (let rung = rungsOf(plan) - 2; rung >= 0; rung--) {
    if (unitsOf(plan, rung + 1) > left) continue;
    const ranked = rankTrials(
      trials.filter((trial) => trial.rung === rung),
      plan,
    );
    const goneOn = new Set(trials.flatMap((trial) => (trial.rung > rung ? [trial.configuration] : [])));
    const candidate = ranked
      .slice(0, Math.floor(ranked.length / plan.asha.reduction))
      .find(({ configuration }) => !goneOn.has(configuration));
    if (candidate) return candidate;
  }
  return undefined;
}

function newPoint(trials: readonly Trial[], plan: SearchPlan): Point {
  const { space, sampler, seed } = plan;
  const index = trials.filter(({ rung }) => rung === 0).length;
  const observations = observationsOf(trials, plan);
  if (sampler === 'tpe' && observations.length >= STARTUP) return tpePoint(space, observations, index, seed);
  switch (sampler === 'tpe' ? (plan.start ?? 'random') : sampler) {
    case 'random':
      return randomPoint(space.length, index, seed);
    case 'halton':
      return haltonPoint(space.length, index, seed);
    case 'sobol':
      return sobolPoint(space.length, index, seed);
  }
}

/**
 * What the estimator learns from: the longest schedules of which there are enough, as those of different
 * lengths are not to be compared; and what is pending, as if it were bad.
 */
function observationsOf(trials: readonly Trial[], plan: SearchPlan): Observation[] {
  let learned = rungsOf(plan) - 1;
  while (learned > 0 && trials.filter((trial) => trial.rung === learned && trial.outcome?.status === 'finished').length < STARTUP)
    learned--;
  return trials
    .filter((trial) => trial.rung === learned || (trial.rung === 0 && trial.outcome === undefined))
    .map((trial) => ({ point: pointOf(plan.space, trial.values), loss: lossOf(trial, plan) }));
}
