// Watches a stage while it is trained, and says in one sentence what looks wrong: what would otherwise be
// found in the scores, days later. Thresholds are those that the literature uses where it has some
// (docs/training.md lists them); each sign is kept quiet for a while once it was told.

import { median } from '../arrays.ts';
import type { Sign } from '../runs/metrics.ts';
import { learningRateFactor, type Schedule } from './schedule.ts';
import type { StepReport } from './stage.ts';
import { measuresOf, normByModule } from './step-log.ts';

export interface Warning {
  sign: Sign;
  module?: string;
  message: string;
}

/** Steps that a median is taken of, and how many of them there must be. */
const WINDOW = 50;
const FEWEST = 20;
/** How many times the median a loss or a norm must be; a loss must also lie outside the usual. */
const LOSS_FACTOR = 1.5;
const LOSS_DEVIATIONS = 8;
const LEAST_RISE = 0.2;
const NORM_FACTOR = 10;
/**
 * Steps in a row after which a gradient that is nothing is dead (data grouped by modality have some without
 * a picture), and what is nothing beside the others.
 */
const DEAD_STEPS = 20;
const VANISHING = 1e-6;
/** Share of the weights that an update changes, at so many measured steps in a row. */
const RATIO_BOUNDS = [1e-7, 0.1] as const;
const RATIO_TIMES = 3;
/** Steps in a row that are clipped to less than this. */
const CLIPPED_STEPS = 100;
const CLIPPED_TO = 0.1;
/** Least rise of the held-out loss with other pictures, in nats a label, from this share of the stage on. */
export const LEAST_IMAGE_GAIN = 0.05;
const IMAGE_SHARE = 0.25;
/** How far above its best the held-out loss must be, and how often in a row. */
export const OVERFIT_FACTOR = 1.1;
const OVERFIT_TIMES = 3;

/** Least way that a module's weights go in a stage, as a share of their norm. */
const LEAST_WAY = 1e-4;

/** What is remembered from step to step: plain values, for a checkpoint. */
export interface HealthState {
  losses: number[];
  norms: number[];
  /** By sign and module: the step until which it is not told again, or how often it was seen in a row. */
  quietUntil: Record<string, number>;
  inARow: Record<string, number>;
  bestHeldOut?: number;
  /** By module: the sum of its measured update ratios, and how many they are. */
  ways?: Record<string, { sum: number; steps: number }>;
}

export interface HealthOptions {
  schedule: Schedule;
  maxGradNorm: number;
  moduleOf: (parameter: string) => string;
  /** As a checkpoint has it. */
  state?: HealthState;
}

const short = (value: number) => String(Number(value.toPrecision(3)));
const percent = (share: number) => `${short(100 * share)} %`;

