// A run: recipe to run folder. Stages are trained one after the other, each saved as a Hugging Face folder
// with the optimizer's state; a run that is killed goes on from its last checkpoint as if it had never
// stopped.

import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { existingFolder, onDisk } from '../disk.ts';
import { openEngine } from '../engine/devices.ts';
import type { DeviceName, Engine } from '../engine/engine.ts';
import { UserError } from '../errors.ts';
import type { Scores } from '../evaluate/samples.ts';
import { type FolderLock, lockFolder, noLock } from '../folder-lock.ts';
import { memoryBytes } from '../memory.ts';
import { alone, type Communicator } from '../mpi/communicator.ts';
import {
  checkRunFolder,
  openRunFolder,
  type RunMode,
  type RunSummary,
  runFolder,
  type StageSummary,
  writeSummary,
} from '../runs/folder.ts';
import { type Log, openLog, silentLog } from '../runs/log.ts';
import { truncateMetrics } from '../runs/metrics.ts';
import { createStatus, peakRssMb, type Status, silentStatus } from '../runs/status.ts';
import { checkOutside, checkUnchanged, fingerprintsOf } from './fingerprints.ts';
import { checkMemory } from './memory-check.ts';
import { startSourceThread } from './prefetch.ts';
import { bindingNote, checkShares, requireSame, requireShared, threadsOf } from './processes.ts';
import { checkRates } from './rates.ts';
import { type Recipe, recipeToYaml } from './recipe.ts';
import { recoverRun, restoreRun } from './run-checkpoints.ts';
import { runStage } from './run-stage.ts';
import { holdingScenes } from './scenes.ts';
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
  /** Default: that of `device`. */
  engine?: Engine;
  /** What the run runs on. Default: what the recipe says, else cpu. */
  device?: DeviceName;
  /** Who is told what goes on. Default: a line on stderr. */
  status?: Status;
  /** The processes that train together, of which the first writes and reports. Default: this one alone. */
  communicator?: Communicator;
  /** Whether each of them keeps a share of the optimizer's moments, instead of all. */
  shardMoments?: boolean;
  /** Whether generated data are in their folder, as the recipe asks for them, and need not be drawn again. */
  scenesAreDrawn?: boolean;
  /** Whether a large model's plan is looked at first (memory-check.ts). Default: true. */
  memoryCheck?: boolean;
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
  if (recipe.task === 'instance-discrimination')
    return (await import('./tasks/instance-discrimination.ts')).instanceDiscriminationTask(recipe, context);
  return (await import('./tasks/llava.ts')).llavaTask(recipe, context);
}

/**
 * Runs a recipe to its end and returns its summary; the run folder holds everything else. UserErrors that one
 * process among several throws are its own: whoever called it ends the others.
 */
export async function train(options: TrainOptions): Promise<RunSummary> {
  const { out, mode, recipe, communicator = alone, startedAt = performance.now() } = options;
  const isFirst = communicator.rank === 0;
  const status = isFirst ? (options.status ?? createStatus()) : silentStatus;
  try {
    checkShares(recipe, communicator.size);
    if (isFirst) checkRunFolder(out, mode);
    const lock = isFirst ? await lockFolder(out, { note: status.note }) : noLock;
    try {
      const run = () => trainLocked({ ...options, communicator, status, startedAt }, lock);
      return isFirst && !options.scenesAreDrawn ? await holdingScenes(recipe, { note: status.note }, run) : await run();
    } finally {
      await lock.release();
    }
  } finally {
    status.close();
  }
}

type StartedOptions = TrainOptions & Required<Pick<TrainOptions, 'communicator' | 'status' | 'startedAt'>>;

/** The engine of the run; that of one of several processes shares the cores of their host. */
async function sharedEngine({ communicator, status, recipe, device: asked = recipe.device }: StartedOptions): Promise<Engine> {
  const device = deviceOf(recipe, asked);
  if (communicator.size === 1) return noted(await openEngine(device), device, asked, status);
  const threads = threadsOf(communicator);
  status.note(`${communicator.size} processes, ${communicator.localSize} on this host with ${threads} threads each`);
  const note = bindingNote(communicator);
  if (note) status.note(note);
  return noted(await openEngine(device, { threads }), device, asked, status);
}

