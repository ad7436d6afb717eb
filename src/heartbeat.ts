// The thread that shows that a run or a pull goes on: it counts in the lock file of its folder. A thread,
// because the main one is blocked while a step computes, which may take minutes.

import { writeFileSync } from 'node:fs';
import { workerData } from 'node:worker_threads';

/** What the thread is given. */
export interface Heartbeat {
  /** The lock file, which exists. */
  path: string;
  /** What is in it, but for the count. */
  owner: object;
  /** Milliseconds from one count to the next. */
  interval: number;
}

const { path, owner, interval } = workerData as Heartbeat;
let beat = 0;
setInterval(() => {
  beat++;
  try {
    // opened anew each time: other machines see what was written before a file was closed
    writeFileSync(path, JSON.stringify({ ...owner, beat }), { flag: 'r+' });
  } catch {
    // a disk that is away for a while; whoever takes the lock meanwhile is found by `check`
  }
}, interval);
