// The side of a process that does work for the one which started it (child.ts).

import { systemReason, UserError } from '../errors.ts';
import { FolderTakenError } from '../folder-lock.ts';
import { peakRssMb, type Status } from '../runs/status.ts';
import type { ChildEnd, ChildProgress, ErrorMessage, FromChild, ToChild, Usage } from './child.ts';
import { NotFiniteError } from './optimizer.ts';

/** What work is done with: `signal` is aborted when it is to save what it has and to end. */
export interface ChildContext {
  signal: AbortSignal;
  /** Passed on, at times. */
  status: Status;
}

/** Between two messages about how far it is. */
const TELL_MILLISECONDS = 500;
/** Between two messages about what it has taken. */
const USAGE_MILLISECONDS = 5000;

/** Does what this process is told, once, and ends it. */
export function serveParent<Work, Result>(doWork: (work: Work, context: ChildContext) => Promise<Result>): void {
  const controller = new AbortController();
  const say = (message: FromChild<Result>): Promise<void> =>
    new Promise((resolve) => {
      if (!process.connected) return resolve();
      process.send!(message, undefined, undefined, () => resolve());
    });
  // whoever started this process hears the signal as well, and says what is to be done about it
  for (const name of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(name, () => {});
  // it is gone: what was saved goes on another time
  process.once('disconnect', () => process.exit(1));
  process.on('message', async (message: ToChild<Work>) => {
    if ('stop' in message) return controller.abort(new Error('stopped'));
    const context = { signal: controller.signal, status: passedOn((progress) => void say({ progress })) };
    const timer = setInterval(() => void say({ soFar: usage() }), USAGE_MILLISECONDS);
    const end = await endOfWork(() => doWork(message.work, context), controller.signal);
    clearInterval(timer);
    await say({ soFar: usage() });
    await say(end);
    process.exit();
  });
}

/** How work ends, as it is told to whoever asked for it. */
export async function endOfWork<Result>(work: () => Promise<Result>, signal: AbortSignal): Promise<ChildEnd<Result> | { stopped: true }> {
  try {
    const result = await work();
    return { result, usage: usage() };
  } catch (error) {
    if (signal.aborted && error === signal.reason) return { stopped: true };
    return { error: messageOf(error), usage: usage() };
  }
}

function usage(): Usage {
  const { userCPUTime, systemCPUTime } = process.resourceUsage();
  return { seconds: performance.now() / 1000, cpuSeconds: (userCPUTime + systemCPUTime) / 1e6, peakRssMb: peakRssMb() };
}

function messageOf(error: unknown): ErrorMessage {
  const { message, stack } = error instanceof Error ? error : new Error(String(error));
  return { message, stack, kind: kindOf(error) };
}

function kindOf(error: unknown): ErrorMessage['kind'] {
  if (error instanceof NotFiniteError) return 'not-finite';
  if (!(error instanceof UserError)) return systemReason(error) === undefined ? 'other' : 'machine';
  return error instanceof FolderTakenError || systemReason(error.cause) !== undefined ? 'machine' : 'user';
}

/** A status that tells now and then; the last step of a stage always. */
function passedOn(tell: (progress: ChildProgress) => void): Status {
  let toldAt = Number.NEGATIVE_INFINITY;
  const pass = (progress: ChildProgress, isLast = false) => {
    if (!isLast && performance.now() - toldAt < TELL_MILLISECONDS) return;
    toldAt = performance.now();
    tell(progress);
  };
  return {
    update: (progress) => pass(progress, progress.step === progress.totalSteps),
    progress: (text) => pass(text),
    note() {},
    close() {},
  };
}
