// A search out of a file into a folder: trials as runs of the trainer, the winner again on fresh seeds, the
// report. Killed at any point it goes on from what is in the folder, to the same search.json.

import { mapConcurrently } from '../concurrent.ts';
import { UserError } from '../errors.ts';
import { lockFolder } from '../folder-lock.ts';
import type { Status } from '../runs/status.ts';
import { planRecipe } from '../train/plan-recipe.ts';
import { flopsOf } from './compute.ts';
import { type Outcome, rankTrials, type SearchPlan } from './proposals.ts';
import { type FinishedTrial, type Job, runSearch, type SearchResult } from './search.ts';
import { appendTrial, prepareSearchFolder, readTrials, type SearchFolder } from './search-folder.ts';
import { type Confirmation, resultOf, type SearchReport, writeSearchReport } from './search-report.ts';
import type { SearchFile } from './search-schema.ts';
import { searchSpace } from './space.ts';
import { type BaseRecipe, checkSpace, type TrialSettings, trialRecipe } from './trial-recipe.ts';
import { forgetWeights, runTrial } from './trial-run.ts';

export interface SearchRunOptions {
  search: SearchFile;
  base: BaseRecipe;
  /** Name of the file, for messages. */
  file: string;
  out: string;
  status: Status;
  signal: AbortSignal;
  /** Cores that trials share. */
  cores: number;
  /** Threads of a trial; its share of the cores when left out, and all where there is one at a time. */
  threads?: number;
  /** Whether the scenes are there as they should be. */
  scenesAreDrawn?: boolean;
}

type Variant = SearchFile['variants'][number];

/** What `runSearch` needs to know of a file. UserError, beginning with `file`, for a space that is none. */
export function planOf(search: SearchFile, file: string): SearchPlan {
  const { sampler, start, seed, budget, asha, objective } = search;
  if (start !== undefined && sampler !== 'tpe') throw new UserError(`${file}: start is that of tpe, and sampler is ${sampler}`);
  if (asha && budget.trials < 2) throw new UserError(`${file}: budget.trials: asha compares trials, and needs at least 2`);
  return { space: searchSpace(search.space, file), sampler, start, seed, trials: budget.trials, asha, lowest: 'held_out' in objective };
}

/** Searches every variant, confirms its winner and writes the report, which it returns. */
export async function searchToFolder(options: SearchRunOptions): Promise<SearchReport> {
  const { search, base, file, out, status } = options;
  const plan = planOf(search, file);
  checkSpace(base, search, search.variants, plan.space);
  const lock = await lockFolder(out, { note: status.note });
  try {
    const folder = prepareSearchFolder(out, search, base);
    const results: SearchReport['variants'] = [];
    for (const variant of search.variants) {
      const sitting = sittingOf(options, folder, variant);
      const result = await searchVariant(sitting, plan);
      const confirmations = await confirm(sitting, result);
      results.push({ ...resultOf(variant.name, plan, result, confirmations), flops: await computeOf(options, variant) });
    }
    const report: SearchReport = {
      format: 1,
      name: search.name,
      objective: search.objective,
      budget: search.budget,
      sampler: search.sampler,
      ...(search.start === undefined ? {} : { start: search.start }),
      asha: search.asha ?? null,
      seed: search.seed,
      lowest: plan.lowest,
      variants: results,
    };
    lock.check();
    writeSearchReport(folder, report);
    return report;
  } finally {
    await lock.release();
  }
}

/** Operations of a whole schedule of the variant. */
async function computeOf(options: SearchRunOptions, { set }: Variant): Promise<number> {
  const { search, base, out, status, signal, scenesAreDrawn } = options;
  const recipe = trialRecipe(base, search, { set, values: {}, share: 1 });
  return flopsOf((await planRecipe(recipe, { out, status, signal, scenesAreDrawn })).plan);
}

interface Sitting {
  options: SearchRunOptions;
  folder: SearchFolder;
  variant: Variant;
  /** Runs one trial or confirmation and judges it; values that make no recipe have failed. */
  run(title: string, out: string, settings: Omit<TrialSettings, 'set'>, signal: AbortSignal): Promise<Outcome>;
}

