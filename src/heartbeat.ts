// The thread that shows that runs and pulls go on: it counts in the lock files of their folders. A thread,
// because the main one is blocked while a step computes, which may take minutes.

import { writeFileSync } from 'node:fs';
import { type MessagePort, parentPort, workerData } from 'node:worker_threads';

/** What it is told: a lock file, which exists, and what is in it but for the count; or to leave one alone. */
export type ToHeartbeat = { path: string; owner: object } | { path: string; left: MessagePort };

/** Milliseconds from one count to the next. */
const { interval } = workerData as { interval: number };
const counting = new Map<string, { owner: object; beat: number }>();

setInterval(() => {
  for (const [path, lock] of counting) {
    lock.beat++;
    try {
      // opened anew each time: other machines see what was written before a file was closed
      writeFileSync(path, JSON.stringify({ ...lock.owner, beat: lock.beat }), { flag: 'r+' });
    } catch {
      // a disk that is away for a while; whoever takes the lock meanwhile is found by `check`
    }
  }
}, interval);

parentPort!.on('message', (message: ToHeartbeat) => {
  if ('owner' in message) {
    counting.set(message.path, { owner: message.owner, beat: 0 });
    return;
  }
  counting.delete(message.path);
  message.left.postMessage('left');
});
