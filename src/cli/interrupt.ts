// Ctrl-C: the first asks the work to stop where it can save, the second stops at once. So do a closed
// terminal and errors that nobody caught: what was good is saved before the process ends.

/**
 * Milliseconds within which a second signal is the first one once more: at Ctrl-C the terminal signals every
 * process, and npm, which is one of them, passes its own on to us.
 */
const SAME = 1000;

/**
 * Thrown by work that was interrupted and has saved what it could; ends the process with code 130, as shells
 * expect.
 */
export class InterruptedError extends Error {
  override name = 'InterruptedError';
}

let stopCurrent: ((reason: Error) => void) | undefined;

/** Asks the work that is going on to save and to end with `reason`. False where there is none. */
export function stopWork(reason: Error): boolean {
  stopCurrent?.(reason);
  return stopCurrent !== undefined;
}

/** Runs `work`; a signal that ends the process has `clean` done before. */
export async function withCleanup<T>(clean: () => void, work: () => Promise<T>): Promise<T> {
  const signals = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const;
  const end = () => {
    clean();
    process.exit(130);
  };
  for (const name of signals) process.on(name, end);
  try {
    return await work();
  } finally {
    for (const name of signals) process.off(name, end);
  }
}

/**
 * Runs `work` with a signal that aborts at Ctrl-C, SIGTERM or the end of the terminal (SIGHUP) with an
 * `InterruptedError` as its reason, or with what `stopWork` is given. The work should save and then throw
 * that reason (`signal.throwIfAborted()`). `advice` says how to go on. One of several processes says nothing
 * of a signal, which all may get, and also heeds SIGUSR2, which Open MPI's mpirun passes on without ending
 * the run itself.
 */
export async function withInterrupt<T>(work: (signal: AbortSignal) => Promise<T>, advice: string, isOneOfSeveral = false): Promise<T> {
  const controller = new AbortController();
  let askedAt = Number.NEGATIVE_INFINITY;
  const interrupt = () => {
    if (performance.now() - askedAt < SAME) return;
    if (controller.signal.aborted) process.exit(130);
    askedAt = performance.now();
    controller.abort(new InterruptedError(`interrupted; ${advice}`));
    if (!isOneOfSeveral) process.stderr.write('\nstopping as soon as it can be saved (Ctrl-C again stops at once)\n');
  };
  // a terminal that closes may send its signal more than once
  const hangUp = () => controller.abort(new InterruptedError(`the terminal was closed; ${advice}`));
  stopCurrent = (reason) => controller.abort(reason);
  const signals = ['SIGINT', 'SIGTERM', ...(isOneOfSeveral ? (['SIGUSR2'] as const) : [])] as const;
  for (const name of signals) process.on(name, interrupt);
  process.on('SIGHUP', hangUp);
  try {
    return await work(controller.signal);
  } finally {
    stopCurrent = undefined;
    for (const name of signals) process.off(name, interrupt);
    process.off('SIGHUP', hangUp);
  }
}
