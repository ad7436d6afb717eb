// What is reported of the steps of a stage: each to the status, and at every `log_every` a line of
// metrics.jsonl with what happened since the last one.

import { memoryUse } from '../runs/memory.ts';
import type { MetricEvent, ModuleMeasures } from '../runs/metrics.ts';
import type { Status } from '../runs/status.ts';
import type { StageData, StepReport } from './stage.ts';
import type { PreparedStage } from './task.ts';

/** The losses of a stage that were logged last, in words. */
export function lastLosses(events: readonly MetricEvent[], stage: string): string {
  const losses = events.flatMap((event) => (event.type === 'step' && event.stage === stage ? [event.loss.toFixed(4)] : []));
  return losses.slice(-3).join(', ');
}

/** The same batches; `seconds` is how long they were waited for, since it was last asked. */
export function timedBatches(batches: StageData['batches']): { batches: StageData['batches']; seconds: () => number } {
  let waited = 0;
  return {
    async *batches(step) {
      let since = performance.now();
      for await (const batch of batches(step)) {
        waited += performance.now() - since;
        yield batch;
        since = performance.now();
      }
      waited += performance.now() - since;
    },
    seconds() {
      const seconds = waited / 1000;
      waited = 0;
      return seconds;
    },
  };
}

/** Milliseconds after which a step is long enough to be told of before it ends. */
const LONG = 5000;

/**
 * The same batches, each of which is told as it begins where a step takes long. Throws the reason of `signal`
 * between two of them: a step of a large model may take hours.
 */
export function heededBatches(
  batches: StageData['batches'],
  { signal, tell }: { signal?: AbortSignal; tell: (step: number, done: number) => void },
): StageData['batches'] {
  return async function* (step) {
    const began = performance.now();
    let done = 0;
    for await (const batch of batches(step)) {
      if (done > 0) signal?.throwIfAborted();
      if (done > 0 && performance.now() - began > LONG) tell(step, done);
      done++;
      yield batch;
    }
  };
}

/** Norms of tensors, by the module that each belongs to. */
export function normByModule(norms: Iterable<readonly [string, number]>, moduleOf: (parameter: string) => string): Map<string, number> {
  const squares = new Map<string, number>();
  for (const [name, norm] of norms) squares.set(moduleOf(name), (squares.get(moduleOf(name)) ?? 0) + norm ** 2);
  return new Map([...squares].map(([module, square]) => [module, Math.sqrt(square)]));
}

/** By module: the gradient of a step, and, where the step was measured, how far it moved the weights. */
export function measuresOf({ gradNorms, changes }: StepReport, moduleOf: (parameter: string) => string): Record<string, ModuleMeasures> {
  if (!changes) return {};
  const of = (field: 'weight' | 'change') =>
    normByModule(
      [...changes].map(([name, change]) => [name, change[field]] as const),
      moduleOf,
    );
  const [weight, change] = [of('weight'), of('change')];
  const measures = [...normByModule(gradNorms, moduleOf)].map(([module, gradNorm]): [string, ModuleMeasures] => [
    module,
    // nothing is measured of a module that another process updates
    { gradNorm, updateRatio: (weight.get(module) ?? 0) > 0 ? change.get(module)! / weight.get(module)! : 0 },
  ]);
  return Object.fromEntries(measures);
}

export interface StepLogContext {
  write: (event: Omit<Extract<MetricEvent, { type: 'step' }>, 'time'>) => void;
  status: Status;
  moduleOf: (parameter: string) => string;
  /** Seconds that batches were waited for since it was last asked. */
  waited: () => number;
  /** Of the stage, from 1. */
  number: number;
  /** Stages of the run. */
  count: number;
}

/** Whether a step of a stage, from 1, gets a line. */
export const isLogged = ({ settings, totalSteps }: PreparedStage, step: number) => step === totalSteps || step % settings.log_every === 0;

/** Reports the steps of a stage: each to the status, means of those since the last line to the log. */
export function stepLog(prepared: PreparedStage, { write, status, moduleOf, waited, number, count }: StepLogContext) {
  const { settings, data, totalSteps } = prepared;
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
      const isLine = isLogged(prepared, step);
      const tokensPerSecond = (window.tokens / (performance.now() - window.since)) * 1000;
      const loss = window.loss / window.steps;
      const learningRate = settings.lr * learningRateFactor;
      const progress = { stage: settings.name, stageNumber: number, stageCount: count, step, totalSteps };
      status.update({ ...progress, loss, learningRate, tokensPerSecond }, isLine);
      if (!isLine) return undefined;
      const extra: Record<string, number> = Object.fromEntries(
        Object.entries(window.metrics).map(([key, value]) => [key, value / window.steps]),
      );
      if (window.padding > 0) extra.padding = window.padding / (window.tokens + window.padding);
      write({
        type: 'step',
        stage: settings.name,
        step,
        epoch: step / data.stepsPerEpoch,
        loss,
        learningRate,
        gradNorm,
        tokensPerSecond,
        seconds,
        dataWait: waited() / window.steps,
        memory: memoryUse(),
        modules: measuresOf(report, moduleOf),
        ...(Object.keys(extra).length > 0 ? { extra } : {}),
      });
      Object.assign(window, { loss: 0, steps: 0, tokens: 0, padding: 0, since: performance.now(), metrics: {} });
      return loss;
    },
    /** Says that so many milliseconds went into something else than steps. */
    leaveOut(milliseconds: number): void {
      window.since += milliseconds;
    },
  };
}
