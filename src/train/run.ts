// A run: recipe to run folder. Stages are trained one after the other, each saved as a Hugging Face folder
// with the optimizer's state; a run that is killed goes on from its last checkpoint as if it had never
// stopped.

import { existsSync, writeFileSync } from 'node:fs';
import { type Checkpoint, openCheckpoint, readJsonFile, recoverCheckpoint, saveCheckpoint } from '../checkpoint/checkpoint.ts';
import { onDisk } from '../disk.ts';
import { type Engine, float32, type State, type Value } from '../engine/engine.ts';
import { createOrtEngine } from '../engine/ort.ts';
import { UserError } from '../errors.ts';
import type { Scores } from '../evaluate/samples.ts';
import { isOfAdapter } from '../nn/lora.ts';
import { constantSource } from '../pretrained/stored.ts';
import {
  checkRunFolder,
  openRunFolder,
  type RunFolder,
  type RunMode,
  type RunSummary,
  type StageSummary,
  writeSummary,
} from '../runs/folder.ts';
import { lockRunFolder, type RunLock } from '../runs/lock.ts';
import { type MetricEvent, type NewMetricEvent, openMetrics, truncateMetrics } from '../runs/metrics.ts';
import { createStatus, peakRssMb, type Status } from '../runs/status.ts';
import { openTensorboard } from '../runs/tensorboard.ts';
import { openSafetensors, type TensorSource } from '../weights/safetensors.ts';
import { addAdapters, type StageAdapters } from './adapters.ts';
import { checkOutside, checkUnchanged, type Fingerprints, fingerprintsOf } from './fingerprints.ts';
import { startSourceThread } from './prefetch.ts';
import { type Recipe, recipeToYaml } from './recipe.ts';
import { endAdapters, savedAdapters, savedModel, withTrained } from './saved.ts';
import { warmupStepsOf } from './schedule.ts';
import { type StepReport, trainStage } from './stage.ts';
import type { PreparedStage, Task, TaskContext } from './task.ts';
import { whatTrains } from './what-trains.ts';

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

/** trainer_state.json of a checkpoint. */
interface TrainerState {
  stage: string;
  step: number;
  totalSteps: number;
  /** Time spent in the stage, over all sittings. */
  seconds: number;
  firstLoss: number;
  lastLoss: number;
  /** Samples that were left out, of a stage that is finished, if there are any. */
  skipped?: number;
  /** What the stages read; runs of earlier versions have none. */
  inputs?: Fingerprints;
}

const STATE_FILE = 'trainer_state.json';
const OPTIMIZER_FILE = 'optimizer.safetensors';

