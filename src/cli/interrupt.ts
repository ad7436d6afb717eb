// Ctrl-C: the first asks the work to stop where it can save, the second stops at once.

/**
 * Thrown by work that was interrupted and has saved what it could; ends the process with code 130, as shells
 * expect.
 */
export class InterruptedError extends Error {
  override name = 'InterruptedError';
}

/**
 * Runs `work` with a signal that aborts at Ctrl-C (or SIGTERM) with an `InterruptedError` as its reason. The
 * work should save and then throw that reason (`signal.throwIfAborted()`). `advice` says how to go on.
 */
export async function withInterrupt<T>(work: (signal: AbortSignal) => Promise<T>, advice: string): Promise<T> {
  const controller = new AbortController();
  const interrupt = () => {
    if (controller.signal.aborted) process.exit(130);
    process.stderr.write('\nstopping after this step (Ctrl-C again stops at once)\n');
    controller.abort(new InterruptedError(`interrupted; ${advice}`));
  };
  const signals = ['SIGINT', 'SIGTERM'] as const;
  for (const name of signals) process.on(name, interrupt);
  try {
    return await work(controller.signal);
  } finally {
    for (const name of signals) process.off(name, interrupt);
  }
}
