// The plan of a recipe's run: its task, on an engine that only counts.

import { existingFolder } from '../disk.ts';
import type { Engine } from '../engine/engine.ts';
import { createPlanningEngine } from '../engine/planning.ts';
import { alone } from '../mpi/communicator.ts';
import type { Status } from '../runs/status.ts';
import { type PlanOptions, planRun, type RunPlan } from './plan.ts';
import { startSourceThread } from './prefetch.ts';
import type { Recipe } from './recipe.ts';
import { createTask } from './run.ts';
import { holdingScenes } from './scenes.ts';

export interface RecipePlanOptions extends Pick<PlanOptions, 'available' | 'withOtherwise'> {
  /** The run folder, which need not be there. */
  out: string;
  status: Status;
  signal: AbortSignal;
  /** Whether generated scenes are there as they should be, so that nobody waits for them. */
  scenesAreDrawn?: boolean;
  /** Opens the engine on which steps are timed. */
  timedOn?(): Promise<Engine>;
}

/** The plan, and the seconds in which the data of the recipe were read and checked. */
export async function planRecipe(
  recipe: Recipe,
  { out, status, signal, scenesAreDrawn, timedOn, available, withOtherwise }: RecipePlanOptions,
): Promise<{ plan: RunPlan; reading: number }> {
  const thread = startSourceThread();
  try {
    const planned = async () => {
      const began = performance.now();
      const engine = createPlanningEngine();
      const task = await createTask(recipe, { engine, status, thread, out, signal, isPlan: true, communicator: alone, scenesAreDrawn });
      const reading = (performance.now() - began) / 1000;
      const plan = await planRun({ task, folder: existingFolder(out), timedOn: await timedOn?.(), available, withOtherwise });
      return { plan, reading };
    };
    return scenesAreDrawn ? await planned() : await holdingScenes(recipe, { note: status.note }, planned);
  } finally {
    await thread.close();
  }
}