/** A task's module is loaded only when a recipe asks for it. */
async function createTask(recipe: Recipe, context: TaskContext): Promise<Task> {
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
    const resumed = await restore(task, folder);
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

interface Log {
  events: MetricEvent[];
  write(event: NewMetricEvent): void;
  close(): void;
}

function openLog(folder: RunFolder, past: MetricEvent[], lock: RunLock): Log {
  const metrics = openMetrics(folder.metrics);
  const tensorboard = openTensorboard(folder.path, past);
  const events = [...past];
  return {
    events,
    write(event) {
      lock.check();
      const timed = metrics.write(event);
      tensorboard.write(timed);
      events.push(timed);
    },
    close() {
      metrics.close();
      tensorboard.close();
    },
  };
}

// === Checkpoints ===

async function save(
  task: Task,
  dir: string,
  state: TrainerState,
  moments: ReadonlyMap<string, State> | undefined,
  isTrained: (name: string) => boolean,
  adapters: StageAdapters | undefined,
): Promise<void> {
  const tensorFiles: Record<string, Map<string, TensorSource>> = {};
  if (moments) {
    const sources = new Map<string, TensorSource>();
    for (const [name, moment] of moments) sources.set(name, constantSource(await moment.read()));
    tensorFiles[OPTIMIZER_FILE] = sources;
  }
  const model = adapters && !isFinished(state) ? await savedAdapters(task, isTrained) : await savedModel(task, adapters);
  await saveCheckpoint(dir, {
    ...model,
    files: { ...model.files, [STATE_FILE]: `${JSON.stringify(state, null, 2)}\n` },
    tensorFiles: { ...model.tensorFiles, ...tensorFiles },
  });
}

const isFinished = ({ step, totalSteps }: TrainerState) => step >= totalSteps;

/** When a stage is saved before its end. `write` saves its present state. */
function checkpointsOf(
  state: Readonly<TrainerState>,
  { save_every: steps, save_every_minutes: minutes }: PreparedStage['settings'],
  write: (moments: ReadonlyMap<string, State> | undefined) => Promise<void>,
) {
  let savedStep = state.step;
  let savedAt = performance.now();
  let hasFailed = false;
  return {
    isDue: () => (steps > 0 && state.step % steps === 0) || (minutes > 0 && performance.now() - savedAt >= 60_000 * minutes),
    isSaved: () => state.step === savedStep,
    /** Whether the last attempt to save has failed. */
    hasFailed: () => hasFailed,
    async save(moments: ReadonlyMap<string, State> | undefined) {
      hasFailed = true;
      await write(moments);
      hasFailed = false;
      savedStep = state.step;
      savedAt = performance.now();
    },
  };
}

interface Resumed {
  finished: StageSummary[];
  /** The stage in progress. */
  state?: TrainerState;
  moments?: Map<string, Value>;
  /** What the stages read when the run was last saved. */
  inputs?: Fingerprints;
}

async function readState(path: string): Promise<TrainerState> {
  const state = (await readJsonFile(path)) as Partial<TrainerState> | null;
  if (typeof state?.step !== 'number' || typeof state.totalSteps !== 'number')
    throw new UserError(`${path}: does not say where its stage stands; move the folder away, and the stage begins anew`);
  return state as TrainerState;
}

/** Finds where a run stands, and loads what it has trained so far into the task. */
async function restore(task: Task, folder: RunFolder): Promise<Resumed> {
  const finished: StageSummary[] = [];
  const trained = new Set<string>();
  let inputs: Fingerprints | undefined;
  for (const [index, { name, train }] of task.stages.entries()) {
    const dir = folder.checkpoint(name);
    await recoverCheckpoint(dir);
    if (!existsSync(dir)) break;
    const adapters = task.adapters?.(index);
    if (adapters) addAdapters(task.weights, adapters);
    const state = await readState(`${dir}/${STATE_FILE}`);
    inputs = state.inputs;
    for (const module of train) trained.add(module);
    if (adapters && !isFinished(state)) {
      const isOfStage = (parameter: string) => isOfAdapter(parameter) || (train as string[]).includes(task.moduleOf(parameter));
      await restoreWeights(task, dir, undefined, isOfStage);
    } else
      await withSaved(dir, async (checkpoint) => {
        if (adapters) await endAdapters(task, adapters, checkpoint);
        await restoreWeights(task, dir, checkpoint, (parameter) => trained.has(task.moduleOf(parameter)));
      });
    if (!isFinished(state)) return { finished, inputs, state, moments: await readMoments(`${dir}/${OPTIMIZER_FILE}`) };
    const { seconds, step, firstLoss, lastLoss, skipped } = state;
    finished.push({ name, seconds, steps: step, firstLoss, lastLoss, ...(skipped ? { skipped } : {}) });
  }
  return { finished, inputs };
}

/** Loads the weights that `isWanted` names from what a run saved in `dir`. */
async function restoreWeights(
  { weights }: Task,
  dir: string,
  checkpoint: Checkpoint | undefined,
  isWanted: (name: string) => boolean,
): Promise<void> {
  await withTrained(dir, checkpoint, async ({ read }) => {
    for (const parameter of weights.parameters) if (isWanted(parameter.name)) await weights.restore(parameter.name, await read(parameter));
  });
}

async function withSaved(dir: string, body: (checkpoint: Checkpoint) => Promise<void>): Promise<void> {
  const checkpoint = await openCheckpoint(dir);
  try {
    await body(checkpoint);
  } finally {
    await checkpoint.close();
  }
}

/** The optimizer's state by name, float32. */
async function readMoments(path: string): Promise<Map<string, Value>> {
  const file = await openSafetensors(path);
  try {
    const moments = new Map<string, Value>();
    for (const name of file.names) {
      const { data, shape } = await file.read(name);
      moments.set(name, float32(new Float32Array(data.buffer, data.byteOffset, data.byteLength / 4), shape));
    }
    return moments;
  } finally {
    await file.close();
  }
}

// === One stage ===

/** The losses of a stage that were logged last, in words. */
function lastLosses(events: readonly MetricEvent[], stage: string): string {
  const losses = events.flatMap((event) => (event.type === 'step' && event.stage === stage ? [event.loss.toFixed(4)] : []));
  return losses.slice(-3).join(', ');
}

interface StageContext {
  engine: Engine;
  folder: RunFolder;
  lock: RunLock;
  log: Log;
  status: Status;
  signal: AbortSignal;
  inputs: Fingerprints;
  resumed?: Resumed;
}

async function runStage(task: Task, index: number, context: StageContext): Promise<StageSummary> {
  context.signal.throwIfAborted();
  const began = performance.now();
  const prepared = await task.prepareStage(index);
  try {
    return await trainPrepared(task, index, prepared, began, context);
  } finally {
    await prepared.dispose();
  }
}

async function trainPrepared(
  task: Task,
  index: number,
  prepared: PreparedStage,
  began: number,
  { engine, folder, lock, log, status, signal, inputs, resumed }: StageContext,
): Promise<StageSummary> {
  const { name, train: modules } = task.stages[index];
  const adapters = task.adapters?.(index);
  // where the stage is resumed, they are there
  if (adapters && !resumed?.state) addAdapters(task.weights, adapters);
  const isTrained = (parameter: string) => isOfAdapter(parameter) || (modules as readonly string[]).includes(task.moduleOf(parameter));
  const { settings, data, totalSteps } = prepared;
  const loss = prepared.loss(task.weights.storageOf(isTrained));
  const unknown = modules.find((module) => !loss.parameters.some((parameter) => task.moduleOf(parameter.name) === module));
  if (unknown) throw new UserError(`stage ${name}: nothing to train in ${unknown}`);
  const rates = settings.lr_by_module as Partial<Record<string, number>>;
  status.note(`stage ${name} trains ${whatTrains(task, loss, isTrained, (module) => rates[module] ?? settings.lr)}`);
  const dir = folder.checkpoint(name);
  const fresh = { stage: name, step: 0, totalSteps, seconds: 0, firstLoss: Number.NaN, lastLoss: Number.NaN };
  const state: TrainerState = { ...(resumed?.state ?? fresh), inputs };
  const secondsBefore = state.seconds;
  const checkpoints = checkpointsOf(state, settings, async (moments) => {
    lock.check();
    await save(task, dir, state, moments, isTrained, adapters);
  });
  const window = { loss: 0, steps: 0, tokens: 0, padding: 0, since: performance.now(), metrics: {} as Record<string, number> };

  const onStep = async (report: StepReport) => {
    state.step = report.step;
    state.seconds = secondsBefore + (performance.now() - began) / 1000;
    if (Number.isNaN(state.firstLoss)) state.firstLoss = report.loss;
    window.loss += report.loss;
    window.steps++;
    window.tokens += report.tokens;
    window.padding += report.padding;
    for (const [key, value] of Object.entries(report.metrics)) window.metrics[key] = (window.metrics[key] ?? 0) + value;
    const last = report.step === totalSteps;
    const logged = last || report.step % settings.log_every === 0;
    const tokensPerSecond = (window.tokens / (performance.now() - window.since)) * 1000;
    const learningRate = settings.lr * report.learningRateFactor;
    status.update(
      {
        stage: name,
        stageNumber: index + 1,
        stageCount: task.stages.length,
        step: report.step,
        totalSteps,
        loss: window.loss / window.steps,
        learningRate,
        tokensPerSecond,
      },
      logged,
    );
    if (logged) {
      state.lastLoss = window.loss / window.steps;
      const extra: Record<string, number> = Object.fromEntries(
        Object.entries(window.metrics).map(([key, value]) => [key, value / window.steps]),
      );
      if (window.padding > 0) extra.padding = window.padding / (window.tokens + window.padding);
      log.write({
        type: 'step',
        stage: name,
        step: report.step,
        epoch: report.step / data.stepsPerEpoch,
        loss: state.lastLoss,
        learningRate,
        gradNorm: report.gradNorm,
        tokensPerSecond,
        seconds: state.seconds,
        ...(Object.keys(extra).length > 0 ? { extra } : {}),
      });
      Object.assign(window, { loss: 0, steps: 0, tokens: 0, padding: 0, since: performance.now(), metrics: {} });
    }
    if (!last && checkpoints.isDue()) await checkpoints.save(report.moments);
    if (!last) signal.throwIfAborted();
  };

  const trained = new Map<string, State>();
  for (const parameter of loss.parameters)
    if (isTrained(parameter.name)) trained.set(parameter.name, await task.weights.trained(parameter.name));
  await trainStage({
    engine,
    loss,
    trained,
    constants: await task.weights.constants(loss, isTrained),
    learningRate: (parameter) => rates[task.moduleOf(parameter)] ?? settings.lr,
    schedule: {
      kind: settings.schedule,
      totalSteps,
      warmupSteps: settings.warmup_steps ?? warmupStepsOf(totalSteps, settings.warmup_ratio),
      floor: settings.min_lr_ratio,
      decaySteps: Math.round(totalSteps * settings.decay_ratio),
    },
    optimizer: { betas: settings.betas, eps: settings.eps, weightDecay: settings.weight_decay, maxGradNorm: settings.max_grad_norm },
    gradientCheckpointing: settings.gradient_checkpointing,
    data,
    start: resumed?.state ? { step: resumed.state.step, moments: resumed.moments! } : undefined,
    onStep,
    async onFailure(error, moments) {
      if (checkpoints.hasFailed()) return;
      try {
        if (!checkpoints.isSaved()) await checkpoints.save(moments);
      } catch (second) {
        status.note(`what was trained since the last checkpoint is lost: ${(second as Error).message}`);
        return;
      }
      if (error === signal.reason || state.step === 0) return;
      const losses = lastLosses(log.events, name);
      const kept = `stage ${name} ends after step ${state.step} (last losses: ${losses}); it is saved, --resume goes on from there`;
      if (error instanceof UserError) error.message = `${error.message.replace(/\.$/, '')}; ${kept}`;
      else status.note(kept);
    },
  });
  state.seconds = secondsBefore + (performance.now() - began) / 1000;
  // logged before it is saved: a run killed in between repeats both
  const left = prepared.skipped?.() ?? 0;
  if (left > 0) status.note(`stage ${name}: ${left} bad samples were left out; ${folder.skipped} lists them`);
  const skipped = left > 0 ? { skipped: left } : {};
  Object.assign(state, skipped);
  const { seconds, firstLoss, lastLoss } = state;
  log.write({ type: 'stage', stage: name, step: totalSteps, seconds, firstLoss, lastLoss, ...skipped });
  await checkpoints.save(undefined);
  if (adapters) await withSaved(dir, (checkpoint) => endAdapters(task, adapters, checkpoint));
  return { name, seconds, steps: totalSteps, firstLoss, lastLoss, ...skipped };
}