export function createHealth({ schedule, maxGradNorm, moduleOf, state: saved }: HealthOptions) {
  const state: HealthState = structuredClone(saved ?? { losses: [], norms: [], quietUntil: {}, inARow: {} });
  const { totalSteps, warmupSteps } = schedule;

  /** Counts how often in a row something is seen; true when that is often enough for the first time. */
  const seen = (key: string, isSeen: boolean, times: number): boolean => {
    state.inARow[key] = isSeen ? (state.inARow[key] ?? 0) + 1 : 0;
    return state.inARow[key] === times;
  };

  function spikes({ step, loss, gradNorm }: StepReport): Warning[] {
    const found: Warning[] = [];
    const tell = (sign: Sign, message: string) => {
      if (step < (state.quietUntil[sign] ?? 0)) return;
      state.quietUntil[sign] = step + WINDOW;
      found.push({ sign, message });
    };
    if (state.losses.length >= FEWEST) {
      const usual = median(state.losses);
      // 1.4826 makes the median deviation of normal numbers their standard deviation
      const deviation = 1.4826 * median(state.losses.map((past) => Math.abs(past - usual)));
      if (loss > usual + Math.max(LOSS_DEVIATIONS * deviation, (LOSS_FACTOR - 1) * usual, LEAST_RISE))
        tell('loss-spike', `the loss is ${short(loss)}, and was ${short(usual)} (median of the steps before)`);
      const usualNorm = median(state.norms);
      if (gradNorm > NORM_FACTOR * usualNorm)
        tell('gradient-spike', `the norm of the gradient is ${short(gradNorm)}, and was ${short(usualNorm)} (median of the steps before)`);
    }
    for (const [values, value] of [
      [state.losses, loss],
      [state.norms, gradNorm],
    ] as const) {
      values.push(value);
      if (values.length > WINDOW) values.shift();
    }
    return found;
  }

  function gradients({ gradNorms, gradNorm, clip }: StepReport): Warning[] {
    const found: Warning[] = [];
    for (const [module, norm] of normByModule(gradNorms, moduleOf)) {
      const isNothing = norm === 0 || norm < VANISHING * gradNorm;
      if (seen(`dead ${module}`, isNothing, DEAD_STEPS))
        found.push({
          sign: 'dead-gradient',
          module,
          message: `${module} has had ${norm === 0 ? 'no gradient' : `next to no gradient (${percent(norm / gradNorm)} of all)`} for ${DEAD_STEPS} steps: it does not learn; look whether the data have pictures and what the stage trains`,
        });
    }
    if (seen('clipping', clip < CLIPPED_TO, CLIPPED_STEPS))
      found.push({
        sign: 'clipping',
        message: `each of the last ${CLIPPED_STEPS} gradients was more than ${1 / CLIPPED_TO} times as large as max_grad_norm (${maxGradNorm}; this one is ${short(gradNorm)}): what a step does is decided by clipping; raise max_grad_norm, or look at the data`,
      });
    return found;
  }

  function updates(report: StepReport): Warning[] {
    // a fresh module makes large steps at first, and in the warmup and at the end of a schedule all are small
    if (report.step < FEWEST || report.step <= warmupSteps) return [];
    const [least, most] = RATIO_BOUNDS;
    return Object.entries(measuresOf(report, moduleOf)).flatMap(([module, { updateRatio, gradNorm }]): Warning[] => {
      const isTiny = updateRatio > 0 && updateRatio < least && gradNorm > 0 && report.learningRateFactor > 0.1;
      const advice = (is: string, what: string) => [
        {
          sign: 'update-ratio' as const,
          module,
          message: `a step changes the weights of ${module} by ${percent(updateRatio)}, which ${is}: ${what} its learning rate (lr_by_module)`,
        },
      ];
      if (seen(`large ${module}`, updateRatio > most, RATIO_TIMES)) return advice('is more than training stands for long', 'lower');
      if (seen(`tiny ${module}`, isTiny, RATIO_TIMES)) return advice('float32 does not hold', 'raise');
      return [];
    });
  }

  /**
   * Modules that end where they began. The lengths of all updates bound ||W - W0|| from above, whatever their
   * directions; those that are measured stand for the others.
   */
  function unmoved(report: StepReport): Warning[] {
    state.ways ??= {};
    for (const [module, { updateRatio }] of Object.entries(measuresOf(report, moduleOf))) {
      const way = state.ways[module] ?? { sum: 0, steps: 0 };
      state.ways[module] = { sum: way.sum + updateRatio, steps: way.steps + 1 };
    }
    if (report.step < totalSteps || totalSteps < FEWEST) return [];
    return Object.entries(state.ways).flatMap(([module, { sum, steps }]): Warning[] => {
      const way = (sum / steps) * totalSteps;
      // of a module that another process updates nothing is measured
      if (way === 0 || way >= LEAST_WAY) return [];
      return [
        {
          sign: 'unmoved-weights',
          module,
          message: `all steps of the stage together have moved the weights of ${module} by at most ${percent(way)} of their norm: it is as it was; raise its learning rate (lr_by_module)`,
        },
      ];
    });
  }

  return {
    /** What is wrong before the first step. */
    begin(): Warning[] {
      if (warmupSteps < totalSteps) return [];
      const most = learningRateFactor(schedule, totalSteps - 1);
      const reached = most === 0 ? 'stays 0, and nothing is learned' : `gets to ${percent(most)} of lr and no further`;
      return [
        {
          sign: 'learning-rate',
          message: `the learning rate rises over ${warmupSteps} step${warmupSteps === 1 ? '' : 's'}, and the stage has ${totalSteps}: it ${reached}; lower warmup_steps or warmup_ratio`,
        },
      ];
    },
    /** After a step. */
    step: (report: StepReport): Warning[] => [...spikes(report), ...gradients(report), ...updates(report), ...unmoved(report)],
    /** After the held-out loss was measured. */
    heldOut({ step, loss, imageGain }: { step: number; loss: number; imageGain?: number }): Warning[] {
      const found: Warning[] = [];
      if (!Number.isFinite(loss)) found.push({ sign: 'not-finite', message: `the held-out loss is ${loss}` });
      const isLate = step >= Math.max(FEWEST, IMAGE_SHARE * totalSteps);
      if (isLate && imageGain !== undefined && seen('image', imageGain < LEAST_IMAGE_GAIN, 1))
        found.push({
          sign: 'image-ignored',
          message: `the model looks past its pictures: with those of other samples the held-out loss is only ${short(imageGain)} nats larger (${LEAST_IMAGE_GAIN} or more where they are looked at)`,
        });
      const { bestHeldOut: best = Number.POSITIVE_INFINITY } = state;
      if (loss < best) state.bestHeldOut = loss;
      if (seen('overfitting', loss > OVERFIT_FACTOR * best, OVERFIT_TIMES))
        found.push({
          sign: 'overfitting',
          message: `the held-out loss is ${short(loss)}, and was ${short(best)} at its best: the model learns the training data by heart`,
        });
      return found;
    },
    /** What a checkpoint has to keep. */
    state: (): HealthState => structuredClone(state),
  };
}
