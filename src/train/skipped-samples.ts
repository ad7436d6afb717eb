// The samples that the processes of a run leave out of a stage, as one list.

import { join } from 'node:path';
import type { SampleFault } from '../data/llava-json.ts';
import { openSkipped, skippedFile } from '../runs/skipped.ts';
import { gatherValues } from './processes.ts';
import type { TaskContext } from './task.ts';

/** Lists what a stage leaves out. The first process writes the list; others tell it what they have met. */
export function skippedSamples(stage: string, { out, communicator }: Pick<TaskContext, 'out' | 'communicator'>) {
  const log = communicator.rank === 0 ? openSkipped(join(out, skippedFile)) : undefined;
  let met: SampleFault[] = [];
  const add = (faults: readonly SampleFault[]) => log!.add(faults.map((fault) => ({ stage, ...fault })));
  return {
    leaveOut(faults: readonly SampleFault[]): void {
      if (log) add(faults);
      // one by one: arguments of a call would have to fit on the stack
      else for (const fault of faults) met.push(fault);
    },
    async skipped(): Promise<number> {
      const all = await gatherValues(communicator, met);
      met = [];
      for (const faults of all) add(faults);
      return log?.count(stage) ?? 0;
    },
  };
}
