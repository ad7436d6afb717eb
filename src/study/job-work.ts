// The work of one piece of a study (job.ts): features of a frozen encoder, stages, or a run with what is
// measured of it.

import { existsSync, readdirSync } from 'node:fs';
import { openEngine } from '../engine/devices.ts';
import { alone } from '../mpi/communicator.ts';
import { runFolder } from '../runs/folder.ts';
import type { ChildContext } from '../train/child-side.ts';
import { startSourceThread } from '../train/prefetch.ts';
import { createTask, deviceOf, train } from '../train/run.ts';
import type { Job } from './job.ts';
import { type MeasureTimes, measureRun } from './measures.ts';

/** Computes the features that stages read: they stay in the cache for the runs. */
async function encode({ recipe, threads, out }: Job, context: ChildContext): Promise<void> {
  const thread = startSourceThread();
  try {
    const engine = await openEngine(deviceOf(recipe), { threads });
    const task = await createTask(recipe, { ...context, engine, thread, out, communicator: alone, scenesAreDrawn: true });
    for (const index of recipe.stages.keys()) await (await task.prepareStage(index)).dispose();
  } finally {
    await thread.close();
  }
}

async function trainAndMeasure({ kind, recipe, title, out, threads, measures }: Job, context: ChildContext): Promise<MeasureTimes> {
  const folder = runFolder(out);
  const engine = await openEngine(deviceOf(recipe), { threads });
  // both are written at the very end
  const isTrained = existsSync(folder.summary) && existsSync(folder.report);
  const isBegun = existsSync(folder.recipe);
  const mode = isBegun ? 'resume' : existsSync(out) && readdirSync(out).length > 0 ? 'overwrite' : 'new';
  if (!isTrained) await train({ ...context, recipe, title, out, mode, engine, scenesAreDrawn: true });
  return kind === 'run' && measures ? measureRun({ recipe, folder, engine, signal: context.signal, ...measures }) : {};
}

/** Does it, or goes on with it. Returns how long what is measured has taken. */
export async function doWork(job: Job, context: ChildContext): Promise<MeasureTimes> {
  if (job.kind !== 'features') return trainAndMeasure(job, context);
  await encode(job, context);
  return {};
}
