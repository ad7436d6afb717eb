// The process of one piece of a study (job.ts): features of a frozen encoder, stages, or a run with what is
// measured of it.

import { existsSync, readdirSync } from 'node:fs';
import { openEngine } from '../engine/devices.ts';
import { UserError } from '../errors.ts';
import { alone } from '../mpi/communicator.ts';
import { runFolder } from '../runs/folder.ts';
import { readMetrics } from '../runs/metrics.ts';
import { peakRssMb, type Status } from '../runs/status.ts';
import { NotFiniteError } from '../train/optimizer.ts';
import { startSourceThread } from '../train/prefetch.ts';
import { createTask, train } from '../train/run.ts';
import type { Job, Outcome, ToChild, ToParent } from './job.ts';
import { measureRun } from './measures.ts';

/** Between two messages about steps. */
const TELL_MILLISECONDS = 500;

const send = (message: ToParent): Promise<void> =>
  new Promise((resolve) => {
    if (!process.connected) return resolve();
    process.send!(message, undefined, undefined, () => resolve());
  });

function statusToParent(): Status {
  let toldAt = Number.NEGATIVE_INFINITY;
  return {
    update({ stage, step, totalSteps }) {
      if (step < totalSteps && performance.now() - toldAt < TELL_MILLISECONDS) return;
      toldAt = performance.now();
      void send({ type: 'step', stage, step, totalSteps });
    },
    progress: (text) => void send({ type: 'note', text }),
    note: (text) => void send({ type: 'note', text }),
    close() {},
  };
}

class Stopped extends Error {}

/** Computes the features that stages read: they stay in the cache for the runs. */
async function encode({ recipe, threads, out }: Job, signal: AbortSignal): Promise<void> {
  const thread = startSourceThread();
  try {
    const context = {
      engine: await openEngine(recipe.device, { threads }),
      status: statusToParent(),
      thread,
      out,
      signal,
      communicator: alone,
    };
    const task = await createTask(recipe, { ...context, scenesAreDrawn: true });
    for (const index of recipe.stages.keys()) await (await task.prepareStage(index)).dispose();
  } finally {
    await thread.close();
  }
}

async function trainAndMeasure({ kind, recipe, title, out, threads, measures }: Job, signal: AbortSignal): Promise<void> {
  const folder = runFolder(out);
  const engine = await openEngine(recipe.device, { threads });
  // both are written at the very end
  const isTrained = existsSync(folder.summary) && existsSync(folder.report);
  const isBegun = existsSync(folder.recipe);
  const mode = isBegun ? 'resume' : existsSync(out) && readdirSync(out).length > 0 ? 'overwrite' : 'new';
  if (!isTrained) await train({ recipe, title, out, mode, signal, engine, status: statusToParent(), scenesAreDrawn: true });
  if (kind === 'run' && measures)
    await measureRun({ recipe, model: folder.checkpoint(recipe.stages.at(-1)!.name), engine, signal, ...measures });
}

async function outcomeOf(job: Job, signal: AbortSignal): Promise<Outcome> {
  const began = performance.now();
  const used = () => {
    const { userCPUTime, systemCPUTime } = process.resourceUsage();
    return { seconds: (performance.now() - began) / 1000, cpuSeconds: (userCPUTime + systemCPUTime) / 1e6, peakRssMb: peakRssMb() };
  };
  try {
    await (job.kind === 'features' ? encode(job, signal) : trainAndMeasure(job, signal));
    return { kind: 'finished', ...used() };
  } catch (error) {
    if (error instanceof Stopped) return { kind: 'stopped' };
    if (error instanceof NotFiniteError) {
      const event = readMetrics(runFolder(job.out).metrics).findLast((each) => each.type === 'warning' && each.sign === 'not-finite');
      return { kind: 'diverged', stage: event?.stage ?? job.recipe.stages[0].name, step: event?.step ?? 0, ...used() };
    }
    const { message, stack } = error as Error;
    return { kind: 'failed', message: error instanceof UserError ? message : (stack ?? message) };
  }
}

const controller = new AbortController();
for (const name of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(name, () => {});
// whoever started it is gone: the run goes on from its last checkpoint another time
process.once('disconnect', () => process.exit(1));
process.on('message', (message: ToChild) => {
  if (message.type === 'stop') return controller.abort(new Stopped());
  void outcomeOf(message.job, controller.signal).then(async (outcome) => {
    await send({ type: 'end', outcome });
    process.exit(0);
  });
});
