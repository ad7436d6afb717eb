// What is looked at while a stage is trained: the held-out loss, scores, and signs that something is wrong.
// Nothing here changes what is trained.

import type { Engine, State } from '../engine/engine.ts';
import type { Log } from '../runs/log.ts';
import type { MetricEvent } from '../runs/metrics.ts';
import type { Status } from '../runs/status.ts';
import type { WeightAverage } from './ema.ts';
import { createHealth, type HealthState, type Warning } from './health.ts';
import { compileHeldOut } from './held-out.ts';
import type { Schedule } from './schedule.ts';
import type { StepReport } from './stage.ts';
import type { PreparedStage, Task } from './task.ts';

export interface WatchOptions {
  engine: Engine;
  log: Log;
  status: Status;
  schedule: Schedule;
  /** What the stage trains, by name, and the average of it that is measured instead, if there is one. */
  trained: ReadonlyMap<string, State>;
  average?: WeightAverage;
  isTrained: (parameter: string) => boolean;
  /** Told of each held-out loss before anything else is measured. */
  onHeldOut?: (loss: number) => Promise<void>;
  /** Ends a measurement half-way; one process of several cannot do so alone. */
  signal?: AbortSignal;
  /** As a checkpoint has it. */
  health?: HealthState;
}

export interface StageWatch {
  /** Before the first step of this sitting, with the steps that are finished. */
  begin(step: number): Promise<void>;
  /** Signs in what a step reports. */
  check(report: StepReport): void;
  /** Whatever is due after a step. */
  measure(step: number): Promise<void>;
  /** What a checkpoint has to keep. */
  health(): HealthState;
  dispose(): Promise<void>;
}

/** Watches a stage of the task. */
export async function watchStage(task: Task, prepared: PreparedStage, options: WatchOptions): Promise<StageWatch> {
  const { engine, log, status, schedule, trained, average, isTrained, signal } = options;
  const { settings, totalSteps, heldOut, evaluation } = prepared;
  const stage = settings.name;
  const { moduleOf, weights } = task;
  const health = createHealth({ schedule, maxGradNorm: settings.max_grad_norm, moduleOf, state: options.health });
  const values = average?.values ?? trained;
  let program: Awaited<ReturnType<typeof compileHeldOut>> | undefined;

  const warn = ({ message, ...warning }: Warning, step: number) => {
    log.write({ type: 'warning', stage, step, ...warning, message });
    status.note(`warning: stage ${stage}, step ${step}: ${message}`);
  };
  async function measureHeldOut(step: number): Promise<void> {
    const began = performance.now();
    program ??= await compileHeldOut(engine, weights, heldOut!, isTrained);
    // what is due after the last step is finished, whoever wants to stop: the stage is saved with it
    const measured = await program.measure(values, step < totalSteps ? signal : undefined);
    if (program.isLarge) {
      await program.dispose();
      program = undefined;
    }
    log.write({ type: 'held-out', stage, step, seconds: (performance.now() - began) / 1000, samples: heldOut!.samples, ...measured });
    const { loss, imageGain } = measured;
    const gain = imageGain === undefined ? '' : `, and ${imageGain.toFixed(4)} more with other pictures`;
    status.note(`stage ${stage}, step ${step}: held-out loss ${loss.toFixed(4)}${gain}`);
    for (const warning of health.heldOut({ step, ...measured })) warn(warning, step);
    // before the first step it is nobody's achievement
    if (step > 0) await options.onHeldOut?.(loss);
  }
  async function score(step: number): Promise<void> {
    const began = performance.now();
    const scores = await weights.using(values, evaluation!.scores);
    log.write({ type: 'evaluation', stage, step, seconds: (performance.now() - began) / 1000, scores });
    const tasks = Object.entries(scores).map(([split, byTask]) => {
      const all = Object.values(byTask);
      const right = all.reduce((sum, { correct }) => sum + correct, 0);
      return `${split} ${((100 * right) / all.reduce((sum, { n }) => sum + n, 0)).toFixed(1)} %`;
    });
    status.note(`stage ${stage}, step ${step}: right answers: ${tasks.join(', ')}`);
  }
  const isHeldOutDue = (step: number) => heldOut !== undefined && (step % heldOut.every === 0 || step === totalSteps);
  // the end of a run is scored by itself, on all questions
  const isScoringDue = (step: number) => evaluation !== undefined && step > 0 && step < totalSteps && step % evaluation.every === 0;
  const hasEvent = (type: MetricEvent['type'], step: number) =>
    log.events.some((event) => event.type === type && event.stage === stage && event.step === step);

  return {
    async begin(step) {
      if (step === 0) for (const warning of health.begin()) warn(warning, step);
      // a run that was stopped while it measured does so now
      if (isHeldOutDue(step) && !hasEvent('held-out', step)) await measureHeldOut(step);
      if (isScoringDue(step) && !hasEvent('evaluation', step)) await score(step);
    },
    check(report) {
      for (const warning of health.step(report)) warn(warning, report.step);
    },
    async measure(step) {
      if (isHeldOutDue(step)) await measureHeldOut(step);
      if (isScoringDue(step)) await score(step);
    },
    health: health.state,
    dispose: async () => program?.dispose(),
  };
}
