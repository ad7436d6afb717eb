// A run: recipe to run folder. Stages are trained one after the other, each saved as a Hugging Face folder
// with the optimizer's state; a run that is killed goes on from its last checkpoint as if it had never
// stopped.

import { writeFileSync } from 'node:fs';
import { onDisk } from '../disk.ts';
import type { Engine } from '../engine/engine.ts';
import { createOrtEngine } from '../engine/ort.ts';
import type { Scores } from '../evaluate/samples.ts';
import { checkRunFolder, openRunFolder, type RunMode, type RunSummary, writeSummary } from '../runs/folder.ts';
import { lockRunFolder, type RunLock } from '../runs/lock.ts';
import { openLog } from '../runs/log.ts';
import { truncateMetrics } from '../runs/metrics.ts';
import { createStatus, peakRssMb, type Status } from '../runs/status.ts';
import { checkOutside, checkUnchanged, fingerprintsOf } from './fingerprints.ts';
import { startSourceThread } from './prefetch.ts';
import { checkRates } from './rates.ts';
import { type Recipe, recipeToYaml } from './recipe.ts';
import { restoreRun } from './run-checkpoints.ts';
import { runStage } from './run-stage.ts';
import type { Task, TaskContext } from './task.ts';

export interface TrainOptions {
  recipe: Recipe;
  /** Name of the run in its report. */
  title: string;
  /** The run folder, and what to do when it holds a run: see `openRunFolder`. */
  out: string;
  mode: RunMode;
  /** Aborted at Ctrl-C and the like: the step is finished, a checkpoint saved and `signal.reason` thrown. */
  signal: AbortSignal;
  /** Default: ONNX Runtime. */
  engine?: Engine;
  /** Who is told what goes on. Default: a line on stderr. */
  status?: Status;
  /** When the command began, by performance.now(); counts into wallSeconds. */
  startedAt?: number;
}

/** A recipe's task. UserError for what is wrong with its models, its data or the rates of its stages. */
export async function createTask(recipe: Recipe, context: TaskContext): Promise<Task> {
  const task = await taskOf(recipe, context);
  checkRates(task);
  return task;
}

/** A task's module is loaded only when a recipe asks for it. */
async function taskOf(recipe: Recipe, context: TaskContext): Promise<Task> {
  if (recipe.task === 'contrastive') return (await import('./tasks/contrastive.ts')).contrastiveTask(recipe, context);
  if (recipe.task === 'language-model') return (await import('./tasks/language-model.ts')).languageModelTask(recipe, context);
  return (await import('./tasks/llava.ts')).llavaTask(recipe, context);
}

/** Runs a recipe to its end and returns its summary; the run folder holds everything else. */
export async function train(options: TrainOptions): Promise<RunSummary> {
  const { out, mode, status = createStatus() } = options;
  try {
    checkRunFolder(out, mode);
    const lock = await lockRunFolder(out, { note: status.note });
    try {
      return await trainLocked({ ...options, status, startedAt: options.startedAt ?? performance.now() }, lock);
    } finally {
      await lock.release();
    }
  } finally {
    status.close();
  }
}

type StartedOptions = TrainOptions & Required<Pick<TrainOptions, 'status' | 'startedAt'>>;

async function trainLocked(options: StartedOptions, lock: RunLock): Promise<RunSummary> {
  const { recipe, out, mode, signal, status, startedAt, engine = createOrtEngine() } = options;
  const thread = startSourceThread();
  try {
    // models and data are read first: what is wrong with them costs nobody an earlier run
    const task = await createTask(recipe, { engine, status, thread, out, signal });
    if (mode === 'overwrite') checkOutside(out, recipe, task);
    const inputs = await fingerprintsOf(recipe, task);
    const folder = openRunFolder(out, mode);
    if (mode !== 'resume') onDisk(folder.recipe, () => writeFileSync(folder.recipe, recipeToYaml(recipe)));
    const resumed = await restoreRun(task, folder);
    checkUnchanged(resumed, inputs, status.note);
    const past = truncateMetrics(folder.metrics, {
      finishedStages: resumed.finished.map(({ name }) => name),
      stage: resumed.state?.stage ?? '',
      step: resumed.state?.step ?? 0,
    });
    const log = openLog(folder, past, lock);
    const stages = [...resumed.finished];
    for (let index = stages.length; index < task.stages.length; index++)
      stages.push(
        await runStage(task, index, {
          engine,
          folder,
          lock,
          log,
          status,
          signal,
          inputs,
          resumed: index === resumed.finished.length ? resumed : undefined,
        }),
      );
    // its memory is free for the scoring
    await thread.close();
    signal.throwIfAborted();
    let scores: Scores = {};
    if (task.evaluate) {
      status.note('evaluating');
      const began = performance.now();
      scores = await task.evaluate();
      log.write({
        type: 'evaluation',
        stage: stages.at(-1)?.name ?? '',
        step: stages.at(-1)?.steps ?? 0,
        seconds: (performance.now() - began) / 1000,
        scores,
      });
    }
    const earlier = past.length > 0 ? resumed.finished.reduce((sum, { seconds }) => sum + seconds, 0) + (resumed.state?.seconds ?? 0) : 0;
    const summary: RunSummary = { wallSeconds: (performance.now() - startedAt) / 1000 + earlier, peakRssMb: peakRssMb(), stages, scores };
    writeSummary(folder, summary);
    const { writeReport } = await import('../runs/report.ts');
    writeReport(folder.report, {
      title: options.title,
      recipe: recipeToYaml(recipe),
      metrics: log.events,
      summary,
      gallery: (await task.gallery?.()) ?? [],
    });
    log.close();
    return summary;
  } finally {
    await thread.close();
  }
}
