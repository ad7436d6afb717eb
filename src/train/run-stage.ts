// One stage of a run: prepared, trained, logged, saved.

import type { Engine, State } from '../engine/engine.ts';
import { UserError } from '../errors.ts';
import { type Communicator, StoppedTogether } from '../mpi/communicator.ts';
import { isOfAdapter } from '../nn/lora.ts';
import type { RunFolder, StageSummary } from '../runs/folder.ts';
import type { RunLock } from '../runs/lock.ts';
import type { Log } from '../runs/log.ts';
import type { MetricEvent } from '../runs/metrics.ts';
import type { Status } from '../runs/status.ts';
import { addAdapters } from './adapters.ts';
import type { Fingerprints } from './fingerprints.ts';
import { checkpointsOf, type Resumed, saveStage, type TrainerState, withSaved } from './run-checkpoints.ts';
import { endAdapters } from './saved.ts';
import { warmupStepsOf } from './schedule.ts';
import { type StepReport, trainStage } from './stage.ts';
import type { PreparedStage, Task } from './task.ts';
import { whatTrains } from './what-trains.ts';

/** The losses of a stage that were logged last, in words. */
function lastLosses(events: readonly MetricEvent[], stage: string): string {
  const losses = events.flatMap((event) => (event.type === 'step' && event.stage === stage ? [event.loss.toFixed(4)] : []));
  return losses.slice(-3).join(', ');
}

interface StepLogContext {
  log: Log;
  status: Status;
  /** Of the stage, from 1. */
  number: number;
  /** Stages of the run. */
  count: number;
}

/** Reports the steps of a stage: each to the status, means of those since the last line to the log. */
function stepLog({ settings, data, totalSteps }: PreparedStage, { log, status, number, count }: StepLogContext) {
  const window = { loss: 0, steps: 0, tokens: 0, padding: 0, since: performance.now(), metrics: {} as Record<string, number> };
  return {
    /** Returns the mean loss when a line is logged. `seconds` are those spent in the stage. */
    add(report: StepReport, seconds: number): number | undefined {
      const { step, learningRateFactor, gradNorm } = report;
      window.loss += report.loss;
      window.steps++;
      window.tokens += report.tokens;
      window.padding += report.padding;
      for (const [key, value] of Object.entries(report.metrics)) window.metrics[key] = (window.metrics[key] ?? 0) + value;
      const isLogged = step === totalSteps || step % settings.log_every === 0;
      const tokensPerSecond = (window.tokens / (performance.now() - window.since)) * 1000;
      const loss = window.loss / window.steps;
      const learningRate = settings.lr * learningRateFactor;
      const progress = { stage: settings.name, stageNumber: number, stageCount: count, step, totalSteps };
      status.update({ ...progress, loss, learningRate, tokensPerSecond }, isLogged);
      if (!isLogged) return undefined;
      const extra: Record<string, number> = Object.fromEntries(
        Object.entries(window.metrics).map(([key, value]) => [key, value / window.steps]),
      );
      if (window.padding > 0) extra.padding = window.padding / (window.tokens + window.padding);
      log.write({
        type: 'step',
        stage: settings.name,
        step,
        epoch: step / data.stepsPerEpoch,
        loss,
        learningRate,
        gradNorm,
        tokensPerSecond,
        seconds,
        ...(Object.keys(extra).length > 0 ? { extra } : {}),
      });
      Object.assign(window, { loss: 0, steps: 0, tokens: 0, padding: 0, since: performance.now(), metrics: {} });
      return loss;
    },
  };
}

export interface StageContext {
  engine: Engine;
  folder: RunFolder;
  lock: RunLock;
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
    await saveStage(task, dir, state, moments, isTrained, adapters);
  });
  const steps = stepLog(prepared, { log, status, number: index + 1, count: task.stages.length });

  const onStep = async (report: StepReport) => {
    state.step = report.step;
    state.seconds = secondsBefore + (performance.now() - began) / 1000;
    if (Number.isNaN(state.firstLoss)) state.firstLoss = report.loss;
    state.lastLoss = steps.add(report, state.seconds) ?? state.lastLoss;
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

  const saveFailed = async (error: unknown, moments: ReadonlyMap<string, State>) => {
    if (checkpoints.hasFailed()) return;
    try {
      if (!checkpoints.isSaved()) await checkpoints.save(moments);
    } catch (second) {
      status.note(`what was trained since the last checkpoint is lost: ${(second as Error).message}`);
      return;
    }
    if (error === signal.reason || error instanceof StoppedTogether || state.step === 0) return;
    const losses = lastLosses(log.events, name);
    const kept = `stage ${name} ends after step ${state.step} (last losses: ${losses}); it is saved, --resume goes on from there`;
    if (error instanceof UserError) error.message = `${error.message.replace(/\.$/, '')}; ${kept}`;
    else status.note(kept);
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
    accumulation: settings.accumulation,
    communicator,
    shardMoments,
    start: resumed?.state ? { step: resumed.state.step, moments: resumed.moments! } : undefined,
    onStep,
    onFailure: (error, moments, lead) => lead(() => saveFailed(error, moments)),
  });
  state.seconds = secondsBefore + (performance.now() - began) / 1000;
  // logged before it is saved: a run killed in between repeats both
  const left = (await prepared.skipped?.()) ?? 0;
  if (left > 0) status.note(`stage ${name}: ${left} bad samples were left out; ${folder.skipped} lists them`);
  const skipped = left > 0 ? { skipped: left } : {};
  Object.assign(state, skipped);
  const { seconds, firstLoss, lastLoss } = state;
  log.write({ type: 'stage', stage: name, step: totalSteps, seconds, firstLoss, lastLoss, ...skipped });
  await communicator.lead(() => checkpoints.save(undefined));
  if (adapters) await withSaved(dir, (checkpoint) => endAdapters(task, adapters, checkpoint));
  return { name, seconds, steps: totalSteps, firstLoss, lastLoss, ...skipped };
}
