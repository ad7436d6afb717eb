// One stage of a run: prepared, trained, logged, saved.

import { bestFolder, keepCheckpoint } from '../checkpoint/kept-folders.ts';
import type { Engine, State } from '../engine/engine.ts';
import { UserError } from '../errors.ts';
import type { FolderLock } from '../folder-lock.ts';
import { type Communicator, StoppedTogether } from '../mpi/communicator.ts';
import type { RunFolder, StageSummary } from '../runs/folder.ts';
import type { Log } from '../runs/log.ts';
import type { Status } from '../runs/status.ts';
import { addAdapters } from './adapters.ts';
import { createWeightAverage } from './ema.ts';
import type { Fingerprints } from './fingerprints.ts';
import { NotFiniteError } from './optimizer.ts';
import { checkStageRates, isTrainedBy, ratesOf } from './rates.ts';
import {
  bestLossIn,
  type Checkpoints,
  checkpointsOf,
  type Resumed,
  saveModel,
  saveStage,
  type TrainedStage,
  type TrainerState,
  withSaved,
} from './run-checkpoints.ts';
import { endAdapters } from './saved.ts';
import { type Schedule, warmupStepsOf } from './schedule.ts';
import { type StepReport, trainStage } from './stage.ts';
import { watchStage } from './stage-watch.ts';
import { heededBatches, isLogged, lastLosses, stepLog, timedBatches } from './step-log.ts';
import type { PreparedStage, Task } from './task.ts';
import { trainsText, whatTrains } from './what-trains.ts';

export interface StageContext {
  engine: Engine;
  folder: RunFolder;
  lock: FolderLock;
  log: Log;
  status: Status;
  signal: AbortSignal;
  communicator: Communicator;
  /** Whether each process keeps a share of the optimizer's moments. */
  shardMoments: boolean;
  inputs: Fingerprints;
  resumed?: Resumed;
}

/** Trains stage number `index` of the task and saves it. */
export async function runStage(task: Task, index: number, context: StageContext): Promise<StageSummary> {
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
  { engine, folder, lock, log, status, signal, communicator, shardMoments, inputs, resumed }: StageContext,
): Promise<StageSummary> {
  const { name, train: modules } = task.stages[index];
  const adapters = task.adapters?.(index);
  // where the stage is resumed, they are there
  if (adapters && !resumed?.state) addAdapters(task.weights, adapters);
  const isTrained = isTrainedBy(modules, task.moduleOf);
  const { settings, data, totalSteps } = prepared;
  const loss = prepared.loss(task.weights.storageOf(isTrained));
  const unknown = modules.find((module) => !loss.parameters.some((parameter) => task.moduleOf(parameter.name) === module));
  if (unknown) throw new UserError(`stage ${name}: nothing to train in ${unknown}`);
  // some weights of a model, such as the last block of an encoder, are not part of the loss
  const inLoss = loss.parameters.map(({ name }) => name);
  checkStageRates(task.stages[index], inLoss, task.moduleOf);
  const rates = ratesOf(settings, task.moduleOf);
  if (resumed?.state && resumed.state.totalSteps !== totalSteps)
    status.note(
      `stage ${name}: it has ${totalSteps} steps, where it had ${resumed.state.totalSteps} when it was saved; the schedule follows`,
    );
  const what = whatTrains(task, loss, isTrained, rates, settings.optim);
  status.note(trainsText(name, what));
  if (!resumed?.state) log.write({ type: 'trains', stage: name, step: 0, ...what });
  const dir = folder.checkpoint(name);
  const fresh = { stage: name, step: 0, totalSteps, seconds: 0, firstLoss: Number.NaN, lastLoss: Number.NaN };
  const state: TrainerState = { ...(resumed?.state ?? fresh), totalSteps, inputs };
  const secondsBefore = state.seconds;
  const trained = new Map<string, State>();
  for (const parameter of loss.parameters)
    if (isTrained(parameter.name)) trained.set(parameter.name, await task.weights.trained(parameter.name));
  const average = settings.ema_decay
    ? await createWeightAverage(engine, trained, settings.ema_decay, resumed?.state && (resumed.averages ?? new Map()))
    : undefined;
  const schedule = scheduleOf(settings, totalSteps);
  const own = { ...task, saved: task.savedIn?.(index) ?? task.saved };
  const saved: TrainedStage = { task: own, isTrained, adapters, average };
  const keepBest = 'keep_best' in settings && settings.keep_best ? await bestKeeper(saved, dir) : undefined;
  const watch = await watchStage(task, prepared, {
    engine,
    log,
    status,
    schedule,
    trained,
    average,
    isTrained,
    onHeldOut: async (loss) => keepBest?.(state, loss),
    signal: communicator.size === 1 ? signal : undefined,
    health: state.health,
  });
  const checkpoints = checkpointsOf(state, settings, async (moments) => {
    lock.check();
    state.health = watch.health();
    await saveStage(saved, dir, state, moments);
    if (state.step < totalSteps) await keepCheckpoint(dir, state.step, settings.keep_checkpoints);
  });
  const waiting = timedBatches(data.batches);
  const { moduleOf } = task;
  const steps = stepLog(prepared, {
    write: log.write,
    status,
    moduleOf,
    waited: waiting.seconds,
    number: index + 1,
    count: task.stages.length,
  });

  const perStep = settings.accumulation / communicator.size;
  const batches = heededBatches(waiting.batches, {
    // several processes stop together, after a step
    signal: communicator.size === 1 ? signal : undefined,
    tell: (step, done) => status.progress(`${name}: step ${step + 1} of ${totalSteps}, ${done} of its ${perStep} batches`),
  });

  const onStep = async (report: StepReport) => {
    state.step = report.step;
    await average?.update(report.step);
    state.seconds = secondsBefore + (performance.now() - began) / 1000;
    if (Number.isNaN(state.firstLoss)) state.firstLoss = report.loss;
    state.lastLoss = steps.add(report, state.seconds) ?? state.lastLoss;
    watch.check(report);
    const measuring = performance.now();
    await report.lead(() => watch.measure(report.step));
    steps.leaveOut(performance.now() - measuring);
    if (report.step === totalSteps) return;
    const [[isDue]] = await communicator.share([Number(checkpoints.isDue())]);
    if (isDue) {
      await prepared.skipped?.();
      await report.lead(() => checkpoints.save(report.moments));
    }
    const isStopped = (await communicator.share([Number(signal.aborted)])).some(([isTold]) => isTold);
    if (!isStopped) return;
    await prepared.skipped?.();
    throw communicator.size === 1 ? signal.reason : new StoppedTogether(signal.reason);
  };

  const saveFailed = failureSaver({ state, checkpoints, log, status, signal });

  try {
    await communicator.lead(async () => {
      if (resumed?.state) await keepCheckpoint(dir, state.step, settings.keep_checkpoints, { isSaved: true });
      await watch.begin(state.step);
    });
    await trainStage({
      engine,
      loss,
      trained,
      constants: await task.weights.constants(loss, isTrained),
      learningRate: (parameter) => rates.learningRate(parameter).value,
      schedule,
      optimizer: {
        optim: settings.optim,
        betas: settings.betas,
        eps: settings.eps,
        weightDecay: (parameter) => rates.weightDecay(parameter).value,
        maxGradNorm: settings.max_grad_norm,
      },
      gradientCheckpointing: settings.gradient_checkpointing,
      data: { ...data, batches },
      accumulation: settings.accumulation,
      communicator,
      shardMoments,
      start: resumed?.state ? { step: resumed.state.step, moments: resumed.moments! } : undefined,
      measures: (step) => isLogged(prepared, step),
      onStep,
      onFailure: async (error, moments, lead) => {
        if (error === signal.reason) await prepared.skipped?.();
        await lead(() => saveFailed(error, moments));
      },
    });
  } finally {
    await watch.dispose();
    await average?.dispose();
  }
  state.seconds = secondsBefore + (performance.now() - began) / 1000;
  // logged before it is saved: a run killed in between repeats both
  const left = (await prepared.skipped?.()) ?? 0;
  if (left > 0) status.note(`stage ${name}: ${left} bad samples were left out; ${folder.skipped} lists them`);
  const skipped = left > 0 ? { skipped: left } : {};
  Object.assign(state, skipped);
  const { seconds, firstLoss, lastLoss } = state;
  log.write({ type: 'stage', stage: name, step: totalSteps, seconds, firstLoss, lastLoss, ...skipped });
  await communicator.lead(() => checkpoints.save(undefined));
  // what the checkpoint has is what the next stage begins with, and what is scored
  await average?.apply();
  if (adapters) await withSaved(dir, (checkpoint) => endAdapters(task, adapters, checkpoint));
  return { name, seconds, steps: totalSteps, firstLoss, lastLoss, ...skipped };
}

