// Learning rate schedules as pure functions of the step: linear warmup, then cosine, linear, constant, or
// constant with a decay at the end (WSD, Hu et al. 2024, arXiv 2404.06395). Follows
// get_{cosine,linear,constant}_schedule_with_warmup, get_cosine_with_min_lr_schedule_with_warmup and
// get_wsd_schedule of Hugging Face transformers (optimization.py) step for step.

export type ScheduleKind = 'cosine' | 'linear' | 'constant' | 'wsd';

export interface Schedule {
  kind: ScheduleKind;
  /** Optimizer steps in the stage. */
  totalSteps: number;
  /** Steps over which the factor grows from 0 to 1. */
  warmupSteps: number;
  /** The last steps, in which `wsd` falls; the others do not heed it. Default: 0. */
  decaySteps?: number;
  /** Where cosine, linear and wsd end, as a share of the peak rate; 0 in LLaVA. */
  floor: number;
}

/** Warmup steps of a stage, rounded up as Hugging Face's `warmup_ratio` is. */
export function warmupStepsOf(totalSteps: number, warmupRatio: number): number {
  return Math.ceil(totalSteps * warmupRatio);
}

/**
 * The share of the peak learning rate, in [0, 1], that optimizer step `step` uses. Steps count from 0, so
 * that the first step of a schedule with warmup has factor 0, as in transformers. A module's rate is its own
 * peak times this factor.
 */
export function learningRateFactor(schedule: Schedule, step: number): number {
  const { kind, totalSteps, warmupSteps, floor, decaySteps = 0 } = schedule;
  if (step < warmupSteps) return step / Math.max(1, warmupSteps);
  if (kind === 'constant') return 1;
  if (kind === 'wsd') {
    const left = Math.max(0, totalSteps - step);
    return left >= decaySteps ? 1 : floor + (1 - floor) * (left / decaySteps);
  }
  const progress = Math.min(1, (step - warmupSteps) / Math.max(1, totalSteps - warmupSteps));
  const decay = kind === 'cosine' ? 0.5 * (1 + Math.cos(Math.PI * progress)) : 1 - progress;
  return floor + (1 - floor) * decay;
}