/** A variant in this sitting. */
function sittingOf(options: SearchRunOptions, folder: SearchFolder, variant: Variant): Sitting {
  const { search, base, status, cores, scenesAreDrawn } = options;
  const threads = options.threads ?? (search.at_once > 1 ? Math.max(1, Math.floor(cores / search.at_once)) : undefined);
  /** Runs under way and how far they are. */
  const lines = new Map<string, string>();
  const recipeOrReason = (settings: TrialSettings) => {
    try {
      return trialRecipe(base, search, settings);
    } catch (error) {
      if (error instanceof UserError) return error.message;
      throw error;
    }
  };
  return {
    options,
    folder,
    variant,
    async run(title, out, settings, signal) {
      const recipe = recipeOrReason({ ...settings, set: variant.set });
      if (typeof recipe === 'string') return { status: 'failed', reason: recipe };
      const onProgress = (line: string) => {
        lines.set(title, line);
        status.progress([...lines].map(([name, text]) => `${name}: ${text}`).join('   '));
      };
      try {
        return await runTrial({ recipe, title, out, threads, scenesAreDrawn }, search.objective, { signal, onProgress });
      } finally {
        lines.delete(title);
      }
    },
  };
}

async function searchVariant(sitting: Sitting, plan: SearchPlan): Promise<SearchResult> {
  const { options, folder, variant } = sitting;
  const { search, status, signal } = options;
  const path = folder.trials(variant.name);
  const recorded = readTrials(path);
  const done: FinishedTrial[] = [...recorded];
  if (recorded.length > 0) status.note(`${variant.name}: ${recorded.length} trials were finished before`);
  return runSearch({
    ...plan,
    atOnce: search.at_once,
    recorded,
    signal,
    evaluate: ({ index, values, share }: Job, either) =>
      sitting.run(`${variant.name} trial ${index}`, folder.trial(variant.name, index), { values, share }, either),
    onTrial(trial) {
      appendTrial(path, trial);
      done.push(trial);
      if (search.keep === 'winner') forgetWeights(folder.trial(variant.name, trial.index));
      status.note(trialLine(variant.name, trial, done, plan));
    },
  });
}

function trialLine(variant: string, trial: FinishedTrial, done: readonly FinishedTrial[], plan: SearchPlan): string {
  const { index, outcome, values, rung, share } = trial;
  const [best] = rankTrials(
    done.filter((other) => other.rung === rung),
    plan,
  );
  const of = share < 1 ? ` of ${(100 * share).toFixed(1)} % of the schedule` : '';
  const what = outcome.status === 'finished' ? shown(outcome.value) : `${outcome.status} (${outcome.reason})`;
  const lead = best?.outcome.status === 'finished' ? `, best ${shown(best.outcome.value)} (trial ${best.index})` : '';
  const words = Object.entries(values).map(([path, value]) => `${path}=${JSON.stringify(value)}`);
  return `${variant}: trial ${index}${of}: ${what}${lead}: ${words.join(' ')}`;
}

const shown = (value: number) => value.toFixed(4);

/** The winner, and the recipe as it was, on seeds that had no part in the choice. */
async function confirm(sitting: Sitting, { winner }: SearchResult): Promise<Confirmation[]> {
  const { options, folder, variant } = sitting;
  const { search, base, signal, status } = options;
  if (!winner || search.confirm.seeds === 0) return [];
  const { seed: first } = trialRecipe(base, search, { set: variant.set, values: winner.values, share: 1 });
  const seeds = Array.from({ length: search.confirm.seeds }, (_, i) => first + 1 + i);
  const kinds = search.confirm.base ? (['winner', 'base'] as const) : (['winner'] as const);
  const jobs = seeds.flatMap((seed) => kinds.map((of) => ({ of, seed })));
  return mapConcurrently(jobs, search.at_once, async ({ of, seed }) => {
    const values = of === 'winner' ? winner.values : {};
    const outcome = await sitting.run(
      `${of} seed ${seed}`,
      folder.confirmation(variant.name, of, seed),
      { values, share: 1, seed },
      signal,
    );
    status.note(`${variant.name}: ${of} with seed ${seed}: ${outcome.status === 'finished' ? shown(outcome.value) : outcome.status}`);
    return { of, seed, outcome };
  });
}
