// Work that is otherwise done in processes of its own, done in this one, which is much faster. Mocked into
// the place of the modules that start them; the command line as a user starts it (`spawnCli`) has its
// processes.

import { createOrtEngine } from '../src/engine/ort.ts';
import { silentStatus } from '../src/runs/status.ts';
import type * as job from '../src/study/job.ts';
import { doWork } from '../src/study/job-work.ts';
import { endOfWork } from '../src/train/child-side.ts';
import { train } from '../src/train/run.ts';
import type * as runProcess from '../src/train/run-process.ts';

/** For `src/study/job.ts`. */
export async function jobsInThisProcess(original: () => Promise<typeof job>): Promise<typeof job> {
  const module = await original();
  const worker: job.Worker = async (piece, { signal }) => {
    const end = await endOfWork(() => doWork(piece, { signal, status: silentStatus }), signal);
    if (!('stopped' in end)) return end;
    throw signal.reason;
  };
  return { ...module, doJob: (piece, options) => module.doJob(piece, options, worker) };
}

/** For `src/train/run-process.ts`. */
export const trainInThisProcess: typeof runProcess.trainInProcess = ({ threads, ...run }, { signal }) =>
  train({ ...run, signal, status: silentStatus, engine: createOrtEngine(threads === undefined ? {} : { threads }) });
