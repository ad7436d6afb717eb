// The process that `trainInProcess` starts.

import { openEngine } from '../engine/devices.ts';
import { systemReason, UserError } from '../errors.ts';
import { FolderTakenError } from '../runs/lock.ts';
import { formatProgress, type Status } from '../runs/status.ts';
import { NotFiniteError } from './optimizer.ts';
import { train } from './run.ts';
import type { FromRun, ProcessRun, ToRun } from './run-process.ts';

/** Milliseconds between two lines about how far the run is. */
const INTERVAL = 500;

const controller = new AbortController();
const say = (message: FromRun) => process.connected && process.send!(message);

const linesOf = (): Status => {
  let toldAt = Number.NEGATIVE_INFINITY;
  const tell = (line: () => string) => {
    if (performance.now() - toldAt < INTERVAL) return;
    toldAt = performance.now();
    say({ progress: line() });
  };
  return {
    update: (progress) => tell(() => formatProgress(progress, undefined)),
    progress: (text) => tell(() => text),
    note() {},
    close() {},
  };
};

function kindOf(error: unknown): 'not-finite' | 'machine' | 'user' | 'other' {
  if (error instanceof NotFiniteError) return 'not-finite';
  if (!(error instanceof UserError)) return systemReason(error) === undefined ? 'other' : 'machine';
  return error instanceof FolderTakenError || systemReason(error.cause) !== undefined ? 'machine' : 'user';
}

async function work({ threads, ...run }: ProcessRun): Promise<FromRun> {
  try {
    const engine = await openEngine(run.recipe.device, threads === undefined ? {} : { threads });
    return { summary: await train({ ...run, engine, signal: controller.signal, status: linesOf() }) };
  } catch (error) {
    if (controller.signal.aborted && error === controller.signal.reason) return { stopped: true };
    const { message } = error instanceof Error ? error : new Error(String(error));
    return { error: { message, kind: kindOf(error) } };
  }
}

// whoever started this process hears the signal as well, and says what is to be done about it
for (const name of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(name, () => {});
process.on('disconnect', () => process.exit(1));
process.on('message', async (message: ToRun) => {
  if ('stop' in message) {
    controller.abort(new Error('stopped'));
    return;
  }
  const last = await work(message.run);
  process.send!(last, () => process.exit());
});
