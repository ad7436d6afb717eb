// What a schedule computes, so that searches of models of different size can be compared at equal cost too.

import { existingFolder } from '../disk.ts';
import type { Engine } from '../engine/engine.ts';
import { createPlanningEngine } from '../engine/planning.ts';
import { alone } from '../mpi/communicator.ts';
import type { Status } from '../runs/status.ts';
import { planRun, type RunPlan } from '../train/plan.ts';
import { startSourceThread } from '../train/prefetch.ts';
import type { Recipe } from '../train/recipe.ts';
import { createTask } from '../train/run.ts';
import { holdingScenes } from '../train/scenes.ts';

export interface PlanContext {
  out: string;
  status: Status;
  signal: AbortSignal;
  /** Whether generated scenes are there as they should be. */
  scenesAreDrawn?: boolean;
}

/** The plan of a run in `out`, timed on an engine if there is one. */
export async function planOfRun(recipe: Recipe, { out, status, signal, scenesAreDrawn }: PlanContext, timedOn?: Engine): Promise<RunPlan> {
  const thread = startSourceThread();
  try {
    const engine = createPlanningEngine();
    const context = { engine, status, thread, out, signal, isPlan: true, communicator: alone, scenesAreDrawn };
    const plan = async () => planRun({ task: await createTask(recipe, context), folder: existingFolder(out), timedOn });
    return scenesAreDrawn ? await plan() : await holdingScenes(recipe, { note: status.note }, plan);
  } finally {
    await thread.close();
  }
}

/**
 * Floating-point operations of a whole run: a token takes 2 for each weight on its way forward, 2 for the
 * gradient that goes back through it, and 2 more for that of a weight that is trained (6 N D of Kaplan et al.
 * 2020, arXiv 2001.08361, without gradients of frozen weights). What a frozen encoder computes once a picture
 * is not in it.
 */
export const flopsOf = ({ stages }: Pick<RunPlan, 'stages'>): number =>
  stages.reduce((sum, { trained, frozen, steps, tokensPerStep }) => {
    const own = Object.values(trained).reduce((all, count) => all + count, 0);
    return sum + steps * tokensPerStep * (4 * (own + frozen) + 2 * own);
  }, 0);