/** What is done about an error that ends a stage: its last finished step is saved, and the error says so. */
function failureSaver({
  state,
  checkpoints,
  log,
  status,
  signal,
}: Pick<StageContext, 'log' | 'status' | 'signal'> & { state: TrainerState; checkpoints: Checkpoints }) {
  return async (error: unknown, moments: ReadonlyMap<string, State>) => {
    if (checkpoints.hasFailed()) return;
    const { stage, step } = state;
    if (error instanceof NotFiniteError) log.write({ type: 'warning', stage, step: step + 1, sign: 'not-finite', message: error.message });
    try {
      if (!checkpoints.isSaved()) await checkpoints.save(moments);
    } catch (second) {
      status.note(`what was trained since the last checkpoint is lost: ${(second as Error).message}`);
      return;
    }
    if (error === signal.reason || error instanceof StoppedTogether || step === 0) return;
    const losses = lastLosses(log.events, stage);
    const kept = `stage ${stage} ends after step ${step} (last losses: ${losses}); it is saved, --resume goes on from there`;
    if (error instanceof UserError) error.message = `${error.message.replace(/\.$/, '')}; ${kept}`;
    else status.note(kept);
  };
}

function scheduleOf(settings: PreparedStage['settings'], totalSteps: number): Schedule {
  return {
    kind: settings.schedule,
    totalSteps,
    warmupSteps: settings.warmup_steps ?? warmupStepsOf(totalSteps, settings.warmup_ratio),
    floor: settings.min_lr_ratio,
    decaySteps: Math.round(totalSteps * settings.decay_ratio),
  };
}

/** Saves the model where its held-out loss is the lowest so far, in this sitting and those before. */
async function bestKeeper(stage: TrainedStage, dir: string) {
  const best = bestFolder(dir);
  let lowest = (await bestLossIn(best)) ?? Number.POSITIVE_INFINITY;
  return async (state: TrainerState, heldOutLoss: number) => {
    if (!(heldOutLoss < lowest)) return;
    await saveModel(stage, best, { ...state, heldOutLoss });
    lowest = heldOutLoss;
  };
}
