// What a search would run and how long it would take, from a few timed steps of each variant.

import { openEngine } from '../engine/devices.ts';
import { createRandom } from '../random.ts';
import { planRecipe } from '../train/plan-recipe.ts';
import type { Recipe } from '../train/recipe.ts';
import { deviceOf } from '../train/run.ts';
import { nextJob, rungsOf, type SearchPlan, type Trial } from './proposals.ts';
import { planOf, type SearchRunOptions } from './search-run.ts';
import { valuesAt } from './space.ts';
import { checkSpace, trialRecipe } from './trial-recipe.ts';

export interface VariantForecast {
  name: string;
  /** Trials by their share of the whole schedule. Under ASHA how many go on depends on their values. */
  trials: { share: number; count: number }[];
  confirmations: number;
  /** Of a trial in the middle of the space, without its scoring. */
  secondsPerSchedule: number;
  /** Of each stage. */
  steps: number[];
}

export interface SearchForecast {
  variants: VariantForecast[];
  runs: number;
  wholeSchedules: number;
  seconds: number;
}

/** UserError where the file, the recipe or a value of the space is wrong. */
export async function planSearch(options: SearchRunOptions): Promise<SearchForecast> {
  const { search, base, file } = options;
  const plan = planOf(search, file);
  checkSpace(base, search, search.variants, plan.space);
  const confirmations = search.confirm.seeds * (search.confirm.base ? 2 : 1);
  const trials = jobsOf(plan);
  const schedules = trials.reduce((sum, { share, count }) => sum + share * count, 0) + confirmations;
  const middle = valuesAt(
    plan.space,
    plan.space.map(() => 0.5),
  );
  const variants: VariantForecast[] = [];
  for (const { name, set } of search.variants) {
    const recipe = trialRecipe(base, search, { set, values: middle, share: 1 });
    const { seconds, steps } = await scheduleOf(recipe, options);
    variants.push({ name, trials, confirmations, secondsPerSchedule: seconds, steps });
  }
  const runs = trials.reduce((sum, { count }) => sum + count, 0) + confirmations;
  return {
    variants,
    runs: runs * variants.length,
    wholeSchedules: schedules * variants.length,
    seconds: variants.reduce((sum, { secondsPerSchedule }) => sum + schedules * secondsPerSchedule, 0),
  };
}

/** How many trials of each rung there are where values are as chance has them. */
function jobsOf(plan: SearchPlan): { share: number; count: number }[] {
  const random = createRandom(plan.seed, 'forecast');
  const trials: Trial[] = [];
  // what is proposed does not matter
  for (let job = nextJob([], { ...plan, sampler: 'random' }); job; job = nextJob(trials, { ...plan, sampler: 'random' })) {
    // a configuration that was good stays good
    const before = trials.find(({ index }) => index === job!.configuration)?.outcome;
    trials.push({ ...job, outcome: before ?? { status: 'finished', value: random.uniform() } });
  }
  return Array.from({ length: rungsOf(plan) }, (_, rung) => {
    const ofRung = trials.filter((trial) => trial.rung === rung);
    return { share: ofRung[0]?.share ?? 0, count: ofRung.length };
  });
}

async function scheduleOf(recipe: Recipe, options: SearchRunOptions): Promise<{ seconds: number; steps: number[] }> {
  const { out, status, signal, scenesAreDrawn } = options;
  const { plan } = await planRecipe(recipe, { out, status, signal, scenesAreDrawn, timedOn: () => openEngine(deviceOf(recipe)) });
  const { stages } = plan;
  return { seconds: stages.reduce((sum, { seconds }) => sum + (seconds?.total ?? 0), 0), steps: stages.map((stage) => stage.steps) };
}
