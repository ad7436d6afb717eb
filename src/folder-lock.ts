// A folder has one writer, a run or a pull. Its lock is a file run.lock.<n>; the highest number holds. Who
// wants it makes the next number, which only one can (O_EXCL, also on a network disk), so that a lock that
// was left behind is taken over without ever being removed first. Whether it was left behind: on the same
// machine by whether the process lives, from another one by whether its heartbeat is still counted. No two
// clocks are compared.

import { randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { existsSync, readdirSync, readFileSync, rmdirSync, rmSync, writeFileSync } from 'node:fs';
import { hostname } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { MessageChannel, type MessagePort, Worker } from 'node:worker_threads';
import { makeFolder, onDisk } from './disk.ts';
import { UserError } from './errors.ts';
import type { ToHeartbeat } from './heartbeat.ts';
import { lifeOf, type ProcessIdentity, thisProcess } from './process-life.ts';

export const lockPattern = /^run\.lock\.(\d+)$/;

/** Node 20 runs no TypeScript: tests start the thread that was built from it. */
const threadFile = import.meta.url.endsWith('.ts')
  ? new URL('../dist/heartbeat.js', import.meta.url)
  : new URL('./heartbeat.js', import.meta.url);

/** Milliseconds from one heartbeat to the next. */
const INTERVAL = 3000;

/** Seconds without a heartbeat after which a lock counts as left behind. */
const PATIENCE = 30;

/** Who holds a lock. */
interface Owner extends ProcessIdentity {
  host: string;
  /** When it began, for people. */
  since: string;
  token: string;
}

export interface FolderLock {
  /** UserError where another one has taken the folder, after this one was without a sign of life for long. */
  check(): void;
  /** Gives the folder back; one that was made for the lock and is still empty is removed. */
  release(): Promise<void>;
}

/** Another run or pull holds the folder. */
export class FolderTakenError extends UserError {}

/** Of a process that writes nothing. */
export const noLock: FolderLock = { check() {}, async release() {} };

// === Processes ===

/**
 * Whether the owner's process lives; undefined where that cannot be seen from here. One that was killed is
 * waited for: freeing many gigabytes takes seconds.
 */
async function isAlive(owner: Owner, patience: number): Promise<boolean | undefined> {
  const end = performance.now() + 1000 * patience;
  let life = lifeOf(owner);
  for (; life === 'ending' && performance.now() < end; life = lifeOf(owner)) await sleep(50);
  return life && life !== 'gone';
}

// === Lock files ===

/** Numbers of the lock files in a folder, ascending. */
function lockNumbers(folder: string): number[] {
  return readdirSync(folder)
    .flatMap((name) => lockPattern.exec(name)?.[1] ?? [])
    .map(Number)
    .sort((a, b) => a - b);
}

function readLock(path: string): { text: string; owner?: Owner } | undefined {
  let text: string;
  try {
    text = readFileSync(path, 'utf8');
  } catch {
    return undefined;
  }
  try {
    return { text, owner: JSON.parse(text) as Owner };
  } catch {
    // it is being written
    return { text };
  }
}

/**
 * Waits until a lock's file changes (true: its holder goes on), is gone, or has not changed for `patience`
 * seconds.
 */
async function hasHeartbeat(path: string, before: string, patience: number): Promise<boolean> {
  for (const end = performance.now() + 1000 * patience; performance.now() < end; ) {
    await sleep(Math.min(500, 100 * patience));
    const now = readLock(path);
    if (now === undefined) return false;
    if (now.text !== before) return true;
  }
  return false;
}

export interface LockOptions {
  /** What messages call those that write such a folder. Default: run. */
  writer?: 'run' | 'pull';
  /** Is told when it takes a while. */
  note: (text: string) => void;
  /** Seconds without a heartbeat after which a lock counts as left behind. Default: 30. */
  patience?: number;
}

/** UserError where the lock at `path` is held. */
async function requireFree(folder: string, path: string, { writer = 'run', note, patience = PATIENCE }: LockOptions): Promise<void> {
  const lock = readLock(path);
  if (lock === undefined) return;
  const { text, owner } = lock;
  let alive = owner && (await isAlive(owner, patience));
  const who = owner ? `process ${owner.pid} on ${owner.host}, since ${owner.since}` : 'who has just begun';
  if (alive === undefined) {
    note(`${folder}: another ${writer} was there (${who}); looking for up to ${patience} s whether it goes on`);
    alive = await hasHeartbeat(path, text, patience);
  }
  if (alive) throw new FolderTakenError(`${folder}: a ${writer} is going on there (${who}); wait for it or stop it, or give another --out`);
}

/** The thread that counts in the locks of this process, while there are some. */
let heart: { thread: Worker; locks: number; isGone: boolean } | undefined;

function startHeart() {
  const thread = new Worker(threadFile, { workerData: { interval: INTERVAL } });
  const started = { thread, locks: 0, isGone: false };
  thread.unref();
  // without it, other machines may take the locks over; this one still sees the process
  thread.on('error', () => {});
  thread.on('exit', () => {
    started.isGone = true;
    if (heart === started) heart = undefined;
  });
  return started;
}

/** Counts in a lock file until what is returned is called; nothing is written to it when that settles. */
function countIn(path: string, owner: Owner): () => Promise<void> {
  heart ??= startHeart();
  const own = heart;
  const tell = (message: ToHeartbeat, ...ports: MessagePort[]) => own.thread.postMessage(message, ports);
  own.locks++;
  tell({ path, owner });
  return async () => {
    own.locks--;
    if (own.locks === 0) {
      if (heart === own) heart = undefined;
      await own.thread.terminate();
    } else if (!own.isGone) {
      const { port1, port2 } = new MessageChannel();
      tell({ path, left: port2 }, port2);
      // it closes where the thread is gone
      await Promise.race([once(port1, 'message'), once(port1, 'close')]);
      port1.close();
    }
  };
}

/**
 * Takes a folder, creating it if absent, until it is released. UserError where another one holds it, and
 * where it cannot be written.
 */
export async function lockFolder(folder: string, options: LockOptions): Promise<FolderLock> {
  const { writer = 'run' } = options;
  const created = !existsSync(folder);
  makeFolder(folder);
  const owner: Owner = { ...thisProcess(), host: hostname(), since: new Date().toISOString(), token: randomUUID() };
  const pathOf = (number: number) => join(folder, `run.lock.${number}`);
  const take = async (): Promise<number> => {
    for (;;) {
      const numbers = onDisk(folder, () => lockNumbers(folder));
      for (const number of numbers.slice(-1)) await requireFree(folder, pathOf(number), options);
      const own = (numbers.at(-1) ?? 0) + 1;
      try {
        writeFileSync(pathOf(own), JSON.stringify({ ...owner, beat: 0 }), { flag: 'wx' });
      } catch (error) {
        // another one was faster
        if ((error as NodeJS.ErrnoException).code === 'EEXIST') continue;
        onDisk(folder, () => {
          throw error;
        });
      }
      const held = lockNumbers(folder);
      if (held.at(-1) === own) {
        for (const number of held) if (number < own) rmSync(pathOf(number), { force: true });
        return own;
      }
      rmSync(pathOf(own), { force: true });
    }
  };
  const path = pathOf(await take());
  const leave = countIn(path, owner);
  const holder = () => {
    const last = onDisk(folder, () => lockNumbers(folder)).at(-1);
    return last === undefined ? undefined : readLock(pathOf(last))?.owner;
  };
  return {
    check() {
      const now = holder();
      if (now !== undefined && now.token !== owner.token)
        throw new FolderTakenError(`${folder}: another ${writer} (process ${now.pid} on ${now.host}) has taken the folder; this one ends`);
    },
    async release() {
      await leave();
      if (readLock(path)?.owner?.token === owner.token) rmSync(path, { force: true });
      if (!created) return;
      try {
        rmdirSync(folder);
      } catch {
        // something is in it
      }
    },
  };
}
