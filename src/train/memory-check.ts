// Whether a run of a large model fits into memory, looked at before its first step: a system that runs out of
// memory ends the process without a word, perhaps hours into it.

import { sizeOf } from '../engine/engine.ts';
import { UserError } from '../errors.ts';
import { gigabytes, planRun } from './plan.ts';
import type { Task } from './task.ts';

/** Models below this share of the memory, in float32, are not planned: they fit, or nearly so. */
const LEAST_SHARE = 1 / 16;

export interface MemoryCheck {
  /** The run folder, or one above it. */
  folder: string;
  /** Bytes that there are for this process. */
  available: number;
  note(line: string): void;
}

/** UserError for a run whose plan is larger than the memory. */
export async function checkMemory(task: Task, { folder, available, note }: MemoryCheck): Promise<void> {
  const bytes = task.weights.parameters.reduce((sum, { dims }) => sum + 4 * sizeOf(dims), 0);
  // without an outline, a plan would make the state of a stage, as large as the model
  if (!task.outline || bytes < LEAST_SHARE * available) return;
  // what would make it fit takes many plans
  const { memory, problems } = await planRun({ task, folder, available, withRemedies: false });
  if (memory.peak > available)
    throw new UserError(
      `${problems[0]}; llava-gemma plan looks for settings with which it would fit, and --no-memory-check trains all the same`,
    );
  note(`planned: at most ${gigabytes(memory.peak)} of memory, of ${gigabytes(available)}`);
}
