// What `llava-gemma train` does.
import { existsSync, readFileSync } from 'node:fs';
import { basename, extname, join } from 'node:path';
import { onDisk } from '../../disk.ts';
import type { DeviceName } from '../../engine/engine.ts';
import { UserError } from '../../errors.ts';
import { StoppedTogether } from '../../mpi/communicator.ts';
import { findRunFolder, type RunSummary } from '../../runs/folder.ts';
import { loadRecipe, type Recipe, readRecipe, recipeToYaml } from '../../train/recipe.ts';
import { type TrainOptions, train } from '../../train/run.ts';
import { decodeUtf8 } from '../../utf8.ts';
import { InterruptedError, withInterrupt } from '../interrupt.ts';
import { inProcesses } from '../processes.ts';
import { formatScores, showsColor } from '../table.ts';

/** Trains, with Ctrl-C saving first. */
export async function startTraining(options: Omit<TrainOptions, 'signal'>): Promise<RunSummary> {
  const { out, communicator } = options;
  const advice = `go on with: llava-gemma train --resume --out ${out}`;
  try {
    return await withInterrupt((signal) => train({ ...options, signal }), advice, communicator && communicator.size > 1);
  } catch (error) {
    if (error instanceof StoppedTogether && isFault(error.cause)) throw error.cause;
    if (error instanceof StoppedTogether) throw new InterruptedError(`interrupted; ${advice}`, { cause: error });
    // while models and data are read, there is no run yet to go on with
    if (!(error instanceof InterruptedError) || existsSync(join(out, 'recipe.yaml'))) throw error;
    throw new InterruptedError(`${error.message.split(';')[0]}; nothing was trained yet`, { cause: error });
  }
}

/** Why a run was stopped, where nobody has asked for it. */
const isFault = (cause: unknown) => cause !== undefined && !(cause instanceof InterruptedError);

/** The scores, if any, and where to find everything. */
export function printSummary(out: string, summary: RunSummary): void {
  if (Object.keys(summary.scores).length > 0) console.log(`${formatScores(summary.scores, showsColor())}\n`);
  console.log(`${Math.round(summary.wallSeconds)} s, peak memory ${Math.round(summary.peakRssMb)} MB. Report: ${join(out, 'report.html')}`);
}

export interface RunFlags {
  out?: string;
  set: string[];
  resume?: boolean;
  overwrite?: boolean;
  device?: DeviceName;
}

export interface TrainFlags extends RunFlags {
  shardMoments?: boolean;
  memoryCheck: boolean;
  /** Seconds. */
  mpiTimeout: number;
}

/** Where the run of a recipe is written unless told otherwise. */
export const defaultRunFolder = (recipePath: string) => join('runs', basename(recipePath, extname(recipePath)));

/**
 * The options that a command line asks for. A resumed run keeps its recipe; naming another one is an error,
 * not a surprise.
 */
export async function trainOptionsOf(recipePath: string | undefined, flags: RunFlags): Promise<Omit<TrainOptions, 'signal'>> {
  if (flags.resume && flags.overwrite) throw new UserError('--resume goes on with a run and --overwrite removes it; give one of them');
  const given = recipePath === undefined ? undefined : loadRecipe(recipePath, flags.set);
  const out = flags.out ?? (recipePath === undefined ? undefined : defaultRunFolder(recipePath));
  if (out === undefined)
    throw new UserError(flags.resume ? '--resume needs --out, the folder of the run' : 'give a recipe, such as recipes/emoji-tiny.yaml');
  const title = basename(out);
  if (!flags.resume) {
    if (given === undefined) throw new UserError('give a recipe, such as recipes/emoji-tiny.yaml');
    return { recipe: given, title, out, mode: flags.overwrite ? 'overwrite' : 'new', device: flags.device };
  }
  if (recipePath === undefined && flags.set.length > 0) throw new UserError('--set cannot change a run that is resumed; start another one');
  const folder = existsSync(out) ? findRunFolder(out) : undefined;
  if (folder === undefined) throw new UserError(`there is no run to resume at ${out}`);
  const text = decodeUtf8(
    onDisk(folder.recipe, () => readFileSync(folder.recipe)),
    folder.recipe,
  );
  const recipe = readRecipe(text, folder.recipe);
  // what a run runs on may change
  const asTrained = (one: Recipe) => recipeToYaml({ ...one, device: undefined });
  if (given !== undefined && asTrained(given) !== asTrained(recipe)) {
    throw new UserError(
      `${recipePath} differs from ${folder.recipe}, the recipe of the run to be resumed; leave the recipe out, or start another run`,
    );
  }
  return { recipe, title, out, mode: 'resume', device: flags.device };
}

/** Runs the command, in one process or as one of several. */
export async function runTraining(recipePath: string | undefined, flags: TrainFlags): Promise<void> {
  await inProcesses(flags.mpiTimeout, async (communicator) => {
    const options = await trainOptionsOf(recipePath, flags);
    const summary = await startTraining({ ...options, communicator, shardMoments: flags.shardMoments, memoryCheck: flags.memoryCheck });
    if (communicator.rank === 0) printSummary(options.out, summary);
  });
}
