// The checkpoints that a run has left, in the order of its training.
import { existsSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { onDisk } from '../../disk.ts';
import { UserError } from '../../errors.ts';
import { findRunFolder, runFolder } from '../../runs/folder.ts';
import { loadRecipe } from '../../train/recipe.ts';

/** Whether `path` is the folder of a run rather than of a model. */
export const isRun = (path: string): boolean => existsSync(runFolder(path).recipe);

export interface RunCheckpoint {
  /** The stage, with the step of one that was kept: `pretrain`, `pretrain-step-000100`, `finetune-best`. */
  name: string;
  path: string;
}

/** Those of a LLaVA. UserError where `path` is no run, or one that has none yet. */
export async function checkpointsOf(path: string): Promise<RunCheckpoint[]> {
  const folder = findRunFolder(path);
  const { task, stages } = await loadRecipe(folder.recipe);
  if (task !== 'llava') throw new UserError(`${path} is a run of task ${task}, whose checkpoints are no LLaVA`);
  const parent = join(path, 'checkpoints');
  const names = existsSync(parent) ? onDisk(parent, () => readdirSync(parent)) : [];
  const found = stages.flatMap(({ name: stage }) => {
    const order = (name: string) =>
      name === stage ? Number.POSITIVE_INFINITY : Number(/-step-(\d+)$/.exec(name)?.[1] ?? Number.MAX_VALUE);
    const ofStage = names.filter(
      (name) => name === stage || (name.startsWith(`${stage}-`) && /^-(best|step-\d+)$/.test(name.slice(stage.length))),
    );
    return ofStage.toSorted((a, b) => order(a) - order(b)).map((name) => ({ name, path: join(parent, name) }));
  });
  const complete = found.filter(({ path }) => existsSync(join(path, 'config.json')));
  if (complete.length === 0) throw new UserError(`${path} has no checkpoints yet`);
  return complete;
}