/** The engine, named where the device leaves it open. */
function noted(engine: Engine, device: DeviceName | undefined, asked: DeviceName | undefined, status: Status): Engine {
  const why = device === 'cpu' ? 'optim adamw_8bit is for it alone' : 'there is no WebGPU adapter, or but one in software';
  if (asked === 'auto') status.note(`device auto: ${engine.name === 'ort-webgpu' ? 'webgpu' : `cpu, for ${why}`}`);
  return engine;
}

/** The device that a recipe is trained on: `auto` is the CPU where only that can do what the recipe says. */
export function deviceOf({ stages, device: named }: Recipe, device = named): DeviceName | undefined {
  return device === 'auto' && stages.some(({ optim }) => optim === 'adamw_8bit') ? 'cpu' : device;
}

/** UserError for moments in 8 bits on WebGPU: as a graph, their update takes 1 kB for each number. */
function checkOptimizers({ stages }: Recipe, engine: Engine): void {
  const stage = engine.name === 'ort-webgpu' ? stages.find(({ optim }) => optim === 'adamw_8bit') : undefined;
  if (stage) throw new UserError(`stage ${stage.name}: optim adamw_8bit is for device cpu; on webgpu take adamw_torch`);
}

async function trainLocked(options: StartedOptions, lock: FolderLock): Promise<RunSummary> {
  const { recipe, out, mode, signal, status, startedAt, communicator, shardMoments = false, scenesAreDrawn, memoryCheck = true } = options;
  const engine = options.engine ?? (await sharedEngine(options));
  checkOptimizers(recipe, engine);
  const isFirst = communicator.rank === 0;
  const thread = startSourceThread();
  try {
    // models and data are read first: what is wrong with them costs nobody an earlier run
    const task = await createTask(recipe, { engine, status, thread, out, signal, communicator, scenesAreDrawn });
    if (isFirst && memoryCheck)
      await checkMemory(task, { folder: existingFolder(out), available: memoryBytes() / communicator.localSize, note: status.note });
    if (isFirst && mode === 'overwrite') checkOutside(out, recipe, task);
    const inputs = await fingerprintsOf(recipe, task);
    await requireSame(communicator, [{ name: 'the recipe', content: recipeToYaml(recipe) }, ...Object.values(inputs).flat()]);
    const folder = runFolder(out);
    await communicator.lead(async () => {
      openRunFolder(out, mode);
      if (mode !== 'resume') onDisk(folder.recipe, () => writeFileSync(folder.recipe, recipeToYaml(recipe)));
      await recoverRun(task, folder);
    });
    await requireShared(communicator, join(out, 'checkpoints'));
    const resumed = await restoreRun(task, folder);
    checkUnchanged(resumed, inputs, status.note);
    const past = isFirst
      ? truncateMetrics(folder.metrics, {
          finishedStages: resumed.finished.map(({ name }) => name),
          stage: resumed.state?.stage ?? '',
          step: resumed.state?.step ?? 0,
        })
      : [];
    const log = isFirst ? openLog(folder, past, lock) : silentLog;
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
          communicator,
          shardMoments,
          inputs,
          resumed: index === resumed.finished.length ? resumed : undefined,
        }),
      );
    // its memory is free for the scoring
    await thread.close();
    signal.throwIfAborted();
    const summary: RunSummary = { wallSeconds: 0, peakRssMb: 0, stages, scores: {} };
    await communicator.lead(async () => {
      summary.scores = await evaluate(task, stages, { status, log });
      // of a run that was resumed, with the time before
      const earlier = past.length > 0 ? resumed.finished.reduce((sum, { seconds }) => sum + seconds, 0) + (resumed.state?.seconds ?? 0) : 0;
      summary.wallSeconds = (performance.now() - startedAt) / 1000 + earlier;
      summary.peakRssMb = peakRssMb();
      writeSummary(folder, summary);
      const { writeReport } = await import('../runs/report.ts');
      const gallery = (await task.gallery?.()) ?? [];
      writeReport(folder.report, { title: options.title, recipe: recipeToYaml(recipe), metrics: log.events, summary, gallery });
    });
    log.close();
    return summary;
  } finally {
    await thread.close();
  }
}

/** Scores of the finished model, where the recipe asks for them. */
async function evaluate(task: Task, stages: readonly StageSummary[], { status, log }: { status: Status; log: Log }): Promise<Scores> {
  if (!task.evaluate) return {};
  status.note('evaluating');
  const began = performance.now();
  const scores = await task.evaluate();
  const { name: stage = '', steps: step = 0 } = stages.at(-1) ?? {};
  log.write({ type: 'evaluation', stage, step, seconds: (performance.now() - began) / 1000, scores });
  return scores;
}
