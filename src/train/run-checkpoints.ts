// The checkpoints of a run: what one holds beside the model, when one is due, and where a run goes on.

import { existsSync } from 'node:fs';
import { type Checkpoint, openCheckpoint, readJsonFile, recoverCheckpoint, saveCheckpoint } from '../checkpoint/checkpoint.ts';
import { recoverKept } from '../checkpoint/kept-folders.ts';
import { float32, type State, type Value } from '../engine/engine.ts';
import { UserError } from '../errors.ts';
import type { RunFolder, StageSummary } from '../runs/folder.ts';
import { openSafetensors, type TensorSource } from '../weights/safetensors.ts';
import { addAdapters, type StageAdapters } from './adapters.ts';
import type { WeightAverage } from './ema.ts';
import type { Fingerprints } from './fingerprints.ts';
import type { HealthState } from './health.ts';
import { isTrainedBy } from './rates.ts';
import { endAdapters, type SavedContents, type SavedFiles, savedAdapters, savedModel, withTrained } from './saved.ts';
import type { PreparedStage, Task } from './task.ts';

/** trainer_state.json of a checkpoint. */
export interface TrainerState {
  stage: string;
  step: number;
  totalSteps: number;
  /** Time spent in the stage, over all sittings. */
  seconds: number;
  firstLoss: number;
  lastLoss: number;
  /** Samples that were left out, of a stage that is finished, if there are any. */
  skipped?: number;
  /** What the stages read; runs of earlier versions have none. */
  inputs?: Fingerprints;
  /** What is known of the last steps, to tell what is odd. */
  health?: HealthState;
  /** The held-out loss, in the checkpoint that is kept as the best. */
  heldOutLoss?: number;
}

const STATE_FILE = 'trainer_state.json';
const OPTIMIZER_FILE = 'optimizer.safetensors';
/** The average of the weights (ema.ts), of an unfinished stage. */
const AVERAGE_FILE = 'ema.safetensors';

/** What a stage has trained, and with what. */
export interface TrainedStage {
  task: Task;
  isTrained: (name: string) => boolean;
  adapters: StageAdapters | undefined;
  average: WeightAverage | undefined;
}

/** Read when they are written: of several processes, another one may have a state. */
const sourcesOf = (states: ReadonlyMap<string, State>) => new Map([...states].map(([name, state]) => [name, stateSource(state)]));

const stateText = (state: TrainerState) => `${JSON.stringify(state, null, 2)}\n`;

/** Saves the model with the average of its weights, if there is one: what is of use by itself. */
export async function saveModel({ task, adapters, average }: TrainedStage, dir: string, state: TrainerState): Promise<void> {
  await task.weights.using(average?.values ?? new Map(), async () => {
    const model = await savedModel(task, adapters);
    await saveCheckpoint(dir, { ...model, files: { ...model.files, [STATE_FILE]: stateText(state) } });
  });
}

/**
 * Saves a stage as it stands in `dir`: the model, or what an unfinished stage with adapters has trained, and
 * the state.
 */
export async function saveStage(
  stage: TrainedStage,
  dir: string,
  state: TrainerState,
  moments: ReadonlyMap<string, State> | undefined,
): Promise<void> {
  const { task, isTrained, adapters, average } = stage;
  if (isFinished(state)) return saveModel(stage, dir, state);
  const model: SavedContents | SavedFiles = adapters ? await savedAdapters(task, isTrained) : await savedModel(task, adapters);
  const tensorFiles = {
    ...model.tensorFiles,
    ...(moments ? { [OPTIMIZER_FILE]: sourcesOf(moments) } : {}),
    ...(average ? { [AVERAGE_FILE]: sourcesOf(average.saved) } : {}),
  };
  await saveCheckpoint(dir, { ...model, files: { ...model.files, [STATE_FILE]: stateText(state) }, tensorFiles });
}

/** The held-out loss of the model that is kept as the best in `dir`; undefined where there is none. */
export async function bestLossIn(dir: string): Promise<number | undefined> {
  const path = `${dir}/${STATE_FILE}`;
  return existsSync(path) ? (await readState(path)).heldOutLoss : undefined;
}

function stateSource(state: State): TensorSource {
  return {
    dtype: state.dtype === 'uint8' ? 'U8' : 'F32',
    shape: [...state.dims],
    async *data() {
      const { buffer, byteOffset, byteLength } = (await state.read()).data;
      yield new Uint8Array(buffer, byteOffset, byteLength);
    },
  };
}

const isFinished = ({ step, totalSteps }: TrainerState) => step >= totalSteps;

export type Checkpoints = ReturnType<typeof checkpointsOf>;

