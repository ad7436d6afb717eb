// What a study has done in processes of their own, one for each piece, and what became of it.

import { UserError } from '../errors.ts';
import { runFolder } from '../runs/folder.ts';
import { readMetrics } from '../runs/metrics.ts';
import { type ChildEnd, type ChildOptions, errorOf, MachineError, type Usage, workInChild } from '../train/child.ts';
import { NotFiniteError } from '../train/optimizer.ts';
import type { LlavaRecipe } from '../train/recipe.ts';
import type { MeasuresAsked, MeasureTimes } from './measures.ts';

export interface Job {
  kind: 'features' | 'stages' | 'run';
  recipe: LlavaRecipe;
  title: string;
  /** Of the run. */
  out: string;
  threads: number;
  /** Of a run: what is measured once it is trained, and where that goes. */
  measures?: MeasuresAsked & { out: string };
}

export type Outcome =
  | ({ kind: 'finished'; measured: MeasureTimes } & Usage)
  | ({ kind: 'diverged'; stage: string; step: number } & Usage)
  /** What is wrong with recipe, data or machine; of what nobody foresaw, the stack. */
  | { kind: 'failed'; message: string }
  | { kind: 'stopped' };

/** Node 20 runs no TypeScript: tests start the process that was built from it. */
const processFile = import.meta.url.endsWith('.ts')
  ? new URL('../../dist/study/job-process.js', import.meta.url)
  : new URL('./job-process.js', import.meta.url);

/** Has a job done. Throws the signal's reason. */
export type Worker = (job: Job, options: ChildOptions) => Promise<ChildEnd<MeasureTimes>>;

const inChild: Worker = (job, options) => workInChild(processFile, 'its process', job, options);

/** Does a job, in a process of its own. It never rejects: what goes wrong is an outcome. */
export async function doJob(job: Job, options: ChildOptions, worker = inChild): Promise<Outcome> {
  try {
    const end = await worker(job, options);
    if (!('error' in end)) return { kind: 'finished', measured: end.result, ...end.usage };
    const error = errorOf(end.error);
    if (!(error instanceof NotFiniteError)) return failed(error);
    const event = readMetrics(runFolder(job.out).metrics).findLast((each) => each.type === 'warning' && each.sign === 'not-finite');
    return { kind: 'diverged', stage: event?.stage ?? job.recipe.stages[0].name, step: event?.step ?? 0, ...end.usage };
  } catch (error) {
    return options.signal.aborted && error === options.signal.reason ? { kind: 'stopped' } : failed(error as Error);
  }
}

const failed = (error: Error): Outcome => ({
  kind: 'failed',
  message: error instanceof UserError || error instanceof MachineError ? error.message : (error.stack ?? error.message),
});
