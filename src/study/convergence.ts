// What a stage is worth that is trained for a share of its steps: how its held-out loss falls with the steps,
// and whether the score of the whole run follows the loss.

import type { Estimate } from '../statistics/estimate.ts';
import { type FittedPowerLaw, type LossPoint, powerLawWithIntervals } from '../statistics/power-law.ts';
import { meanOf } from '../statistics/proportion.ts';
import { bootstrapSpearman } from '../statistics/rank-correlation.ts';
import type { ScoreAnalysis } from './analysis.ts';
import type { ScoreTable, StudyOutcome } from './answers.ts';
import type { EffectsModel } from './effects.ts';
import type { Study, Variant } from './variants.ts';

export interface TransferPoint {
  cell: string;
  seed: number;
  share: string;
  /** Held-out loss of the stage at its end; before its first step where it is left out. */
  loss: number;
  score: number;
}

export interface ConvergenceOfArm {
  /** Levels of the other factors; empty where there are none. */
  arm: string;
  points: LossPoint[];
  /** Undefined with fewer than three sizes. */
  fit?: FittedPowerLaw;
  /** By score: how much each share lacks to the whole stage. */
  missing: Record<string, { share: string; steps: number; effect: Estimate }[]>;
  /**
   * By score: the smallest share from which on no interval tells it from the whole stage; null where there is
   * none, or nothing to tell it by.
   */
  enough: Record<string, string | null>;
}

export interface ConvergenceAnalysis {
  stage: string;
  arms: ConvergenceOfArm[];
  transfer: { score: string; points: TransferPoint[]; rho: number; low: number; high: number; runs: number }[];
}

const SEED = 1;
const DRAWS = 1000;

const armOf = (study: Study, { levels }: Variant) =>
  study.factors
    .flatMap(({ name, levels: all }, i) => (i === study.convergence!.factor ? [] : [`${name}: ${all[levels[i]].label}`]))
    .join(', ');

export function analyzeConvergence(
  study: Study,
  outcome: StudyOutcome,
  tables: readonly ScoreTable[],
  scores: readonly (ScoreAnalysis & { model: EffectsModel | undefined })[],
): ConvergenceAnalysis | undefined {
  const { convergence } = study;
  if (!convergence) return undefined;
  const { stage, factor, steps } = convergence;
  const lossOf = `${stage}: held-out loss`;
  const arms = [...new Set(study.variants.map((variant) => armOf(study, variant)))];
  const stepsOf = ({ levels }: Variant) => steps[levels[factor]];
  return {
    stage,
    arms: arms.map((arm) => {
      const those = outcome.finished.filter(({ run }) => armOf(study, run.variant) === arm);
      const points = those.flatMap(({ run, numbers }) =>
        stepsOf(run.variant) > 0 && numbers[lossOf] > 0 ? [{ n: stepsOf(run.variant), loss: numbers[lossOf], run: run.seed }] : [],
      );
      const fit = powerLawWithIntervals(points, { seed: SEED, draws: DRAWS });
      const missing = Object.fromEntries(scores.map((score) => [score.score, missingOf(study, score, arm)]));
      const enough = Object.fromEntries(Object.entries(missing).map(([score, rows]) => [score, enoughOf(rows)]));
      return { arm, points, ...(fit ? { fit } : {}), missing, enough };
    }),
    transfer: scores.flatMap(({ score }) => transferOf(study, outcome, tables.find(({ name }) => name === score)!, lossOf)),
  };
}

/** Each share less the whole stage. */
function missingOf(study: Study, { model }: { model: EffectsModel | undefined }, arm: string) {
  const { factor, steps } = study.convergence!;
  const { name, levels } = study.factors[factor];
  const example = study.variants.find((variant) => armOf(study, variant) === arm)!;
  const rest = Object.fromEntries(
    study.factors.flatMap((each, i) => (i === factor ? [] : [[each.name, each.levels[example.levels[i]].label]])),
  );
  const whole = levels.at(-1)!.label;
  return levels.slice(0, -1).flatMap(({ label }, i) => {
    const effect = model?.difference({ ...rest, [name]: label }, { ...rest, [name]: whole });
    return effect ? [{ share: label, steps: steps[i], effect }] : [];
  });
}

/** Whether the interval tells a share from the whole stage. */
export const isTold = ({ effect }: { effect: Estimate }): boolean => !(effect.low <= 0 && effect.high >= 0);

function enoughOf(rows: readonly { share: string; effect: Estimate }[]): string | null {
  const lastTold = rows.findLastIndex(isTold);
  return rows[lastTold + 1]?.share ?? null;
}

function transferOf(study: Study, { finished }: StudyOutcome, table: ScoreTable, lossOf: string): ConvergenceAnalysis['transfer'] {
  const { factor, steps } = study.convergence!;
  const { levels } = study.factors[factor];
  const points = finished.flatMap(({ run, numbers }): TransferPoint[] => {
    const answered = table.runs.find((each) => each.run === run);
    const level = run.variant.levels[factor];
    // without the stage, the loss is the one before its first step, which a run with the same seed has
    // measured
    const twin = finished.find(
      (other) =>
        other.run.seed === run.seed &&
        armOf(study, other.run.variant) === armOf(study, run.variant) &&
        steps[other.run.variant.levels[factor]] > 0,
    );
    const loss = steps[level] > 0 ? numbers[lossOf] : twin?.numbers[`${lossOf} at its start`];
    if (!answered || loss === undefined) return [];
    return [{ cell: run.variant.label, seed: run.seed, share: levels[level].label, loss, score: meanOf(answered.credits) }];
  });
  if (points.length < 4) return [];
  const { value, low, high } = bootstrapSpearman(
    points.map(({ loss }) => loss),
    points.map((point) => point.score),
    { seed: SEED, draws: DRAWS },
  );
  return [{ score: table.name, points, rho: value, low, high, runs: points.length }];
}