/** When a stage is saved before its end. `write` saves its present state. */
export function checkpointsOf(
  state: Readonly<TrainerState>,
  { save_every: steps, save_every_minutes: minutes }: PreparedStage['settings'],
  write: (moments: ReadonlyMap<string, State> | undefined) => Promise<void>,
) {
  let savedStep = state.step;
  let savedAt = performance.now();
  let hasFailed = false;
  return {
    isDue: () => (steps > 0 && state.step % steps === 0) || (minutes > 0 && performance.now() - savedAt >= 60_000 * minutes),
    isSaved: () => state.step === savedStep,
    /** Whether the last attempt to save has failed. */
    hasFailed: () => hasFailed,
    async save(moments: ReadonlyMap<string, State> | undefined) {
      hasFailed = true;
      await write(moments);
      hasFailed = false;
      savedStep = state.step;
      savedAt = performance.now();
    },
  };
}

/** Where a run goes on. */
export interface Resumed {
  finished: StageSummary[];
  /** The stage in progress. */
  state?: TrainerState;
  moments?: Map<string, Value>;
  averages?: Map<string, Value>;
  /** What the stages read when the run was last saved. */
  inputs?: Fingerprints;
}

async function readState(path: string): Promise<TrainerState> {
  const state = (await readJsonFile(path)) as Partial<TrainerState> | null;
  if (typeof state?.step !== 'number' || typeof state.totalSteps !== 'number')
    throw new UserError(`${path}: does not say where its stage stands; move the folder away, and the stage begins anew`);
  return state as TrainerState;
}

/** Puts in their places checkpoints that a run which was killed has left beside them. */
export async function recoverRun(task: Task, folder: RunFolder): Promise<void> {
  for (const { name } of task.stages) {
    await recoverCheckpoint(folder.checkpoint(name));
    await recoverKept(folder.checkpoint(name));
  }
}

/** Finds where a run stands, and loads what it has trained so far into the task. */
export async function restoreRun(task: Task, folder: RunFolder): Promise<Resumed> {
  const finished: StageSummary[] = [];
  const trained = new Set<string>();
  let inputs: Fingerprints | undefined;
  for (const [index, { name, train }] of task.stages.entries()) {
    const dir = folder.checkpoint(name);
    if (!existsSync(dir)) break;
    const adapters = task.adapters?.(index);
    if (adapters) addAdapters(task.weights, adapters);
    const state = await readState(`${dir}/${STATE_FILE}`);
    inputs = state.inputs;
    for (const module of train) trained.add(module);
    if (adapters && !isFinished(state)) {
      await restoreWeights(task, dir, undefined, isTrainedBy(train, task.moduleOf));
    } else
      await withSaved(dir, async (checkpoint) => {
        if (adapters) await endAdapters(task, adapters, checkpoint);
        await restoreWeights(task, dir, checkpoint, (parameter) => trained.has(task.moduleOf(parameter)));
      });
    if (!isFinished(state)) {
      const averages = `${dir}/${AVERAGE_FILE}`;
      return {
        finished,
        inputs,
        state,
        moments: await readStates(`${dir}/${OPTIMIZER_FILE}`),
        ...(existsSync(averages) ? { averages: await readStates(averages) } : {}),
      };
    }
    const { seconds, step, firstLoss, lastLoss, skipped } = state;
    finished.push({ name, seconds, steps: step, firstLoss, lastLoss, ...(skipped ? { skipped } : {}) });
  }
  return { finished, inputs };
}

/** Loads the weights that `isWanted` names from what a run saved in `dir`. */
async function restoreWeights(
  { weights }: Task,
  dir: string,
  checkpoint: Checkpoint | undefined,
  isWanted: (name: string) => boolean,
): Promise<void> {
  await withTrained(dir, checkpoint, async ({ read }) => {
    for (const parameter of weights.parameters) if (isWanted(parameter.name)) await weights.restore(parameter.name, await read(parameter));
  });
}

/** Opens the checkpoint in `dir` for `body`. */
export async function withSaved(dir: string, body: (checkpoint: Checkpoint) => Promise<void>): Promise<void> {
  const checkpoint = await openCheckpoint(dir);
  try {
    await body(checkpoint);
  } finally {
    await checkpoint.close();
  }
}

/** The tensors of a file by name: float32, or codes of moments. */
async function readStates(path: string): Promise<Map<string, Value>> {
  const file = await openSafetensors(path);
  try {
    const values = new Map<string, Value>();
    for (const name of file.names) {
      const { data, shape, dtype } = await file.read(name);
      const { buffer, byteOffset, byteLength } = data;
      const value: Value =
        dtype === 'U8' ? { dtype: 'uint8', dims: shape, data } : float32(new Float32Array(buffer, byteOffset, byteLength / 4), shape);
      values.set(name, value);
    }
    return values;
  } finally {
    await file.close();
  }
}
